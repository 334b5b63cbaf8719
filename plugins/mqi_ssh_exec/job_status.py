"""What became of a run, as its helper on the host reports it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_CPU = re.compile(r"(\d+)m\s*(\d+(?:\.\d+)?)s")


class JobState(StrEnum):
    """Where one attempt's run stands on its host."""

    NONE = "none"  # nothing of it is there
    CLAIMED = "claimed"  # its records are, but nothing has passed the gate: it can be submitted again
    STARTING = "starting"
    RUNNING = "running"
    HEADLESS = "headless"  # its runner died and its command lives on: how it ends can never be known
    UNKNOWN = "unknown"  # it was started on a machine that can't be looked at from here
    LOST = "lost"  # nothing of it lives, and no exit record was written
    FINISHED = "finished"  # it has an exit record; nothing of it lives


OVER = frozenset({JobState.LOST, JobState.FINISHED})  # proven: nothing of it runs, and nothing of it ever will


@dataclass(frozen=True)
class JobStatus:
    """One look at a run. Times are the host's own wall clock, so that clocks may differ. Memory in bytes.

    `reason` tells how a finished run ended: `exit` by itself, `time` at its limit, `terminated` by a signal to its
    runner, what `kill` was given, or what kept it from starting.
    """

    state: JobState
    attempt: int = 0
    busy: bool = False  # not this attempt but an earlier one, `attempt`, which stands in the way
    now: float = 0.0
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    node: str = ""
    processes: int = 0
    reason: str = ""
    code: int | None = None
    signal: int | None = None
    left: int = 0
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    asked: str = ""  # why it was asked to end, while it has not yet
    log_bytes: int = 0
    log_complete: bool = True

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        if self.started is None:
            return 0.0
        return max(0.0, (self.ended if self.ended is not None else self.now) - self.started)


def read_report(text: str) -> JobStatus:
    """Read the helper's report. Raises `ValueError` for a text that is none."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            values[name] = value.strip()
    state = JobState(values["busy"] if "busy" in values else values.get("state", ""))
    status = _whole(values, "status")
    code = _whole(values, "code")
    memory = _whole(values, "memory")
    return JobStatus(
        state=state,
        attempt=_whole(values, "attempt") or 0,
        busy="busy" in values,
        now=float(_whole(values, "now") or 0),
        started=_whole(values, "started"),
        ended=_whole(values, "ended"),
        pid=_whole(values, "pid"),
        node=values.get("node", ""),
        processes=_whole(values, "processes") or 0,
        reason=values.get("reason", ""),
        code=code,
        # The shell of the command writes the code; where it could not, the runner saw by which signal it went
        signal=status - 128 if code is None and status is not None and 128 < status < 193 else None,
        left=_whole(values, "left") or 0,
        cpu_seconds=_cpu(values.get("cpu", "")),
        peak_memory=memory * 1024 if memory is not None else None,
        asked=values.get("asked", "").partition(" ")[2],
        log_bytes=_whole(values, "log") or 0,
        log_complete=values.get("log_cut", "0") == "0" and values.get("log_lost", "0") == "0",
    )


def _whole(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _cpu(text: str) -> float | None:
    """Add up what `times` prints of the children: user and system, `0m1.20s 0m0.05s`."""
    found = _CPU.findall(text)
    return round(sum(int(minutes) * 60 + float(seconds) for minutes, seconds in found), 2) if found else None
