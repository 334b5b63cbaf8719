"""The calls to the helper: which program, with what, for one attempt's run. Pure; `job.py` makes the calls."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mqi_cli import Call, Resources


@dataclass(frozen=True)
class Place:
    """Where one attempt's run lies on its host: `<part>/<attempt>` and, for the records, `<part>/.<attempt>.job`."""

    part: PurePosixPath
    attempt: int

    @property
    def records(self) -> PurePosixPath:
        """The directory of the run's records."""
        return self.part / f".{self.attempt}.job"


@dataclass(frozen=True)
class Order:
    """What is to run: the script, and its limits in seconds and bytes. `time_limit` 0 means none."""

    script: bytes
    input_dir: PurePosixPath | None
    time_limit: int
    kill_after: int
    log_limit: int
    resources: Resources = field(default_factory=Resources)


def helper_call(
    helper: PurePosixPath, verb: str, place: Place, *arguments: str, stdin: bytes = b"", timeout: float = 60.0
) -> Call:
    """Call the helper that lies at `helper`."""
    return Call(("/bin/sh", str(helper), verb, str(place.part), str(place.attempt), *arguments), stdin, timeout)


def submit_call(helper: PurePosixPath, place: Place, order: Order, *, wait: int, outputs: Sequence[str] = ()) -> Call:
    """Start the run on the host itself, unless it was started before; then wait up to `wait` seconds for its end."""
    limits = (*_limits(order), str(len(order.script)), str(wait), *outputs)
    return helper_call(helper, "submit", place, *limits, stdin=order.script, timeout=90.0 + wait)


def status_call(helper: PurePosixPath, place: Place, *, wait: int) -> Call:
    """Look at the run; while it goes on, wait up to `wait` seconds for its end."""
    return helper_call(helper, "status", place, str(wait), timeout=60.0 + wait)


def kill_call(helper: PurePosixPath, place: Place, *, grace: int, reason: str, wait: int) -> Call:
    """Ask the run to end, force it `grace` seconds later; one that has not begun never will."""
    return helper_call(helper, "kill", place, str(grace), str(wait), reason, timeout=90.0 + wait)


def enqueue_call(helper: PurePosixPath, place: Place, order: Order, *, script: bytes, program: Sequence[str]) -> Call:
    """Put the run into a queue by `program`, unless that was done before."""
    arguments = (str(len(order.script)), *program)
    return helper_call(helper, "enqueue", place, *arguments, stdin=order.script + script + b"#whole\n", timeout=150.0)


def runner_command(helper: PurePosixPath, place: Place, order: Order) -> str:
    """Return the shell text that a queue starts on one of its machines: the same runner as anywhere."""
    words = shlex.join(["/bin/sh", str(helper), "start", str(place.part), str(place.attempt), *_limits(order)])
    mark = shlex.quote(f"{place.records};")
    log = shlex.quote(str(place.records / "runner.log"))
    return f"MQI_RUNNER={mark}; export MQI_RUNNER; exec {words} </dev/null >/dev/null 2>>{log}"


def survey_call(
    helper: PurePosixPath, places: Sequence[Place], tails: Sequence[Place] = (), *, whole: bool = False
) -> Call:
    """Look at many runs at once, and for some of them at the ends of their logs; `whole` counts their processes too."""
    lines = "whole\n" if whole else ""
    lines += "".join(f"{place.attempt} {place.part}\n" for place in places)
    lines += "".join(f"tail {place.attempt} {place.part}\n" for place in tails)
    return Call(("/bin/sh", str(helper), "survey"), lines.encode(), timeout=120.0)


def _limits(order: Order) -> tuple[str, ...]:
    return (str(order.input_dir or "-"), str(order.time_limit), str(order.kill_after), str(order.log_limit))
