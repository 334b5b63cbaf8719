"""Fixtures: a real OpenSSH server on loopback, one for each test process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from servers import missing


def require_sshd() -> None:
    """Skip at a desk without OpenSSH's server; fail in CI, where a skipped test would go unseen."""
    if find_sshd() is None:
        missing("OpenSSH", package="openssh-server")


@pytest.fixture(scope="session")
def sshd() -> Iterator[OpenSSHServer]:
    """A running server that the whole session shares. A test that stops it starts it again."""
    require_sshd()
    directory = Path(tempfile.mkdtemp(prefix="mqi-sshd-"))
    server = OpenSSHServer(directory)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def own_sshd() -> Iterator[OpenSSHServer]:
    """A server of this test alone, not yet started: set `lines`, then `start()`."""
    require_sshd()
    directory = Path(tempfile.mkdtemp(prefix="mqi-sshd-"))
    server = OpenSSHServer(directory)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
