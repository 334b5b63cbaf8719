"""What `mqi exec` does: show a run, end it. It looks at the host; only the end of a whole step changes its case."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mqi_cli import CaseError, CaseState, Column, GiveUp, Operator, StageContext, UsageError, say, show
from mqi_ssh_exec.doubt import is_silent
from mqi_ssh_exec.job import FORCE_AFTER, Job, look_at_all
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus
from mqi_ssh_exec.options import RunOptions
from mqi_ssh_exec.plan import parts_of
from mqi_ssh_exec.progress import read_progress
from mqi_ssh_exec.run import grace_of, job_of
from mqi_ssh_exec.verdict import span

_KILL_PATIENCE = 30  # seconds after the end by force until we say what survives it
_QUEUE_PATIENCE = 60  # the same for a queue, which itself waits for 30 (`KillWait`)
_OUT_OF_SIGHT = frozenset({JobState.UNKNOWN, JobState.ENDED, JobState.ABSENT})
NOT_BEGUN = frozenset({JobState.NONE, JobState.CLAIMED})
_COLUMNS = (
    Column("step", "step"),
    Column("attempt", "attempt", "right"),
    Column("host", "host"),
    Column("state", "state"),
    Column("took", "for"),
    Column("progress", "done", "right"),
    Column("node", "on"),
    Column("pid", "pid", "right"),
    Column("processes", "processes", "right"),
    Column("exit_code", "exit", "right"),
    Column("log_bytes", "log", "right"),
)


def look_at(operator: Operator, case: str, *, step: str, part: str, attempt: int | None) -> tuple[StageContext, Job]:
    """Return the context and the run of a case's step or part; the newest attempt's, unless another is named."""
    _, ctx = operator.stage_context("run", case, step=step, part=part)
    if attempt is not None and not 1 <= attempt <= ctx.attempt:
        raise UsageError(f"step {ctx.step} has had {ctx.attempt} attempts, and no attempt {attempt}")
    return ctx, job_of(ctx, attempt=attempt)


def show_status(
    operator: Operator, case: str, *, step: str, part: str, attempt: int | None, json: bool, format: str
) -> None:
    """Print how a run stands on its host; of a step that fans out, each part's."""
    names = [part] if part else operator.part_names("run", case, step=step)
    found = [look_at(operator, case, step=step, part=name, attempt=attempt) for name in names]
    ctx = found[0][0]
    statuses = look_at_all([job for _, job in found], tail=bool(ctx.options.progress))
    texts = _texts(ctx)
    rows = [status_row(ctx, job, status, texts) for (ctx, job), status in zip(found, statuses, strict=True)]
    parts = (Column("part", "part", "right"), Column("stands_for", "stands for"))
    columns = (*_COLUMNS[:1], *(parts if any(row["part"] for row in rows) else ()), *_COLUMNS[1:])
    show(rows, columns, json=json, format=format)


def status_row(ctx: StageContext, job: Job, status: JobStatus, texts: Sequence[str]) -> dict[str, Any]:
    """Return a run's state as the command prints it. Times are the host's; `texts` is what the step's parts stand for."""
    return {
        "step": ctx.step,
        "part": ctx.part,
        "stands_for": texts[int(ctx.part) - 1] if ctx.part and int(ctx.part) <= len(texts) else "",
        "attempt": job.place.attempt,
        "host": ctx.host.name,
        "state": _say_state(status),
        "took": span(status.seconds) if status.started else "",
        "progress": _far(ctx, status),
        "node": status.node,
        "pid": status.pid if status.state not in OVER else None,
        "processes": status.processes if status.state not in OVER else None,
        "exit_code": status.code,
        "reason": status.reason,
        "queue_id": status.sent,
        "started": status.started,
        "ended": status.ended,
        "seconds": status.seconds,
        "cpu_seconds": status.cpu_seconds,
        "peak_memory_bytes": status.peak_memory,
        "log_bytes": status.log_bytes,
        "log_complete": status.log_complete,
    }


