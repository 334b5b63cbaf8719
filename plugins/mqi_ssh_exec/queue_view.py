"""Puts together what a run's records and its queue say of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mqi_cli import Queued, QueueState
from mqi_ssh_exec.job_status import JobState, JobStatus

# A run that ended so has its reason in the queue: its own records only know the signal.
ENDS = {
    QueueState.ENDED: "ended",
    QueueState.CANCELLED: "dequeued",
    QueueState.TIMEOUT: "timeout",
    QueueState.MEMORY: "memory",
    QueueState.NODE: "node",
    QueueState.PREEMPTED: "preempted",
    QueueState.REQUEUED: "requeued",
}
LIVE = frozenset({QueueState.PENDING, QueueState.RUNNING})
LISTED = LIVE | {QueueState.REQUEUED}  # it stands in the queue, and does so until it is taken out or begins


@dataclass(frozen=True)
class QueueLook:
    """What a queue said at one look. `known` None: it gave no answer. `past` None: it keeps no records of the past."""

    known: Mapping[str, Queued] | None
    past: Mapping[str, Queued] | None = None
    why: str = ""  # what its program wrote instead of an answer

    def find(self, tag: str) -> Queued | None:
        """Return a run: as the queue has it now, else how it ended by the records of the past.

        What those call running and the queue does not know was lost by the queue itself: it is absent.
        """
        if self.known is not None and tag in self.known:
            return self.known[tag]
        past = (self.past or {}).get(tag)
        return past if past is not None and (self.known is None or past.state not in LIVE) else None


def asks_queue(status: JobStatus) -> bool:
    """Whether the records leave something open that the queue may know."""
    if not status.sent:
        return False
    if status.state is not JobState.FINISHED:
        return status.state in (JobState.QUEUED, JobState.UNKNOWN, JobState.LOST)
    by_signal = status.signal is not None or (status.code is not None and status.code > 128)
    # a queue may have ended the command alone: for the memory it took, or at a limit
    return status.reason == "terminated" or (status.reason == "exit" and by_signal)


def with_queue(status: JobStatus, look: QueueLook, tag: str) -> JobStatus:
    """Return a run's status with what its queue knows. Proof from its records is never overruled."""
    found = look.find(tag)
    if status.state in (JobState.FINISHED, JobState.LOST):
        if found is None and look.known is None:
            return replace(
                status, state=JobState.RUNNING, answered=False, silence=look.why
            )  # who ended it is to be seen
        if found is None or found.state is QueueState.ENDED:
            return status
        if found.state is QueueState.PENDING:  # put back: a second start ends at the gate, and is not waited for
            return replace(status, reason=ENDS[QueueState.REQUEUED], word=found.word)
        if found.state in LIVE:  # the queue is about to say why it ended it
            return replace(status, state=JobState.RUNNING, word=found.word)
        return replace(status, reason=ENDS[found.state], word=found.word)
    if found is None:
        unanswered = replace(status, answered=False, silence=look.why)
        return unanswered if look.known is None else replace(status, state=JobState.ABSENT)
    status = replace(status, word=found.word, machine=status.machine or found.node, sent=found.id)
    if found.state is QueueState.PENDING and status.started is not None:  # put back: it will not begin a second time
        return replace(status, state=JobState.ENDED, reason=ENDS[QueueState.REQUEUED])
    if found.state is QueueState.PENDING:
        return replace(status, state=JobState.QUEUED, waits_for=found.reason)
    if found.state is QueueState.RUNNING:
        return replace(status, state=JobState.RUNNING if status.state is JobState.UNKNOWN else JobState.STARTING)
    return replace(status, state=JobState.ENDED, reason=ENDS[found.state])
