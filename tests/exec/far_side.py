"""The helper on its own, in each shell; a look at what lives, from outside; places that one shell alone fills."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mqi_ssh_exec import quick
from mqi_ssh_exec.far_runner import BEGUN, DEFERRED
from mqi_ssh_exec.helper import helper_text
from mqi_ssh_exec.helper_calls import Call, Order, Place, helper_call, kill_call, status_call, submit_call
from mqi_ssh_exec.job_status import JobStatus, read_report

SHELLS = ("dash", "bash", "busybox")


def until(condition: Callable[[], object], *, within: float = 15.0, what: str = "") -> None:
    """Wait for a condition, with a limit."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what or condition}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process lives; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def start_time(pid: int) -> str:
    """Return the field by which two processes of one number are told apart."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


def processes_below(directory: Path) -> list[int]:
    """Return the living processes that mention a directory: in their arguments, their environment or as their own."""
    found = []
    text = str(directory).encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid() or not alive(int(process.name)):
            continue
        try:
            facts = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            facts += os.fsencode((process / "cwd").readlink())
        except OSError:
            continue
        if text in facts:
            found.append(int(process.name))
    return found


def lines_of(file: Path) -> list[str]:
    """Return a ledger's lines; none while it is not there."""
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return []


def shell_path(name: str, directory: Path) -> str:
    """Make a PATH in which `sh` is this shell; for busybox one in which everything is busybox."""
    program = shutil.which(name)
    assert program
    directory.mkdir(exist_ok=True)
    if name == "busybox":
        subprocess.run([program, "--install", "-s", str(directory)], check=True)
        return str(directory)
    (directory / "sh").symlink_to(program)
    return f"{directory}:{os.environ['PATH']}"


_ASKED = """
import os, sys
space = {}
exec(sys.argv[1], space)
request = sys.stdin.buffer.read()
out = os.dup(1)
for number in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
os.write(out, space["answer"](request))
"""


class FarSide:
    """A part's directory, and the helper in one shell."""

    def __init__(self, directory: Path, path: str) -> None:
        self.part = directory / "work" / "simulate" / "_"
        self.ledger = directory / "ledger"
        self.helper = directory / "mqi-job"
        self.helper.write_bytes(helper_text())
        self.environment = {"PATH": path, "LEDGER": str(self.ledger), "MARK": str(directory)}
        self.far_helper = PurePosixPath(self.helper)

    def place(self, attempt: int = 1) -> Place:
        return Place(PurePosixPath(self.part), attempt)

    def records(self, attempt: int = 1) -> Path:
        return self.part / f".{attempt}.job"

    def work(self, attempt: int = 1) -> Path:
        return self.part / str(attempt)

    def spawn(self, call: Call) -> subprocess.Popen[bytes]:
        """Call the helper without waiting for its answer."""
        program = subprocess.Popen(
            ["sh", *call.argv[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            executable=shutil.which("sh", path=self.environment["PATH"]),
            start_new_session=True,
        )
        assert program.stdin
        with contextlib.suppress(BrokenPipeError):  # it may say no, or be killed, before it has read that
            program.stdin.write(call.stdin)
            program.stdin.close()
        program.stdin = None
        return program

    def call(self, call: Call) -> str:
        """Call the helper and return what it says."""
        program = self.spawn(call)
        out, err = program.communicate(timeout=60)
        assert not err, err.decode()
        return out.decode("utf-8", "replace")

    def order(self, command: str, *, time_limit: int = 0, kill_after: int = 1, log_limit: int = 65_536) -> Order:
        return Order(f"{command}\n".encode(), None, time_limit, kill_after, log_limit)

    def submit(self, command: str, *, attempt: int = 1, wait: int = 0, **limits: int) -> JobStatus:
        order = self.order(command, **limits)
        return read_report(self.call(submit_call(self.far_helper, self.place(attempt), order, wait=wait)))

    def quickly(self, order: Order, *, attempt: int, wait: int, outputs: tuple[str, ...] = ()) -> bytes:
        """Have a run started by the program that stays loaded on a host; return its answer. It ends afterwards."""
        facts = quick.request(self.place(attempt), order, wait=wait, outputs=outputs)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _ASKED, quick.runner().text],
            input=facts, env=self.environment, capture_output=True, start_new_session=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    def status(self, *, attempt: int = 1, wait: int = 0) -> JobStatus:
        return read_report(self.call(status_call(self.far_helper, self.place(attempt), wait=wait)))

    def kill(self, *, attempt: int = 1, grace: int = 1, reason: str = "operator", wait: int = 10) -> JobStatus:
        call = kill_call(self.far_helper, self.place(attempt), grace=grace, reason=reason, wait=wait)
        return read_report(self.call(call))

    def ask(self, verb: str, *arguments: str, attempt: int = 1) -> str:
        return self.call(helper_call(PurePosixPath(self.helper), verb, self.place(attempt), *arguments))

    def runner(self, attempt: int = 1) -> int:
        """Return the process id of the run's runner."""
        until(lambda: (self.records(attempt) / "started").exists())
        return int(dict(self._started(attempt))["pid"])

    def _started(self, attempt: int) -> Iterator[tuple[str, str]]:
        for line in (self.records(attempt) / "started").read_text().splitlines():
            name, _, value = line.partition("=")
            yield name, value

    def rewrite_started(self, attempt: int = 1, **changes: str) -> None:
        """Write the runner's record with other values: what is left after a restart, on another machine, …"""
        facts = dict(self._started(attempt)) | changes
        (self.records(attempt) / "started").write_text("".join(f"{name}={value}\n" for name, value in facts.items()))

    def kill_all(self) -> None:
        """End everything of this far side by force, as a crash of its machine would, but for the machine."""
        for _ in range(100):
            found = processes_below(self.part.parent.parent.parent)
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        raise AssertionError("something can't be ended")


class QuickSide(FarSide):
    """A far side where runs are started by the program that stays loaded there, and all else is the helper's."""

    def submit(self, command: str, *, attempt: int = 1, wait: int = 0, **limits: int) -> JobStatus:
        answer = self.quickly(self.order(command, **limits), attempt=attempt, wait=wait)
        if answer == BEGUN:
            wait = 0
        elif answer != DEFERRED:
            return read_report(answer.decode("utf-8", "replace"))
        return super().submit(command, attempt=attempt, wait=wait, **limits)
