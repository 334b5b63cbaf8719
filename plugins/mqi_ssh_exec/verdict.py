"""Judges how a run ended: done only by exit code 0, every declared output there and not empty, and its log as wanted."""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence
from typing import Any

from mqi_cli import GiveUp, RetryLater
from mqi_ssh_exec.job import Outputs
from mqi_ssh_exec.job_status import JobStatus
from mqi_ssh_exec.options import RunOptions

_AGAIN = {
    "terminated": "its run was ended by a signal: its host shut down, or somebody ended it",
    "lost": "its run lost its runner, and what was left of it was ended",
    "superseded": "a later attempt has taken its place",
    "cancelled": "its run was cancelled",
    "gone": "an operator vouched for it that the machine it ran on is gone",
    "no_work": "its work directory could not be made",
    "not_empty": "its work directory was not empty",
    "no_pipe": "the host's file system could not make a pipe in base_dir",
    "node": "the queue says that the machine it ran on failed",
    "preempted": "the queue put something more urgent in its place",
    "requeued": "the queue was about to begin it anew, which only a new attempt may",
    "ended": "the queue says that it is over, and it left no record of its end",
    "vanished": "its queue has known nothing of it for a while, and it left no record of its end",
}
_HELD = {
    "timeout": "its queue ended it at the queue's own time limit; give the step a `time_limit`, or another partition",
    "memory": "its queue ended it because it took more memory than the step's `memory`",
    "dequeued": "somebody took it out of its host's queue",
}


class ForbiddenLine(GiveUp):
    """The log has a line that `log_must_not_contain` names. `text` is the operator's own, and no name."""

    def __init__(self, text: str, *, hint: str) -> None:
        super().__init__(f"exit code 0, but its log contains `{text}` (log_must_not_contain)", hint=hint)
        self.text = text


def span(seconds: float) -> str:
    """Return a duration in words of at most two parts: `45 s`, `12 min 5 s`, `2 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, names = (whole // 60, whole % 60, ("min", "s")) if whole < 3600 else (
        whole // 3600, whole % 3600 // 60, ("h", "min"),
    )  # fmt: skip
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")


def judge(status: JobStatus, options: RunOptions, *, key: str, step: str) -> None:
    """Return for a run that ended by itself with exit code 0. Raises `GiveUp` or `RetryLater` for any other end."""
    look = f"mqi exec logs {key} {step} shows its last lines; mend it, then: mqi case retry {key}"
    took = span(status.seconds)
    if status.reason in _AGAIN:
        raise RetryLater(_AGAIN[status.reason], hint=look)
    if status.reason == "no_input":
        raise GiveUp(
            "the case's input is not on the host", hint=f"a step upload must come before; then: mqi case rerun {key}"
        )
    if status.reason == "time":
        limit = f" of {span(options.time_limit)}" if options.time_limit else ""
        raise GiveUp(f"it ran longer than its time limit{limit} and was ended", hint=look)
    if status.reason == "operator":
        raise GiveUp(f"an operator ended its run after {took}", hint=f"to run it again: mqi case retry {key}")
    if status.reason in _HELD:
        raise GiveUp(_HELD[status.reason], hint=f"{look}; then: mqi case retry {key}")
    if status.reason == "queuetime":
        limit = f" of {span(options.queue_limit)}" if options.queue_limit else ""
        raise GiveUp(f"it waited in its host's queue longer than its queue_limit{limit} and was taken out")
    if status.reason == "stalled":
        limit = f" for {span(options.stall_limit)}" if options.stall_limit else ""
        raise GiveUp(f"its log did not grow{limit} (stall_limit), and it was ended", hint=look)
    if status.reason != "exit":
        raise RetryLater("its run ended in a way that this version does not know", hint=look)
    if status.signal is not None:
        raise GiveUp(f"{_signal(status.signal)} ended it after {took}", hint=look)
    if status.code is None:
        raise GiveUp(f"its exit code is unknown; it ended after {took}", hint=look)
    if status.code != 0:
        raise GiveUp(f"exit code {status.code}{_meaning(status.code)} after {took}", hint=look)


def _signal(number: int) -> str:
    try:
        name = signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"signal {number} ({name}" + (", out of memory perhaps)" if name == "SIGKILL" else ")")


def _meaning(code: int) -> str:
    if code == 127:
        return " (a program was not found)"
    if code == 126:
        return " (a program could not be executed)"
    return f" ({_signal(code - 128)})" if 128 < code < 193 else ""


def examine(
    status: JobStatus, options: RunOptions, found: Sequence[bool], outputs: Outputs | None, *, key: str, step: str
) -> dict[str, Any]:
    """Return the facts of a run that went well. Raises `GiveUp` for one whose log or outputs are not as declared.

    `found` says of each wanted and then each unwanted text whether the log has it.
    """
    look = f"mqi exec logs {key} {step} shows its last lines; mend it, then: mqi case retry {key}"
    _examine_log(status, options, found, look)
    matched = outputs.matched if outputs else ()
    for pattern, output in zip(options.outputs, matched, strict=bool(outputs)):
        if output.files == 0:
            raise GiveUp(f"exit code 0, but no file is there for the output `{pattern}`", hint=look)
        if output.empty:
            raise GiveUp(f"exit code 0, but {output.empty} of {output.files} outputs `{pattern}` are empty", hint=look)
    facts: dict[str, Any] = {"exit_code": 0, "seconds": status.seconds, "log_bytes": status.log_bytes}
    if outputs:
        facts |= {"outputs": sum(each.files for each in matched), "output_bytes": sum(each.size for each in matched)}
    if status.cpu_seconds is not None:
        facts["cpu_seconds"] = status.cpu_seconds
    if status.peak_memory is not None:
        facts["peak_memory_bytes"] = status.peak_memory
    if status.left:
        facts["left_behind"] = status.left
    return facts


def _examine_log(status: JobStatus, options: RunOptions, found: Sequence[bool], look: str) -> None:
    wanted = len(options.log_must_contain)
    if not all(found[:wanted]):
        cut = "" if status.log_complete else " in what is kept of it (log_limit)"
        raise GiveUp(f"exit code 0, but its log does not contain what log_must_contain asks for{cut}", hint=look)
    for text, is_there in zip(options.log_must_not_contain, found[wanted:], strict=True):
        if is_there:
            raise ForbiddenLine(text, hint=look)
    if options.log_must_not_contain and not status.log_complete:
        raise GiveUp(
            "exit code 0, but parts of its log were left out, so that log_must_not_contain can't be judged",
            hint="set log_limit above the size of its output, or let it write less",
        )
