"""Small programs as children, and supervisors that no test leaves behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.daemon import DaemonFiles
from supervisor.bench import Bench, Daemons, Programs, alive


@pytest.fixture
def program(tmp_path: Path) -> Programs:
    directory = tmp_path / "programs"
    directory.mkdir()
    return Programs(directory)


@pytest.fixture
def files(tmp_path: Path) -> DaemonFiles:
    (tmp_path / "state").mkdir(mode=0o700)
    return DaemonFiles(tmp_path / "state")


@pytest.fixture(autouse=True)
def _logging_is_left_as_found() -> Iterator[None]:
    root = logging.getLogger()
    found = root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions
    shower = warnings.showwarning
    yield
    root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions = found
    logging.captureWarnings(False)
    warnings.showwarning = shower


@pytest.fixture
def bench(files: DaemonFiles) -> Iterator[Bench]:
    bench = Bench(files)
    yield bench
    if bench.supervisor is not None:
        pids = [each.pid for each in bench.supervisor.children.values() if each.pid]
        bench.supervisor.end_all()
        assert not [pid for pid in pids if alive(pid)]


@pytest.fixture
def daemons(files: DaemonFiles) -> Iterator[Daemons]:
    daemons = Daemons(files)
    yield daemons
    for process in daemons.processes:
        for _ in range(2):  # the second one means "now"
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()
    left = [pid for pid in daemons.pids if alive(pid)]
    for pid in left:
        os.killpg(pid, signal.SIGKILL)
    assert not left
