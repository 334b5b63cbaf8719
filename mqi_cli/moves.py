"""How a case and its parts change, whoever asks for it: an event, the clock, an operator, a patrol.

Each function is called in its caller's transaction: `conductor.py` applies events, `clockwork.py` calls in when a time
has come, `acts.py` and `claims.py` when an operator acts, `intake.py` when a patrol has seen something.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random

from mqi_cli.case import CASE_MOVES, PART_LIVE, CaseState, PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.dispatch import Dispatcher
from mqi_cli.message import Earlier, Facts
from mqi_cli.stage import Step
from mqi_cli.standing import standing
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, PartRow

log = logging.getLogger("mqi.conductor")

ENDED_BY_HAND = "an operator ended it"
LOST_STEP = "add it again and mqi daemon reload, then: mqi case retry; or from the start: mqi case rerun"


class Moves:
    """Moves cases from step to step and from state to state, each move noted in the case's log."""

    def __init__(
        self, store: Store, config: Config, *, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        self.store = store
        self.config = config
        self.clock = clock or Clock()
        self.random = random or Random()  # noqa: S311  jitter, not a secret
        self.dispatch = Dispatcher(store, config, self.clock, self.random, settle=self.settle, fail=self._fail)

    def step_of(self, case: CaseRow, name: str) -> Step | None:
        """Return a step of the case's workflow; None when the config no longer has it."""
        workflow = self.config.workflows.get(case.workflow)
        return workflow.step(name) if workflow else None

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
        self._begin_attempt(self.add_attempt(case, step, part=""))
        self.settle(case.id)

    def advance(self, case: CaseRow) -> None:
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
        self._begin_attempt(
            self.add_attempt(case, step, part=former.part, former=former, tries=tries, due_at=due_at, reason=reason)
        )

    def fan_out(self, case: CaseRow, plan: PartRow, facts: Facts) -> None:
        """Begin each part that the plan has counted; they are called by their numbers."""
        step = self.step_of(case, plan.step)
        if step is None:
            self.hold(case, f"the config has no step {plan.step} in workflow {case.workflow} any more", hint=LOST_STEP)
            return
        earlier = self.dispatch.earlier(case, plan.step, of_part=True)
        for number in range(1, int(facts["parts"]) + 1):
            self._begin_attempt(self.add_attempt(case, step, part=str(number)), earlier=earlier)

    def _begin_attempt(self, attempt: PartRow, *, earlier: tuple[Earlier, ...] | None = None) -> None:
        """Give an attempt its first turn, unless it is due later; who asked settles the case, once for all its parts."""
        if attempt.due_at is None:
            self.dispatch.give_turn(attempt, settle=False, earlier=earlier)

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
        if step.host in case.cleared:  # what was cleared away before says nothing of what this attempt will leave
            self.store.cases.update(case.id, cleared=[host for host in case.cleared if host != step.host])
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
        """Bring a case's state in line with the parts of its current step, at the end of a move, and wake who waits in it."""
        self._settle(identity)
        self.dispatch.settled(identity)

    def _settle(self, identity: int) -> None:
        case = self.store.cases.by_id(identity)
        if case is None or not case.step or case.state is CaseState.CANCELLED:
            return
        found = standing(self.store.parts.of_step(case.id, case.step), cancelling=case.cancelling)
        if case.cancelling and (found is None or found.state is CaseState.HELD):
            live = self.store.parts.live_of_case(case.id)  # an earlier step's, done again by hand, is ended first
            found = standing(self.store.parts.of_step(case.id, live[0].step), cancelling=True) if live else found
        if found is None:
            return
        until = None
        if found.state is CaseState.WAITING:
            until = found.by.due_at
            if found.by.waiting_for.startswith("host:"):
                until = self.store.hosts.get(found.by.host).until
        elif (
            found.state is CaseState.HELD
            and (found.by.part or found.by.state is PartState.CANCELLED)  # who fails a step's one part has noted it
            and case.state is not CaseState.HELD
        ):
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

    def fail(self, case: CaseRow, part: PartRow, reason: str, *, hint: str = "") -> None:
        """End an attempt without success and hold its case. In the caller's transaction.

        Nothing is known of its run then: it keeps its GPUs until a next attempt or a cancel has ended that run.
        """
        self._fail(case, part, reason, hint)
        self.settle(case.id)

    def _fail(self, case: CaseRow, part: PartRow, reason: str, hint: str) -> None:
        self.end(part, PartState.FAILED, proven=False, reason=reason, hint=hint)
        self.store.cases.update(case.id, cancelling=False)
        self.note_failure(case, part, reason)

    def note_failure(
        self, case: CaseRow, part: PartRow, reason: str, *, actor: str = "conductor", detail: str = ""
    ) -> None:
        """Note that a part has failed for good; of several, the case is held only once none goes on any more.

        A step that the case is past and that an operator did again moves it nowhere.
        """
        if part.step != case.step:
            done = self.store.parts.finished(case.id, [part.step])
            counts = next((each.attempt for each in done if each.part == part.part), None)
            still = f"its attempt {counts} still counts, and " if counts else ""
            kind = "failed"
            text = f"{part.title} failed when it was done again: {reason}; {still}the case stays {case.state}"
        elif part.part:
            kind, text = "failed", f"{part.title} failed: {reason}"
        else:
            kind, text = "held", f"held: {part.step}: {reason}"
        self.note(case, kind=kind, text=text, part=part, actor=actor, detail=detail)

    def may_live(self, part: PartRow) -> bool:
        """Whether a run of this part, of this attempt or a former one, may be alive outside the worker."""
        if part.state is PartState.DONE or part.state is PartState.CANCELLED:
            return False
        step = self.step_of(self.case(part.case), part.step)
        # of a step that the config no longer has only the part itself can tell whether it starts something
        if part.plan or not (part.job if step is None else step.stage.cancel is not None):
            return False
        return (part.state in PART_LIVE and part.turn > 0) or bool(self.dispatch.obstacles.unproven(part))

    def case(self, identity: int) -> CaseRow:
        """Return a case that there is: none is ever deleted."""
        found = self.store.cases.by_id(identity)
        assert found is not None  # noqa: S101
        return found

    def end_doubt(self, part: PartRow, *, attempts: Sequence[int] | None = None) -> None:
        """Give free what attempts of a part, all or these, kept whose runs might have lived: they are proven over."""
        for each in (
            each for each in self.dispatch.obstacles.unproven(part) if attempts is None or each.attempt in attempts
        ):
            self.store.parts.update(each.id, waiting_for="")
            self.dispatch.release(each)

    def overtake(self, part: PartRow, *, reason: str = "overtaken", hint: str = "") -> None:
        """End an attempt that nothing outside the worker depends on; what its worker still reports is late."""
        self.end(part, PartState.CANCELLED, reason=reason, hint=hint)

    def end_cancelled(self, case: CaseRow, part: PartRow, *, note: str) -> None:
        """End an attempt that was to be cancelled and is proven ended on its host; the case with it, if that was meant."""
        by_itself = not case.cancelling
        reason, hint = (ENDED_BY_HAND, f"mqi case retry {case.key}") if by_itself else (note, "")
        self.end(part, PartState.CANCELLED, reason=reason, hint=hint)
        self.finish_cancel(case)
        self.settle(case.id)

    def finish_cancel(self, case: CaseRow) -> None:
        """Cancel a case once none of its parts is live any more."""
        if case.cancelling and not self.store.parts.live_of_case(case.id):
            self.store.cases.update(case.id, cancelling=False)
            self.move(case, CaseState.CANCELLED, reason="cancelled by an operator", hint=f"mqi case rerun {case.key}")
            self.note(case, kind="cancelled", text="cancelled")

    def end(self, part: PartRow, state: PartState, *, proven: bool = True, **changes: object) -> None:
        """End an attempt and release what it had, but no GPU on which a run may live.

        With `proven` false the attempt is over for us while its run may go on. Only success or a cancel of a later turn
        proves a former attempt's run dead: a failure may have come before its stage looked for one.
        """
        former = self.dispatch.obstacles.unproven(part)
        unproven = state is PartState.FAILED and bool(
            former or (not proven and (part.job or part.cancel) and part.turn > 0)
        )
        self.store.parts.update(
            part.id, state=state, waiting_for=END_UNPROVEN if unproven else "", due_at=None, lease_until=None,
            ended_at=self.clock.now(), **changes,
        )  # fmt: skip
        self.dispatch.release(part, keep_gpus=unproven)
        if state is PartState.DONE or (state is PartState.CANCELLED and part.cancel):
            self.end_doubt(part)
