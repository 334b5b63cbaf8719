"""What became of a run, as its helper on the host reports it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

_OUTPUT = re.compile(r"^output=(\d+) (\d+) (\d+)$", re.MULTILINE)
_CPU = re.compile(r"(\d+)m\s*(\d+(?:\.\d+)?)s")


class JobState(StrEnum):
    """Where one attempt's run stands on its host."""

    NONE = "none"  # nothing of it is there
    CLAIMED = "claimed"  # its records are, but nothing has passed the gate: it can be submitted again
    QUEUED = "queued"  # it lies in the queue of a scheduler, or was about to
    ENDED = "ended"  # the queue says that it is over, and no exit record is to be seen (yet)
    ABSENT = "absent"  # the queue does not know it, and no exit record is to be seen
    STARTING = "starting"
    RUNNING = "running"
    HEADLESS = "headless"  # its runner died and its command lives on: how it ends can never be known
    UNKNOWN = "unknown"  # it was started on a machine that can't be looked at from here
    LOST = "lost"  # nothing of it lives, and no exit record was written
    FINISHED = "finished"  # it has an exit record; nothing of it lives


OVER = frozenset({JobState.LOST, JobState.FINISHED})  # proven: nothing of it runs, and nothing of it ever will


@dataclass(frozen=True)
class JobStatus:
    """One look at a run. Times are the host's own wall clock, so that clocks may differ; spans are not told by it where
    they can be told otherwise, so that it may jump. Memory in bytes.

    `reason` tells how a finished run ended: `exit` by itself, `time` at its limit, `terminated` by a signal to its
    runner, what `kill` was given, or what kept it from starting.
    """

    state: JobState
    attempt: int = 0
    busy: bool = False  # not this attempt but an earlier one, `attempt`, which stands in the way
    now: float = 0.0
    clock: float = 0.0  # seconds of the host since its boot: what is waited for is counted in these
    started: float | None = None
    ran: float | None = None  # seconds that it has run, where that is known without the wall clock
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
    asked_at: float = 0.0
    sent: str = ""  # its id in the queue of a scheduler; `?` where the answer was lost
    machine: str = ""  # what the queue calls the machine that it began on
    refused: str = ""  # what the queue's program wrote when it did not take it
    word: str = ""  # what the queue calls its state
    waits_for: str = ""  # why the queue has not begun it yet
    answered: bool = True  # whether the queue said anything when it was asked
    silence: str = ""  # what its program wrote when it said nothing
    log_bytes: int = 0
    log_complete: bool = True
    log_lost: bool = False  # there was no space for it: what the run writes now is not kept
    tail: str = ""  # the end of its log, where a look at many runs was asked for it
    matched: tuple[tuple[int, int, int], ...] = ()  # of outputs asked for with it: files, empty ones, bytes

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        if self.started is None:
            return 0.0
        if self.ended is None and self.ran is not None:
            return self.ran
        return max(0.0, (self.ended if self.ended is not None else self.now) - self.started)

    def later(self, seconds: float) -> JobStatus:
        """Return what this look says so many seconds after it."""
        ran = None if self.ran is None else self.ran + seconds
        return replace(self, now=self.now + seconds, clock=self.clock + seconds, ran=ran)


def read_report(text: str) -> JobStatus:
    """Read the helper's report. Raises `ValueError` for a text that is none."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            values[name] = value.strip()
    state = JobState(values["busy"] if "busy" in values else values.get("state", ""))
    if state is JobState.CLAIMED and values.get("sent"):
        state = JobState.QUEUED
    status = _whole(values, "status")
    code = _whole(values, "code")
    memory = _whole(values, "memory")
    return JobStatus(
        state=state,
        attempt=_whole(values, "attempt") or 0,
        busy="busy" in values,
        now=float(_whole(values, "now") or 0),
        clock=float(_whole(values, "clock") or 0),
        ran=_whole(values, "ran"),
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
        asked_at=float(_whole({"at": values.get("asked", "").partition(" ")[0]}, "at") or 0),
        sent=values.get("sent", ""),
        machine=values.get("machine", ""),
        refused=values.get("refused", ""),
        log_bytes=_whole(values, "log") or 0,
        log_complete=values.get("log_cut", "0") == "0" and values.get("log_lost", "0") == "0",
        log_lost=values.get("log_lost", "0") != "0",
        matched=read_outputs(text),
    )


def read_outputs(text: str) -> tuple[tuple[int, int, int], ...]:
    """Read what the helper counted of each output: its files, the empty ones among them, and the bytes."""
    return tuple((int(found[1]), int(found[2]), int(found[3])) for found in _OUTPUT.finditer(text))


_TAIL = re.compile(r"\n==> (/.+)/log/\d+ <==\n")
_PIECE = re.compile(r" *(\d+) (/.+)/log/(\d+)\Z")


def read_survey(text: str) -> dict[tuple[str, int], JobStatus]:
    """Read the reports of many jobs, by part and attempt. Raises `ValueError` for a text that is none."""
    reports, mark, sizes = text.partition("sizes=\n")
    if not mark:
        raise ValueError("the survey has no end")
    sizes, _, ending = sizes.partition("tails=\n")
    pieces = _TAIL.split(f"\n{ending}")
    tails = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    ends: dict[str, int] = {}
    for line in sizes.splitlines():
        if found := _PIECE.match(line):
            ends[found[2]] = max(ends.get(found[2], 0), int(found[3]) + int(found[1]))
    seen = {}
    for block in f"\n{reports}".split("\njob=")[1:]:
        head, _, report = block.partition("\n")
        attempt, _, part = head.partition(" ")
        status = read_report(report)
        end = ends.get(f"{part}/.{attempt}.job", status.log_bytes)
        seen[part, int(attempt)] = replace(status, log_bytes=end, tail=tails.get(f"{part}/.{attempt}.job", ""))
    return seen


def _whole(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _cpu(text: str) -> float | None:
    """Add up what `times` prints of the children: user and system, `0m1.20s 0m0.05s`."""
    found = _CPU.findall(text)
    return round(sum(int(minutes) * 60 + float(seconds) for minutes, seconds in found), 2) if found else None