def _far(ctx: StageContext, status: JobStatus) -> str:
    """Return how far a run is, where its log tells."""
    options: RunOptions = ctx.options
    found = read_progress(options.progress, status.tail) if options.progress else None
    return f"{found.done:g} of {found.total:g}" if found else ""


def _texts(ctx: StageContext) -> list[str]:
    """Return the texts that a step's parts stand for: shown on the operator's terminal only."""
    try:
        return [each.text for each in parts_of(ctx)] if ctx.part else []
    except GiveUp:  # the list went with the case's directory
        return []


def _said(ctx: StageContext) -> str:
    return f"{ctx.step}, part {ctx.part}," if ctx.part else ctx.step


def _say_state(status: JobStatus) -> str:
    if status.asked and status.state is JobState.RUNNING:
        return f"ending ({status.asked})"
    if status.state is JobState.QUEUED and status.waits_for not in ("", "None"):
        return f"queued ({status.waits_for})"
    if status.state is JobState.FINISHED:
        return "finished" if status.reason == "exit" else f"finished ({status.reason})"
    return {JobState.NONE: "not begun", JobState.CLAIMED: "not begun"}.get(status.state, str(status.state))


def kill(
    operator: Operator,
    case: str,
    *,
    step: str,
    part: str,
    gone: bool,
    confirmed: Callable[[str], bool],
    elapsed: Callable[[], float],
) -> None:
    """End what runs of a step, or of one part of it, and say what survived. Raises `CaseError` when something did.

    Of a whole step that the case stands at, nothing begins any more, and the case is held. `gone` takes the operator's
    word for it that a run on a machine out of sight can't live any more.
    """
    names = [part] if part else operator.part_names("run", case, step=step)
    ctx, _ = look_at(operator, case, step=step, part=names[0], attempt=None)
    view = operator.find(case)
    goes_on = view.step == ctx.step and view.state in (CaseState.READY, CaseState.RUNNING, CaseState.WAITING)
    if goes_on and not part and not gone:
        if confirmed(f"End what runs of step {ctx.step} on {ctx.host.name}, and hold its case?"):
            _end_step(operator, case, ctx.step, elapsed)
        return
    found = False
    for name in names:
        ctx, newest = look_at(operator, case, step=step, part=name, attempt=None)
        living = _living(newest)
        doubted = _in_doubt(operator, case, newest, ctx)
        over = True
        for job, status in living:
            if status.state in _OUT_OF_SIGHT and gone:
                over = _declare_gone(ctx, job, status, confirmed) and over
                continue
            took = f", running for {span(status.seconds)}" if status.started else ""
            what = f"step {_said(ctx)} on {ctx.host.name} (attempt {job.place.attempt}{took})"
            if confirmed(f"End the run of {what}?"):
                _end(ctx, job, elapsed)
            else:
                over = False
        if doubted and over:
            _end_doubt(operator, case, ctx, newest, doubted, elapsed)
        found = found or bool(living or doubted)
    if not found:
        said = _said(ctx) if part else ctx.step
        say(f"nothing of step {said} runs on {ctx.host.name}")


def _in_doubt(operator: Operator, case: str, newest: Job, ctx: StageContext) -> list[int]:
    """Return the attempts of a part in doubt that were looked at here: not one that has begun since."""
    return [each for each in operator.in_doubt(case, ctx.step, ctx.part) if each <= newest.place.attempt]


def _end_doubt(
    operator: Operator, case: str, ctx: StageContext, newest: Job, attempts: Sequence[int], elapsed: Callable[[], float]
) -> None:
    """Take note that nothing of a part lives, once those of its attempts that have not begun never will."""
    for attempt in attempts:
        job = newest.of_attempt(attempt)
        if job.status().state in NOT_BEGUN:
            _end(ctx, job, elapsed)
    operator.ended(case, ctx.step, ctx.part, attempts=attempts)
    say(f"nothing of step {_said(ctx) if ctx.part else ctx.step} lives any more: whoever waits for that goes on")


