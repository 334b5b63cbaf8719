"""THE place where a case changes. Each event is applied whole or not at all: inbox + move + outbox in one transaction.

    source ── scanner ──> accept() ── first step ──> outbox ──> broker ──> worker
                                                                              │ accepted, progress, …
    done <── last step <── next step <── apply(event) <───────── broker <─────┘

`accept` takes a complete directory in and begins its first step. A worker answers each command with events; `apply`
drops what it has seen before (inbox) or what is of an older attempt or turn (fence), else moves the part and its case
and writes the next command. `clockwork.py` calls in when a time has come, `acts.py` when an operator acts, `intake.py`
when a patrol has seen something; they all move cases by the functions below and in `dispatch.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Any

from mqi_cli.case import CASE_MOVES, PART_LIVE, CaseState, PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.crash_points import crash_point
from mqi_cli.dispatch import Dispatcher
from mqi_cli.errors import CaseError, MqiError
from mqi_cli.message import ABOUT_WORKERS, TURN_ENDS, Event, EventKind, Facts
from mqi_cli.retry import backoff
from mqi_cli.stage import Step
from mqi_cli.standing import standing
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, PartRow

log = logging.getLogger("mqi.conductor")

WORKER = "worker:"  # begins the topic of an alert about the workers of a lane on a machine

LOST_STEP = "add it again and mqi daemon reload, then: mqi case retry; or from the start: mqi case rerun"


class UnknownCase(CaseError):
    """An event speaks of a case that the state database does not know."""


class Conductor:
    """Moves cases. One process does it for the daemon; a foreground command does the same with the same code."""

    def __init__(
        self, store: Store, config: Config, *, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        self.store = store
        self.config = config
        self.clock = clock or Clock()
        self.random = random or Random()  # noqa: S311  jitter, not a secret
        self.dispatch = Dispatcher(store, config, self.clock, self.random, settle=self.settle)
        self._handlers = {
            EventKind.ACCEPTED: self._accepted,
            EventKind.PROGRESS: self._progress,
            EventKind.REMEMBERED: self._remembered,
            EventKind.DONE: self._done,
            EventKind.WAIT: self._wait,
            EventKind.RETRY: self._retry,
            EventKind.GAVE_UP: self._gave_up,
            EventKind.BUG: self._bug,
            EventKind.CANCELLED: self._cancelled,
        }

    # ---- a case begins, goes on, ends ----

    def begin(self, case: CaseRow) -> None:
        """Begin the first step of a case that is ready. In the caller's transaction."""
        workflow = self.config.workflows.get(case.workflow)
        if workflow is None:
            self.hold(case, f"the config has no workflow {case.workflow}", hint="add it, then: mqi case retry")
            return
        self.start_step(case, workflow.steps[0])

    def start_step(self, case: CaseRow, step: Step) -> None:
        """Begin a step with its one part, or with the plan that lists its parts. In the caller's transaction."""
        self.store.cases.update(case.id, step=step.name)
        self._attempt(case, step, part="")
        self.settle(case.id)

    def again(
        self, case: CaseRow, former: PartRow, *, tries: int, due_at: float | None = None, reason: str = ""
    ) -> None:
        """Add the next attempt of a part, at once or at `due_at`; what it remembered goes along."""
        step = self.step_of(case, former.step)
        if step is None:
            self.hold(
                case, f"the config has no step {former.step} in workflow {case.workflow} any more", hint=LOST_STEP
            )
            return
        self._attempt(case, step, part=former.part, former=former, tries=tries, due_at=due_at, reason=reason)

    def _fan_out(self, case: CaseRow, plan: PartRow, facts: Facts) -> None:
        """Begin each part that the plan has counted; they are called by their numbers."""
        step = self.step_of(case, plan.step)
        if step is None:
            self.hold(case, f"the config has no step {plan.step} in workflow {case.workflow} any more", hint=LOST_STEP)
            return
        for number in range(1, int(facts["parts"]) + 1):
            self._attempt(case, step, part=str(number))

    def _attempt(
        self,
        case: CaseRow,
        step: Step,
        *,
        part: str,
        former: PartRow | None = None,
        tries: int = 0,
        due_at: float | None = None,
        reason: str = "",
    ) -> None:
        row = self.add_attempt(case, step, part=part, former=former, tries=tries, due_at=due_at, reason=reason)
        if due_at is None:
            self.dispatch.give_turn(row, settle=False)  # who asked for it settles the case, once for all its parts

    def add_attempt(
        self,
        case: CaseRow,
        step: Step,
        *,
        part: str,
        former: PartRow | None = None,
        tries: int = 0,
        due_at: float | None = None,
        reason: str = "",
    ) -> PartRow:
        """Add the next attempt of a part, without a turn; what `former` remembered goes along."""
        before = former or self.store.parts.latest(case.id, step.name, part)
        plan = former.plan if former else step.fans_out and not part
        return self.store.parts.add(
            case=case.id,
            step=step.name,
            part=part,
            attempt=before.attempt + 1 if before else 1,
            lane=step.stage.lane,
            host=step.host,
            job=step.stage.job and not plan,
            gpus=0 if plan or not self._leases_gpus(step.host) else step.gpus,
            plan=plan,
            tries=tries,
            facts=dict(former.facts) if former else {},
            waiting_for="time" if due_at else "",
            due_at=due_at,
            reason=reason,
            created_at=self.clock.now(),
        )

    def _leases_gpus(self, host: str) -> bool:
        return host in self.config.hosts and bool(self.config.hosts[host].leases_gpus)

    def hold(self, case: CaseRow, reason: str, *, hint: str = "") -> None:
        """Put a case aside until a person acts."""
        self.move(case, CaseState.HELD, reason=reason, hint=hint)
        self.note(case, kind="held", text=f"held: {reason}")

    def move(
        self, case: CaseRow, state: CaseState, *, reason: str = "", hint: str = "", until: float | None = None
    ) -> None:
        """Change a case's state with its reason. A move that the table does not allow is a bug, not a case's fault."""
        if state != case.state and state not in CASE_MOVES[case.state]:
            raise AssertionError(f"case {case.key} can't go from {case.state} to {state}")
        now = self.clock.now()
        ended = now if state in (CaseState.DONE, CaseState.CANCELLED) else None
        since = (
            case.updated_at if (state, reason) == (case.state, case.reason) else now
        )  # people read it as "for how long"
        self.store.cases.update(
            case.id, state=str(state), reason=reason, hint=hint, until=until, updated_at=since, ended_at=ended
        )

    def settle(self, identity: int) -> None:
        """Bring a case's state in line with the parts of its current step."""
        case = self.store.cases.by_id(identity)
        if case is None or not case.step or case.state is CaseState.CANCELLED:
            return
        found = standing(self.store.parts.of_step(case.id, case.step), cancelling=case.cancelling)
        if found is None:
            return
        until = None
        if found.state is CaseState.WAITING:
            until = found.by.due_at
            if found.by.waiting_for.startswith("host:"):
                until = self.store.hosts.get(found.by.host).until
        elif found.state is CaseState.HELD and found.by.part and case.state is not CaseState.HELD:
            self.note(case, kind="held", text=f"held: {case.step}: {found.reason}")
        self.move(case, found.state, reason=found.reason, hint=found.hint, until=until)

    def note(
        self,
        case: CaseRow,
        *,
        kind: str,
        text: str,
        part: PartRow | None = None,
        actor: str = "conductor",
        detail: str = "",
    ) -> None:
        """Write a sentence into the case's log and the process's own."""
        self.store.events.add(
            at=self.clock.now(),
            case=case.id,
            kind=kind,
            text=text,
            step=part.step if part else "",
            part=part.part if part else "",
            attempt=part.attempt if part else 0,
            actor=actor,
            detail=detail,
        )
        log.info("%s", text, extra={"case": case.key, "step": part.step if part else ""})

    # ---- events come in ----

    def apply_all(self, events: Sequence[Event]) -> list[str]:
        """Apply events in order, durable together; return for each what is wrong with it, mostly nothing.

        Each is still applied whole or not at all: they only share the cost of making it durable. Raises `StateError`.
        """
        problems: list[str] = []
        with self.store.transaction():
            for event in events:
                try:
                    self.apply(event)
                    problems.append("")
                except UnknownCase as problem:
                    problems.append(problem.message)
                except MqiError:
                    raise
                except Exception as bug:  # one event that can't be applied must not take the others with it
                    log.exception(
                        "a bug: the %s of %s is not applied", event.kind, event.step, extra={"case": event.case}
                    )
                    problems.append(f"a bug in the conductor: {type(bug).__name__}")
        return problems

    def apply(self, event: Event) -> bool:
        """Apply an event; False when it changed nothing (seen before, or of an older turn).

        Raises `UnknownCase`, and `StateError` when the database can't be written: then the event must come again.
        """
        with self.store.transaction():
            if event.kind in ABOUT_WORKERS:
                return self._about_worker(event)
            case = self.store.cases.by_key(event.case)
            if case is None:
                raise UnknownCase(f"no case has the key {event.case}")
            # progress is repeated all the time and only ever says how far it is: the fence is enough for it
            if event.kind is not EventKind.PROGRESS and not self.store.messages.take_in(event.id, now=self.clock.now()):
                return False
            part = self.store.parts.latest(case.id, event.step, event.part)
            if part is None or not self._is_of_now(part, event):
                log.info("a late %s of attempt %d changes nothing", event.kind, event.attempt, extra={"case": case.key})
                return False
            if event.kind in TURN_ENDS:
                self.store.messages.take_back(part.id)
                self._host_heard(part, event)
            self._handlers[event.kind](case, part, event)
            self.settle(case.id)
            crash_point("conductor.applying")
            return True

    @staticmethod
    def _is_of_now(part: PartRow, event: Event) -> bool:
        same = (part.attempt, part.turn) == (event.attempt, event.turn)
        return same and part.state in (PartState.QUEUED, PartState.WORKING)

    def _host_heard(self, part: PartRow, event: Event) -> None:
        # BUG says nothing about the host; RETRY tells by itself which host is at fault
        if part.host and event.kind not in (EventKind.RETRY, EventKind.BUG):
            self.dispatch.host_answers(part.host)

    def _about_worker(self, event: Event) -> bool:
        if event.kind is EventKind.ALIVE:
            data, now = event.data, self.clock.now()
            lane, machine, trouble = (str(data.get(name, "")) for name in ("lane", "machine", "trouble"))
            if data.get("leaving"):
                self.store.workers.left(event.worker)
            else:
                self.store.workers.alive(
                    event.worker,
                    lane=lane,
                    machine=machine,
                    pid=int(data.get("pid", 0)),
                    busy=int(data.get("busy", 0)),
                    started_at=float(data.get("started", 0.0)),
                    now=now,
                )
            topic = f"{WORKER}{lane}@{machine}"
            if trouble and not data.get("leaving"):
                hint = f"give {machine} the same workflows and key_salt as this machine, then restart the worker"
                self.store.switches.raise_alert(topic, text=f"{event.worker}: {trouble}", hint=hint, now=now)
            else:
                self.store.switches.clear_alert(topic)
        return True

    def _accepted(self, case: CaseRow, part: PartRow, event: Event) -> None:
        now = self.clock.now()
        self.store.parts.update(
            part.id, state=PartState.WORKING, worker=event.worker, lease_until=now + self.config.daemon.lease,
            started_at=part.started_at or now, reason=f"{event.worker} works on it",
        )  # fmt: skip
        self.store.messages.take_back(part.id)
        if part.turn == 1:
            self.note(case, kind="started", text=f"{part.step} begun", part=part, actor=event.worker)

    def _progress(self, case: CaseRow, part: PartRow, event: Event) -> None:
        del case
        self.store.parts.update(
            part.id,
            state=PartState.WORKING,
            worker=event.worker,
            lease_until=self.clock.now() + self.config.daemon.lease,
            **_progress_of(part, event.data),
        )

    def _remembered(self, case: CaseRow, part: PartRow, event: Event) -> None:
        del case
        facts = {**part.facts, **event.data.get("facts", {})}
        self.store.parts.update(part.id, facts=facts, lease_until=self.clock.now() + self.config.daemon.lease)

    def _done(self, case: CaseRow, part: PartRow, event: Event) -> None:
        facts = {**part.facts, **event.data.get("facts", {})}
        self._end(part, PartState.DONE, facts=facts, progress_done=part.progress_total)
        seconds = self.clock.now() - (part.started_at or part.created_at)
        text = f"{part.step} done in {seconds:.1f} s" + (f" (attempt {part.attempt})" if part.attempt > 1 else "")
        self.note(case, kind="done", text=text, part=part, actor=event.worker)
        if "cleared" in facts:
            self.store.cases.update(case.id, cleared=sorted({*case.cleared, *map(str, facts["cleared"])}))
        if part.plan:
            self._fan_out(case, part, facts)
        elif part.step == case.step:
            self._advance(case)

    def _advance(self, case: CaseRow) -> None:
        """Go on to the next step once every part of this one is done."""
        if any(part.state is not PartState.DONE for part in self.store.parts.of_step(case.id, case.step)):
            return
        workflow = self.config.workflows.get(case.workflow)
        if workflow is None or workflow.step(case.step) is None:
            self.hold(case, f"the config has no step {case.step} in workflow {case.workflow} any more", hint=LOST_STEP)
            return
        following = workflow.after(case.step)
        if following is not None:
            self.start_step(case, following)
        elif case.state is not CaseState.DONE:
            self.move(case, CaseState.DONE)
            self.note(case, kind="case-done", text="all steps done")

    def _wait(self, case: CaseRow, part: PartRow, event: Event) -> None:
        del case
        seconds = max(0.0, float(event.data.get("seconds", 0.0)))
        self.store.parts.update(
            part.id, state=PartState.WAITING, waiting_for="turn", reason=str(event.data.get("note", "")), hint="",
            due_at=self.clock.now() + seconds, lease_until=None, worker="", losses=0,
            **_progress_of(part, event.data.get("progress", {})),
        )  # fmt: skip

    def _retry(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason, hint = str(event.data.get("reason", "")), str(event.data.get("hint", ""))
        after = event.data.get("after")
        host = str(event.data.get("host", ""))
        if host:  # the host is at fault: it pauses, and nobody's tries are used up
            self.dispatch.host_failed(host, reason, hint=hint, after=after)
            self.store.parts.update(
                part.id, state=PartState.WAITING, waiting_for=f"host:{host}", reason=f"host {host} is paused: {reason}",
                hint=hint, due_at=None, lease_until=None, worker="",
            )  # fmt: skip
            return
        if part.cancel:  # the same attempt is asked again: a next one would begin the run anew
            tries = part.tries + 1
            delay = float(after) if after is not None else self._delay(tries)
            self.store.parts.update(
                part.id, state=PartState.WAITING, waiting_for="time", tries=tries, hint=hint, lease_until=None, worker="",
                reason=f"it is not cancelled yet: {reason}", due_at=self.clock.now() + max(0.0, delay),
            )  # fmt: skip
            return
        step = self.step_of(case, part.step)
        tries, limit = part.tries + 1, step.attempts if step else part.tries
        self.note(
            case,
            kind="failed",
            text=f"{part.step} failed, try {tries} of {limit}: {reason}",
            part=part,
            actor=event.worker,
            detail=str(event.data.get("detail", "")),
        )
        if tries >= limit:
            self._end(part, PartState.FAILED, reason=f"{reason} (gave up after {tries} tries)", hint=hint)
            if not part.part:
                self.note(case, kind="held", text=f"held: {part.step}: {reason}", part=part)
            return
        delay = after if after is not None else self._delay(tries)
        self._end(part, PartState.FAILED, reason=reason, hint=hint)
        self.again(
            case, part, tries=tries, due_at=self.clock.now() + max(0.0, float(delay)),
            reason=f"try {tries + 1} of {limit} follows: {reason}",
        )  # fmt: skip

    def step_of(self, case: CaseRow, name: str) -> Step | None:
        """Return a step of the case's workflow; None when the config no longer has it."""
        workflow = self.config.workflows.get(case.workflow)
        return workflow.step(name) if workflow else None

    def _delay(self, tries: int) -> float:
        daemon = self.config.daemon
        return backoff(tries, self.random, first=daemon.retry_first, most=daemon.retry_most)

    def _gave_up(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason, hint = str(event.data.get("reason", "")), str(event.data.get("hint", ""))
        if part.cancel:
            self.fail(case, part, f"it could not be cancelled: {reason}", hint=hint)
            return
        self._end(part, PartState.FAILED, reason=reason, hint=hint or f"mend it, then: mqi case retry {case.key}")
        self._note_failure(case, part, reason, actor=event.worker, detail=str(event.data.get("detail", "")))

    def _bug(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason = str(event.data.get("reason", ""))
        hint = f"the traceback: mqi case log {case.key} --detail; once it is mended: mqi case retry {case.key}"
        self._end(part, PartState.FAILED, proven=False, reason=f"a bug in stage {part.step}: {reason}", hint=hint)
        self.store.cases.update(case.id, cancelling=False)
        detail = str(event.data.get("traceback", ""))
        self.note(
            case, kind="bug", text=f"a bug in {part.step}: {reason}", part=part, actor=event.worker, detail=detail
        )

    def _cancelled(self, case: CaseRow, part: PartRow, event: Event) -> None:
        self._end(part, PartState.CANCELLED, reason=str(event.data.get("note", "")))
        self.finish_cancel(case)

    def fail(self, case: CaseRow, part: PartRow, reason: str, *, hint: str = "") -> None:
        """End an attempt without success and hold its case. In the caller's transaction.

        Nothing is known of its run then: it keeps its GPUs until a next attempt or a cancel has ended that run.
        """
        self._end(part, PartState.FAILED, proven=False, reason=reason, hint=hint)
        self.store.cases.update(case.id, cancelling=False)
        self._note_failure(case, part, reason)
        self.settle(case.id)

    def _note_failure(
        self, case: CaseRow, part: PartRow, reason: str, *, actor: str = "conductor", detail: str = ""
    ) -> None:
        """Note that a part has failed for good; of several, the case is held only once none goes on any more."""
        kind, text = (
            ("failed", f"{part.step} failed: {reason}") if part.part else ("held", f"held: {part.step}: {reason}")
        )
        self.note(case, kind=kind, text=text, part=part, actor=actor, detail=detail)

    def may_live(self, part: PartRow) -> bool:
        """Whether a run of this part, of this attempt or a former one, may be alive outside the worker."""
        if part.state is PartState.DONE or part.state is PartState.CANCELLED:
            return False
        step = self.step_of(self._case(part), part.step)
        # of a step that the config no longer has only the part itself can tell whether it starts something
        if part.plan or not (part.job if step is None else step.stage.cancel is not None):
            return False
        return (part.state in PART_LIVE and part.turn > 0) or bool(self._unproven(part))

    def _unproven(self, part: PartRow) -> list[PartRow]:
        found = self.store.parts.maybe_alive(part.case)
        return [each for each in found if (each.step, each.part) == (part.step, part.part)]

    def _case(self, part: PartRow) -> CaseRow:
        case = self.store.cases.by_id(part.case)
        assert case is not None  # noqa: S101  a foreign key holds it
        return case

    def overtake(self, part: PartRow, *, reason: str = "overtaken") -> None:
        """End an attempt that nothing outside the worker depends on; what its worker still reports is late."""
        self._end(part, PartState.CANCELLED, reason=reason)

    def finish_cancel(self, case: CaseRow) -> None:
        """Cancel a case once none of its parts is live any more."""
        if case.cancelling and not self.store.parts.live_of_case(case.id):
            self.store.cases.update(case.id, cancelling=False)
            self.move(case, CaseState.CANCELLED, reason="cancelled by an operator", hint=f"mqi case rerun {case.key}")
            self.note(case, kind="cancelled", text="cancelled")

    def _end(self, part: PartRow, state: PartState, *, proven: bool = True, **changes: object) -> None:
        """End an attempt and release what it had, but no GPU on which a run may live.

        With `proven` false the attempt is over for us while its run may go on. Only success or a cancel of a later turn
        proves a former attempt's run dead: a failure may have come before its stage looked for one.
        """
        former = self._unproven(part)
        unproven = state is PartState.FAILED and bool(
            former or (not proven and (part.job or part.cancel) and part.turn > 0)
        )
        self.store.parts.update(
            part.id, state=state, waiting_for=END_UNPROVEN if unproven else "", due_at=None, lease_until=None,
            ended_at=self.clock.now(), **changes,
        )  # fmt: skip
        self.dispatch.release(part, keep_gpus=unproven)
        if state is PartState.DONE or (state is PartState.CANCELLED and part.cancel):
            for each in former:
                self.store.parts.update(each.id, waiting_for="")
                self.dispatch.release(each)


def _progress_of(part: PartRow, told: Facts) -> dict[str, Any]:
    """Return the columns of a part that say how far it is, by what its worker told."""
    return {
        "progress_done": float(told.get("done", part.progress_done)),
        "progress_total": float(told.get("total", part.progress_total)),
        "progress_unit": str(told.get("unit", part.progress_unit)),
    }
