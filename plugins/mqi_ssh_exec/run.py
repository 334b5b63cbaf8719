"""Stage `run`: start a command on the host exactly once, look after it, and judge its end.

Whatever happens to connections and workers, the run goes on by itself; each turn asks its records on the host where
it stands. An attempt ends here only once nothing of its run lives any more: what is not proven is waited for.
"""

from __future__ import annotations

import hashlib
import itertools
import math

from mqi_cli import (
    CaseRef,
    Done,
    GiveUp,
    HostFault,
    Refusal,
    Resources,
    RetryLater,
    StageContext,
    Wait,
    seen_attempts,
)
from mqi_ssh_exec.asking import HelperFault
from mqi_ssh_exec.command import PART, STEP, fill, script, steps_named, uses, uses_part
from mqi_ssh_exec.doubt import IN_DOUBT, LOOK_AGAIN, SETTLE_FOR, doubt, named, since, stalled
from mqi_ssh_exec.helper_calls import Order, Place
from mqi_ssh_exec.job import Job, Output, Outputs
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus
from mqi_ssh_exec.last_words import last_words, without_names
from mqi_ssh_exec.options import RunOptions, SshExecSection
from mqi_ssh_exec.plan import as_argument, changed, part_of
from mqi_ssh_exec.progress import read_progress
from mqi_ssh_exec.verdict import ForbiddenLine, examine, judge, span
from mqi_ssh_exec.work import work_for

LOOK_TWICE = 1  # seconds between two looks at the outputs of a run
LOOK_TWICE_FAR = 4  # the same where another machine wrote them: an NFS client looks again after 3 s (`acregmin`)
BRIEF = 10.0  # seconds that a run may take for which a second look would be a large share of it
AT_ONCE = 1  # seconds that a submission waits for the end: a tiny run is done in one turn
QUEUED_PAUSE = 5.0
FAULT_PAUSE = 60.0  # seconds until a host that answers oddly about a run is asked again
OVERDUE = 60.0  # seconds after which a run that did not end itself at its limit is ended from here
TURN_COST = 0.1  # seconds of pause for each run that this process looks after: turns cost more than looks
REQUEUED = "requeued"
_GONE = "lost"  # why a run without its runner is ended
_NOTHING_STARTED = frozenset({"write", "proc"})  # a submission that fails so has started nothing


def job_of(ctx: StageContext, *, attempt: int | None = None) -> Job:
    """Return the run of this attempt, or another, of the context's part."""
    part = ctx.layout.part(ctx.step, ctx.part)
    # The directory's hash stands for the part and the installation: neither may be told in a queue that all users see.
    name = f"mqi-{ctx.layout.key}-{ctx.step}-{hashlib.sha256(str(part).encode()).hexdigest()[:8]}"
    return Job(ctx.host, Place(part, attempt or ctx.attempt), ctx.scheduler, name)


def grace_of(ctx: StageContext) -> int:
    """Return how long a run may take to end when it is asked to, in whole seconds."""
    options: RunOptions = ctx.options
    section: SshExecSection = ctx.config
    return math.ceil(section.kill_after if options.kill_after is None else options.kill_after)