def _end_step(operator: Operator, case: str, step: str, elapsed: Callable[[], float]) -> None:
    """End all runs of the step that a case stands at. First the conductor is told: no part may begin while others end."""
    begun = operator.end_step(case, step)
    problems: list[CaseError] = []
    found = False
    for name in operator.part_names("run", case, step=step):
        ctx, newest = look_at(operator, case, step=step, part=name, attempt=None)
        jobs = [job for job, _ in _living(newest)]
        if name in begun and newest not in jobs:
            jobs.append(newest)  # a worker may be about to start it: now it never will
        found = found or bool(jobs)
        try:
            for job in jobs:
                _end(ctx, job, elapsed)
        except CaseError as problem:  # the other parts are to be ended all the same
            problems.append(problem)
            continue
        if name in begun:
            operator.ended(case, step, name)
        elif doubted := _in_doubt(operator, case, newest, ctx):
            _end_doubt(operator, case, ctx, newest, doubted, elapsed)
    if not found:
        say(f"nothing of step {step} runs on {ctx.host.name}")
    if problems:
        raise problems[0]
    state = operator.find(case).state  # it may have been cancelled, or gone on to its next step just before
    say(f"the case is {state}" + ("; it goes on by: mqi case retry" if state is CaseState.HELD else ""))


def _living(newest: Job) -> list[tuple[Job, JobStatus]]:
    """Return the runs of all attempts that may live, the newest first."""
    living = []
    for attempt in range(newest.place.attempt, 0, -1):
        job = newest.of_attempt(attempt)
        status = job.status()
        if status.state not in OVER and status.state not in NOT_BEGUN:
            living.append((job, status))
    return living


def _declare_gone(ctx: StageContext, job: Job, status: JobStatus, confirmed: Callable[[str], bool]) -> bool:
    question = f"Nothing checks this: if {status.node} still runs attempt {job.place.attempt}, it may run twice. Go on?"
    if not confirmed(question):
        return False
    job.kill(grace=grace_of(ctx), reason="gone", wait=0)
    say(f"attempt {job.place.attempt} counts as lost; a new one may begin")
    return True


def _end(
    ctx: StageContext, job: Job, elapsed: Callable[[], float], pause: Callable[[float], None] = time.sleep
) -> None:
    grace = grace_of(ctx)
    begun = elapsed()
    while True:
        status = job.kill(grace=grace, reason="operator", wait=2)
        if status.state is JobState.ENDED and not (status.started is not None and is_silent(job, status)):
            status = job.settle("operator")  # its queue has ended it, and its runner had no time to write that down
        if status.state in OVER:
            of = f" of part {ctx.part}" if ctx.part else ""
            say(f"ended: nothing of attempt {job.place.attempt}{of} runs on {ctx.host.name}")
            return
        if status.state in _OUT_OF_SIGHT:
            raise CaseError(
                f"the run was started on {status.node or 'another machine'} and can't be ended from {ctx.host.name}",
                hint=f"log in there and end process {status.pid}; if that machine is no more: --gone",
            )
        if status.sent:
            pause(1.0)  # a queue answers at once, and takes its time
        if status.sent and elapsed() - begun > grace + FORCE_AFTER + _QUEUE_PATIENCE:
            raise CaseError(
                f"the queue of {ctx.host.name} was told to end the run by force, and still has it ({status.word})",
                hint=f"scancel {status.sent} there; what its machine does not end hangs in the kernel",
            )
        if not status.sent and elapsed() - begun > grace + _KILL_PATIENCE:
            raise CaseError(
                f"{status.processes} processes of the run survive on {ctx.host.name}, though they were ended by force",
                hint="they hang in the kernel (a dead file system, a sick GPU driver) or belong to another user",
            )
