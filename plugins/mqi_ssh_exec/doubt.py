"""What is remembered of a run over turns: since when it is in doubt, in its queue, or without a sign. Times are the host's, since its boot."""

from __future__ import annotations

from dataclasses import replace

from mqi_cli import QueueState, StageContext, Wait
from mqi_ssh_exec.job import Job
from mqi_ssh_exec.job_status import JobState, JobStatus
from mqi_ssh_exec.queue_view import ENDS

IN_DOUBT = frozenset({JobState.ENDED, JobState.ABSENT})
ABSENT_FOR = 600.0  # seconds for which a queue may not know a run before that is believed: sacct lags, squeue forgets
SETTLE_FOR = 60.0  # seconds that a record written on another machine may take to be seen (NFS keeps old listings)
LOOK_AGAIN = 5.0


def named(ctx: StageContext) -> str:
    """Return the step, with its part where it has some, as the commands of `mqi exec` take it."""
    return f"{ctx.step} --part {ctx.part}" if ctx.part else ctx.step


def since(ctx: StageContext, what: str, status: JobStatus, *, fact: str = "since") -> float:
    """Return for how many seconds this has been so, by the host's clock since its boot; remember the first time.

    What shares a `fact` begins anew when another of them was so in between, and everything when the host was restarted.
    """
    key = f"{what}:{status.attempt}"
    known = ctx.facts.get(fact) or []
    if not (isinstance(known, list) and len(known) == 2 and known[0] == key and known[1] <= status.clock):
        known = [key, status.clock]
        ctx.remember(**{fact: known})
    return status.clock - float(known[1])


def doubt(ctx: StageContext, job: Job, status: JobStatus) -> Wait | None:
    """Wait while a run's end may yet show; then write its queue's word down. None once that is done."""
    status = _as_it_was_called(ctx, status)
    begun = status.started is not None
    queue = f"the queue of {ctx.host.name}"
    silent = begun and is_silent(job, status)
    waited = since(ctx, f"{status.state} {'silent' if silent else ''}", status)  # what it may write down, it may now
    if silent:
        return Wait(
            LOOK_AGAIN * 2,
            f"{queue} says {status.word or 'nothing'} of the run, and {status.machine or status.node} does not answer: unknown "
            f"until it does (if that machine is no more: mqi exec kill {ctx.layout.key} {named(ctx)} --gone)",
        )
    if status.state is JobState.ENDED:
        if begun and waited < SETTLE_FOR:
            return Wait(LOOK_AGAIN, f"{queue} says {status.word}; the run's own record is waited for")
        plain = status.reason == ENDS[QueueState.ENDED]
        job.settle((job.end_by_log() if plain else "") or status.reason)
        return None
    if waited < ABSENT_FOR:
        return Wait(LOOK_AGAIN * 2, f"{queue} does not know the run: unknown, for up to {ABSENT_FOR / 60:.0f} min")
    job.settle("vanished")
    return None


def _as_it_was_called(ctx: StageContext, status: JobStatus) -> JobStatus:
    """Keep what a queue called the end of a run: it forgets that within minutes, and the proof may take longer."""
    if status.state is JobState.ENDED:
        called = [status.attempt, status.reason, status.word]
        if ctx.facts.get("called") != called:
            ctx.remember(called=called)
        return status
    attempt, reason, word = ctx.facts.get("called") or (0, "", "")
    return replace(status, state=JobState.ENDED, reason=reason, word=word) if attempt == status.attempt else status


def is_silent(job: Job, status: JobStatus) -> bool:
    """Whether the machine that a run began on does not answer to its queue, so that nothing said of the run is proof of its end.

    It may go on computing, whatever the queue calls the run meanwhile, and writes its end down when it comes back.
    Where a queue can't tell how a machine is, its word is taken, unless that is that the machine failed.
    """
    answers = job.node_answers(status.machine)
    if answers is None:
        return status.reason == "node" or status.state is JobState.ABSENT
    return not answers


def stalled(ctx: StageContext, status: JobStatus) -> bool:
    """Whether a run's log has not grown for its `stall_limit`. One that is not kept, for want of space, can't tell."""
    if status.asked == "stalled":
        return True
    if status.log_lost:
        return False
    limit: float = ctx.options.stall_limit
    known = ctx.facts.get("grown") or []
    if not (isinstance(known, list) and len(known) == 3 and known[0] == status.attempt and known[2] <= status.clock):
        ctx.remember(grown=[status.attempt, status.log_bytes, status.clock])
        return False
    _, size, at = known
    if status.log_bytes != size:
        if status.clock - at > limit / 10:  # not at each line: what is remembered is written to the disk
            ctx.remember(grown=[status.attempt, status.log_bytes, status.clock])
        return False
    return bool(status.clock - at > limit)
