"""How a host starts runs: what is called to submit, look at and end one. Pure; `job.py` makes the calls.

`direct` starts them as processes of the host itself. Another scheduler implements the same contract, keeps the same
records in the same directory, and is chosen by the host's `scheduler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol


@dataclass(frozen=True)
class Place:
    """Where one attempt's run lies on its host: `<part>/<attempt>` and, for the records, `<part>/.<attempt>.job`."""

    part: PurePosixPath
    attempt: int


@dataclass(frozen=True)
class Order:
    """What is to run: the script, and its limits in seconds and bytes. `time_limit` 0 means none."""

    script: bytes
    input_dir: PurePosixPath | None
    time_limit: int
    kill_after: int
    log_limit: int


@dataclass(frozen=True)
class Call:
    """One program call on a host."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    timeout: float = 60.0


class Scheduler(Protocol):
    """Starts runs, exactly once each; every call may be repeated, and answers with a report of `job_status`."""

    def submit(self, place: Place, order: Order, *, wait: int) -> Call:
        """Start the run, unless it was started before; then wait up to `wait` seconds for its end."""

    def status(self, place: Place, *, wait: int) -> Call:
        """Look at the run; while it goes on, wait up to `wait` seconds for its end."""

    def kill(self, place: Place, *, grace: int, reason: str, wait: int) -> Call:
        """Ask the run to end, force it `grace` seconds later; one that has not begun never will."""


def helper_call(
    helper: PurePosixPath, verb: str, place: Place, *arguments: str, stdin: bytes = b"", timeout: float = 60.0
) -> Call:
    """Call the helper that lies at `helper`."""
    return Call(("/bin/sh", str(helper), verb, str(place.part), str(place.attempt), *arguments), stdin, timeout)


@dataclass(frozen=True)
class Direct:
    """Runs are processes of the host itself. `helper` is where the helper `mqi-job` lies."""

    helper: PurePosixPath

    def submit(self, place: Place, order: Order, *, wait: int) -> Call:
        """Start the run, unless it was started before."""
        limits = (order.time_limit, order.kill_after, order.log_limit, len(order.script), wait)
        arguments = (str(order.input_dir or "-"), *map(str, limits))
        return helper_call(self.helper, "submit", place, *arguments, stdin=order.script, timeout=90.0 + wait)

    def status(self, place: Place, *, wait: int) -> Call:
        """Look at the run."""
        return helper_call(self.helper, "status", place, str(wait), timeout=60.0 + wait)

    def kill(self, place: Place, *, grace: int, reason: str, wait: int) -> Call:
        """Ask the run to end."""
        return helper_call(self.helper, "kill", place, str(grace), str(wait), reason, timeout=90.0 + wait)


def scheduler_named(name: str, helper: PurePosixPath) -> Scheduler:
    """Return the scheduler that a host's config names."""
    schedulers = {"direct": Direct}
    return schedulers[name](helper)
