"""What `mqi exec logs` prints: a run's last lines, and what is added until it is over, also while the line is down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from mqi_cli import CaseError, HostUnreachable, Operator, complain, say
from mqi_ssh_exec.job import Job, LogPiece
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus
from mqi_ssh_exec.log_lines import LineReader
from mqi_ssh_exec.watching import NOT_BEGUN, look_at

_CHUNK = 256 * 1024  # bytes of a log that are fetched at once
_TAIL = 1024 * 1024  # bytes in which the last lines are looked for
_PAUSE = 1.0  # seconds between two looks
_PAUSE_MOST = 15.0  # the same while the host does not answer


def print_log(
    operator: Operator,
    case: str,
    *,
    step: str,
    part: str,
    attempt: int | None,
    lines: int,
    follow: bool,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Print the last lines of a run's log (all of them for 0), and with `follow` what is added until the run is over."""
    ctx, job = look_at(operator, case, step=step, part=part, attempt=attempt)
    status = job.status()
    if status.state in NOT_BEGUN:
        raise CaseError(
            f"the run of step {ctx.step} has not begun: there is no log yet", hint=f"mqi case why {ctx.layout.key}"
        )
    log = LogView(job)
    start = max(0, status.log_bytes - _TAIL) if lines else 0
    shown = log.pieces(start, status.log_bytes)
    if lines:
        kept = deque(shown, maxlen=lines)
        if not follow:
            kept.extend(log.reader.end())
        shown = iter(kept)
    for text in shown:
        say(text)
    if follow:
        log.follow(status, pause)
    elif not lines:
        log.finish()


class LogView:
    """One run's log, read on from where it stands."""

    def __init__(self, job: Job) -> None:
        self.reader = LineReader()
        self._job = job
        self._position = 0

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """Yield the whole lines from byte `start` to `end`; where bytes were left out, how many."""
        self._position = start
        while self._position < end:
            piece: LogPiece = self._job.log(self._position, size=min(_CHUNK, end - self._position))
            if not piece.data:
                break
            if piece.start > self._position:
                yield from self.reader.end()
                yield f"[… {piece.start - self._position} bytes left out …]"
            self._position = piece.start + len(piece.data)
            yield from self.reader.feed(piece.data)
        self._position = max(self._position, end)

    def finish(self) -> None:
        """Print the last line, which has no end."""
        for text in self.reader.end():
            say(text)

    def follow(self, status: JobStatus, pause: Callable[[float], None]) -> None:
        """Print what is added until the run is over. A host that does not answer is asked again, for as long as it takes."""
        told, wait = "", _PAUSE
        while True:
            try:
                for text in self.pieces(self._position, status.log_bytes):
                    say(text)
                if status.state in OVER:
                    break
                note, wait = _queued(status), _PAUSE
                pause(wait)
                status = self._job.status(wait=1)
            except HostUnreachable as error:
                note, wait = f"{error.what}: the log is read on from here once it answers", min(2 * wait, _PAUSE_MOST)
                pause(wait)
            if note and note != told:
                complain(note)
            told = note
        self.finish()


def _queued(status: JobStatus) -> str:
    """Say what a run waits for that has not begun."""
    if status.state is not JobState.QUEUED:
        return ""
    return f"it waits in the queue{f': {status.waits_for}' if status.waits_for not in ('', 'None') else ''}"
