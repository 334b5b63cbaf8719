"""What the supervisor's tests stand on: small programs as children, and supervisors in this process or in their own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mqi_cli.clock import Clock
from mqi_cli.config.model import LogSection
from mqi_cli.crew import ChildSpec, Plan
from mqi_cli.daemon import DaemonFiles, DaemonStatus
from mqi_cli.notify import Notifier
from mqi_cli.supervisor import Supervisor

ROOT = Path(__file__).parents[2]

OBEDIENT = """
    import signal, sys, time
    from mqi_cli.child import become_child
    beat = become_child()
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    import os; print("up, pid", os.getpid(), flush=True)
    while not stop:
        beat.turn()
        time.sleep(0.02)
    print("drained", flush=True)
"""
STUBBORN = OBEDIENT.replace("while not stop:", "while True:")


def eventually(condition: Callable[[], Any], *, within: float = 15.0, every: float = 0.02, what: str = "") -> Any:
    """Wait until the condition holds and return its value; fail when it does not in time."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, what or "it did not come true in time"
        time.sleep(every)
    return value


def alive(pid: int) -> bool:
    """Whether a process lives: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class ShiftedClock(Clock):
    """The system's clock, which a test may put forward."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset

    def elapsed(self) -> float:
        return super().elapsed() + self.offset


class Programs:
    """Writes programs and returns them as children."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str, source: str, **more: Any) -> ChildSpec:
        path = self.directory / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        return ChildSpec(name, (sys.executable, str(path)), **more)


class Bench:
    """A supervisor in this process, turned by hand, with a clock that can be put forward."""

    def __init__(self, files: DaemonFiles) -> None:
        self.files = files
        self.clock = ShiftedClock()
        self.plans: list[Plan] = []
        self.supervisor: Supervisor | None = None

    def start(self, *children: ChildSpec, stop_within: float = 5.0, log: LogSection | None = None) -> Supervisor:
        plan = Plan(children, log=log or LogSection(), stop_within=stop_within, secrets=("hunter22",))
        self.supervisor = Supervisor(
            plan,
            self.files,
            reload=lambda: self.plans.pop(0),
            alone=lambda: True,
            environment={**os.environ, "PYTHONPATH": str(ROOT)},
            notifier=Notifier({}),
            clock=self.clock,
            random=random.Random(7),
        )
        self.supervisor.adopt(plan)
        return self.supervisor

    def until(self, condition: Callable[[], Any], *, within: float = 15.0) -> Any:
        """Turn the supervisor until the condition holds."""
        assert self.supervisor is not None
        deadline = time.monotonic() + within
        while not (value := condition()):
            assert time.monotonic() < deadline, "it did not come true in time"
            self.supervisor.turn(longest=0.02)
        return value

    def log(self, name: str) -> str:
        path = self.files.log(name)
        return path.read_text() if path.exists() else ""


class Daemons:
    """Supervisors in processes of their own."""

    def __init__(self, files: DaemonFiles) -> None:
        self.files = files
        self.processes: list[subprocess.Popen[str]] = []
        self.pids: set[int] = set()

    def start(self, *children: ChildSpec, stop_within: float = 5.0, **environment: str) -> subprocess.Popen[str]:
        specs = [{key: value for key, value in vars(each).items() if key != "settings"} for each in children]
        process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("daemon_program.py")),
                str(self.files.lock.parent),
                json.dumps(specs),
                str(stop_within),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def ready(self) -> DaemonStatus:
        """Wait until the daemon says that its children are up."""
        status = eventually(lambda: (found := self.files.read_status()) and found.ready and found)
        self.pids |= {each.pid for each in status.children if each.pid}
        return status
