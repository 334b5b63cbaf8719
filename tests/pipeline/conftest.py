"""The fixture `house`: a whole installation, whose host is the session's real SSH server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer
from pipeline.house import House


@pytest.fixture
def house(sshd: OpenSSHServer) -> Iterator[House]:
    """An installation that is not configured yet; what a failed test left running is ended."""
    directory = Path(tempfile.mkdtemp(prefix="mqi-house-"))
    found = House(directory, sshd)
    try:
        yield found
    finally:
        for pid in found.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