def run(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Bring the run one turn on."""
    submitted = ctx.facts.get("submitted") == ctx.attempt
    try:
        job = job_of(ctx)
        status = JobStatus(JobState.NONE)
        if submitted:
            status = job.status(interval=lambda seen: pause_of(ctx, seen), tail=bool(ctx.options.progress))
        if status.state in (JobState.NONE, JobState.CLAIMED):
            order = make_order(ctx)
            if not submitted:
                ctx.remember(submitted=ctx.attempt, of=seen_attempts(ctx.earlier, _runs_before(ctx)))
            options: RunOptions = ctx.options
            status = job.submit(order, wait=AT_ONCE, outputs=options.outputs)
            if status.refused:
                return _refused(ctx, status)
        return _go_on(case, ctx, job, status)
    except HostFault as fault:
        begun = ctx.facts.get("submitted") == ctx.attempt
        refused = isinstance(fault, HelperFault) and fault.kind in _NOTHING_STARTED
        if not begun or (refused and not submitted):
            raise
        # A failed attempt would free its GPU, and its run may live: ask again instead.
        return Wait(FAULT_PAUSE, fault.message)


def _runs_before(ctx: StageContext) -> list[str]:
    """Return the runs before this one: of them it notes which attempts it works on, for later ones are not in its results."""
    before = itertools.takewhile(lambda step: step.name != ctx.step, ctx.workflow.steps)
    return [step.name for step in before if step.stage.job]


def _go_on(case: CaseRef, ctx: StageContext, job: Job, status: JobStatus) -> Done | Wait:
    if status.busy:
        return _wait_for_earlier(ctx, job, status)
    if status.reason == REQUEUED and status.state in OVER:
        job.kill(grace=grace_of(ctx), reason=REQUEUED, wait=0)  # nothing of it lives: this takes it out of the queue
    if status.state is JobState.FINISHED:
        return _finish(case, ctx, job, status)
    if status.state is JobState.LOST and status.reason:
        return _finish(case, ctx, job, job.settle(status.reason))
    if status.state is JobState.LOST:
        raise RetryLater(
            "its run vanished without a trace of its end: the host was restarted, or somebody ended all of it",
            hint=f"mqi exec logs {ctx.layout.key} {named(ctx)}",
        )
    if not status.answered:
        said = f": {status.silence}" if status.silence else ""
        return Wait(FAULT_PAUSE, f"the queue of {ctx.host.name} ({ctx.scheduler.name}) does not answer{said}")
    if status.state in IN_DOUBT:
        return doubt(ctx, job, status) or Wait(0, "its queue's word is written down")
    if status.state is JobState.QUEUED:
        return _wait_in_queue(ctx, job, status)
    if status.state is JobState.UNKNOWN:
        return Wait(FAULT_PAUSE, _elsewhere("the run", ctx, status))
    if status.state is JobState.HEADLESS:
        after = job.kill(grace=grace_of(ctx), reason=_GONE, wait=2)
        note = f"its runner died; {_processes(after.processes)} of the run on {ctx.host.name} are ended first"
        return Wait(2, note)
    return _look_after(ctx, job, status)


def pause_of(ctx: StageContext, status: JobStatus) -> float:
    """Return how often a run is looked at: a young one more often, so that two seconds don't take two hours' interval."""
    options: RunOptions = ctx.options
    section: SshExecSection = ctx.config
    return min(section.poll if options.poll is None else options.poll, max(1.0, status.seconds / 4))


def _refused(ctx: StageContext, status: JobStatus) -> Wait:
    """Hold a run that its queue will never take; ask again later for any other."""
    said = " ".join(status.refused.split())[:200]
    refusal = ctx.scheduler.refusal(status.refused)
    if refusal is Refusal.NEVER:
        raise GiveUp(
            f"{ctx.scheduler.name} refuses it: {said}", hint=f"mqi case retry {ctx.layout.key}, once that is mended"
        )
    return Wait(FAULT_PAUSE, f"{ctx.scheduler.name} did not take it yet: {said}")


def _wait_in_queue(ctx: StageContext, job: Job, status: JobStatus) -> Wait:
    options: RunOptions = ctx.options
    waited = since(ctx, "queued", status, fact="queued_since")
    if status.asked or (options.queue_limit and waited > options.queue_limit):
        status = job.kill(grace=grace_of(ctx), reason="queuetime", wait=2)
        return Wait(1, f"it is taken out of the queue of {ctx.host.name}")
    why = f": {status.waits_for}" if status.waits_for not in ("", "None") else ""
    pause = max(QUEUED_PAUSE, pause_of(ctx, status)) if waited > QUEUED_PAUSE else 1.0
    return Wait(pause, f"in the queue of {ctx.host.name} for {span(waited)}{why}")


def _look_after(ctx: StageContext, job: Job, status: JobStatus) -> Wait:
    options: RunOptions = ctx.options
    if options.time_limit and status.seconds > options.time_limit + grace_of(ctx) + OVERDUE:
        status = job.kill(grace=grace_of(ctx), reason="time", wait=2)
    elif options.stall_limit and stalled(ctx, status):
        status = job.kill(grace=grace_of(ctx), reason="stalled", wait=2)
    if options.progress and (found := read_progress(options.progress, status.tail)):
        ctx.progress(found.done, found.total, "")
    pause = max(pause_of(ctx, status), len(job.lookout) * TURN_COST)
    if status.asked:
        note = f"asked to end: {_processes(status.processes)} left on {ctx.host.name}"
    else:
        note = f"running for {span(status.seconds)} on {ctx.host.name}"
        if status.log_lost:
            note += "; what it writes is not kept: there was no space for its log"
    return Wait(pause, note)


def _wait_for_earlier(ctx: StageContext, job: Job, status: JobStatus) -> Wait:
    """End the run of an earlier attempt: its events change nothing any more, and this one may not begin beside it."""
    earlier = job.of_attempt(status.attempt)
    if status.state is JobState.UNKNOWN:
        status = earlier.status()
    if status.state in IN_DOUBT:
        return doubt(ctx, earlier, status) or Wait(0, "its queue's word is written down")
    if status.state is JobState.UNKNOWN:
        return Wait(FAULT_PAUSE, _elsewhere(f"the run of attempt {status.attempt}", ctx, status))
    earlier.kill(grace=grace_of(ctx), reason="superseded", wait=2)
    return Wait(2, f"the run of attempt {status.attempt} still lives on {ctx.host.name} and is ended first")


def _elsewhere(what: str, ctx: StageContext, status: JobStatus) -> str:
    node = status.node or "another machine"
    return (
        f"{what} was started on {node}, which {ctx.host.name} is not now: how it is can only be seen from there "
        f"(if that machine is no more: mqi exec kill {ctx.layout.key} {named(ctx)} --gone)"
    )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _finish(case: CaseRef, ctx: StageContext, job: Job, status: JobStatus) -> Done | Wait:
    try:
        return _examine(ctx, job, status)
    except ForbiddenLine as problem:
        number, line = job.line_with(problem.text)
        if number:
            problem.detail = f"line {number}: {without_names(line, case.name)}"
        raise
    except (GiveUp, RetryLater) as problem:
        problem.detail = last_words(job, status, case.name)
        raise


def _examine(ctx: StageContext, job: Job, status: JobStatus) -> Done | Wait:
    options: RunOptions = ctx.options
    judge(status, options, key=ctx.layout.key, step=named(ctx))
    found = job.search([*options.log_must_contain, *options.log_must_not_contain]) if _asks_for_log(options) else []
    pause = _second_look(status)
    if options.outputs and len(status.matched) == len(options.outputs) and not pause:
        outputs: Outputs | None = Outputs(tuple(Output(*each) for each in status.matched), stable=True)
    else:
        outputs = job.outputs(options.outputs, pause=pause) if options.outputs else None
    if outputs is not None and not outputs.stable:
        return Wait(2, f"the run has ended; its outputs on {ctx.host.name} still change")
    lacking = outputs is not None and not all(each.is_whole for each in outputs.matched)
    # It ran on another machine, and NFS may show what that one wrote up to a minute late.
    if lacking and status.sent and since(ctx, "outputs", status, fact="outputs_since") < SETTLE_FOR:
        return Wait(LOOK_AGAIN, f"the run has ended; not all of its outputs are to be seen on {ctx.host.name} yet")
    return Done(examine(status, options, found, outputs, key=ctx.layout.key, step=named(ctx)))


def _second_look(status: JobStatus) -> int:
    """Return the seconds between two looks at the outputs; 0 where one will do: after a brief run that left nothing behind.

    Its record says that nothing of it lives; but others may write for it: a daemon that it asked, a container.
    """
    if status.sent:
        return LOOK_TWICE_FAR
    return LOOK_TWICE if status.left or status.seconds > BRIEF else 0


def _asks_for_log(options: RunOptions) -> bool:
    return bool(options.log_must_contain or options.log_must_not_contain)


def cancel(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """End the run, and any of an earlier attempt; done once it is proven that nothing of them lives or ever will."""
    del case
    try:
        for attempt in range(ctx.attempt, 0, -1):
            job = job_of(ctx, attempt=attempt)
            status = job.kill(grace=grace_of(ctx), reason="cancelled", wait=5)
            if status.state in IN_DOUBT:
                if waits := doubt(ctx, job, status):
                    return waits
                continue
            if status.state is JobState.UNKNOWN:
                return Wait(FAULT_PAUSE, _elsewhere("the run", ctx, status))
            if status.state not in OVER:
                return Wait(2, f"{_processes(status.processes)} of the run on {ctx.host.name} have yet to end")
    except HostFault as fault:
        return Wait(FAULT_PAUSE, fault.message)  # a failed cancel would be taken for a reason to try again
    return Done()


def make_order(ctx: StageContext) -> Order:
    """Put together what is to run. Raises `GiveUp` where an earlier step's work directory is not known."""
    options: RunOptions = ctx.options
    section: SshExecSection = ctx.config
    layout = ctx.layout
    uuids = ",".join(gpu.uuid for gpu in ctx.gpus)
    values = {
        "input_dir": str(layout.input),
        "work_dir": str(layout.work(ctx.step, ctx.part, ctx.attempt)),
        "case_key": layout.key,
        "part_index": ctx.part,
        "gpu_ids": ",".join(str(gpu.index) for gpu in ctx.gpus),
        "gpu_uuids": uuids,
    }
    if bool(ctx.part) != (options.for_each is not None):
        raise changed(ctx)
    if ctx.part and uses_part(options.command):
        part = part_of(ctx)
        values |= {
            "part": as_argument(part, options.for_each),
            **{PART + name: value for name, value in part.groups.items()},
        }
    works = {name: work_for(ctx, name) for name in steps_named(options.command)}
    values |= {STEP + name: str(work.path) for name, work in works.items()}
    links = {str(work.path): {name: str(path) for name, path in work.links.items()} for work in works.values()}
    if ctx.host.config.leases_gpus and len(ctx.gpus) < options.gpus:
        raise RetryLater(f"it needs {options.gpus} GPUs and was given {len(ctx.gpus)}", hint="mqi gpu list")
    environment = dict(options.environment)
    if ctx.gpus:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbers as nvidia-smi counts them
        if not uses(options.command, "gpu_ids"):  # a program that picks by number must see them all
            environment["CUDA_VISIBLE_DEVICES"] = uuids
    return Order(
        script=script(fill(options.command, values), environment, {path: each for path, each in links.items() if each}),
        input_dir=layout.input if uses(options.command, "input_dir") else None,
        time_limit=math.ceil(options.time_limit or 0),
        kill_after=grace_of(ctx),
        log_limit=section.log_limit if options.log_limit is None else options.log_limit,
        resources=_resources(options, ctx),
    )


def _resources(options: RunOptions, ctx: StageContext) -> Resources:
    limit = options.time_limit
    return Resources(
        gpus=options.gpus,
        cpus=options.cpus,
        memory=options.memory,
        time_limit=math.ceil(limit + grace_of(ctx)) if limit else None,
        partition=options.partition,
        account=options.account,
        extra=options.extra,
    )
