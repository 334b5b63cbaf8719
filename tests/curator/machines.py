"""What the curator's tests stand on: a fake `nvidia-smi` in a directory of its own, and hosts that see it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Any, TypeVar

from curator import captured
from mqi_cli import Clock, Host
from mqi_curator.config import CuratorSection

T = TypeVar("T")

_ANSWERS = """#!/bin/sh
case "$*" in
  *query-gpu*) cat {directory}/gpus; exit "$(cat {directory}/gpus.code)" ;;
  *query-compute-apps*) cat {directory}/apps; exit "$(cat {directory}/apps.code)" ;;
esac
exit 2
"""


class FakeSmi:
    """A program that answers as `nvidia-smi` does, with texts that a test chooses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.program = directory / "nvidia-smi"
        self.answers(captured.TWO_A100_MIG_COLUMN)
        self.behaves(_ANSWERS.format(directory=directory))

    def answers(self, gpus: str, apps: str = captured.APPS_NONE, *, gpu_code: int = 0, app_code: int = 0) -> None:
        """Choose the two answers and their exit codes."""
        (self.directory / "gpus").write_text(gpus)
        (self.directory / "gpus.code").write_text(str(gpu_code))
        (self.directory / "apps").write_text(apps)
        (self.directory / "apps.code").write_text(str(app_code))

    def behaves(self, script: str) -> None:
        """Replace the program by another script."""
        self.program.write_text(script)
        self.program.chmod(0o755)

    def hangs(self) -> None:
        """Make it wait for ever, with a child that does too, as a program does that waits for a sick driver."""
        self.behaves(f"#!/bin/sh\necho $$ >>{self._pids}\nsleep 600 &\necho $! >>{self._pids}\nsleep 600\n")

    def hangs_alone(self) -> None:
        """Make it wait for ever in one process."""
        self.behaves(f"#!/bin/sh\necho $$ >>{self._pids}\nexec sleep 600\n")

    def left_running(self) -> list[int]:
        """Return what of it still runs."""
        noted = self._pids.read_text().split() if self._pids.exists() else []
        return [int(pid) for pid in noted if _runs(pid)]

    def end(self) -> None:
        """End what a test left running."""
        for pid in self.left_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def _pids(self) -> Path:
        return self.directory / "pids"


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Round:
    """A patrol's context that keeps what is reported."""

    def __init__(self, section: CuratorSection, hosts: dict[str, Host], *, clock: Clock) -> None:
        self.config = section
        self.log = logging.LoggerAdapter(logging.getLogger("mqi.patrol"), {})
        self.clock = clock
        self.hosts = tuple(hosts)
        self.owner = ""
        self.stop = False
        self.reported: list[Any] = []
        self._hosts = hosts

    def host(self, name: str) -> Host:
        return self._hosts[name]

    def stopping(self) -> bool:
        return self.stop

    def report(self, finding: Any) -> None:
        self.reported.append(finding)

    def of(self, kind: type[T]) -> list[T]:
        """Return what was reported of one kind."""
        return [each for each in self.reported if isinstance(each, kind)]
