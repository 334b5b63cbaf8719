"""The conductor learns from the daemon's status file which processes the daemon has given up on."""

from __future__ import annotations

import os
from pathlib import Path

from mqi_cli.crew import ChildState
from mqi_cli.daemon import ChildStatus, DaemonFiles, DaemonStatus
from mqi_cli.lock import Lock
from mqi_cli.processes import _not_running


def child(name: str, state: ChildState) -> ChildStatus:
    return ChildStatus(name, state, None, 11, 1.0, "exit code 1", 1, None, None)


def test_given_up_are_those_that_are_fatal_or_refuse_their_config(tmp_path: Path) -> None:
    files = DaemonFiles(tmp_path)
    assert _not_running(files) == {}, "no daemon"
    children = tuple(child(f"{state}-1", state) for state in ChildState)
    lock = Lock(files.lock)
    lock.acquire()
    files.write_status(DaemonStatus(os.getpid(), "1", None, "", 1.0, "running", True, 0, "", children))
    assert _not_running(files) == {"fatal-1": "fatal, exit code 1", "refused-1": "refused, exit code 1"}
    lock.release()
    assert _not_running(files) == {}, "it is gone, and what it wrote with it"
