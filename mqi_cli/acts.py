"""What an operator does to cases: retry, rerun, pause, resume, cancel, priority, and working on a step by hand.

Each act is one transaction of the conductor's own code, whether a daemon runs or not. What can't be done is refused
with a `UsageError` that says who or what is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from mqi_cli.case import PART_LIVE, CaseState, PartState
from mqi_cli.conductor import Conductor
from mqi_cli.errors import UsageError
from mqi_cli.message import Command
from mqi_cli.stage import Step
from mqi_cli.standing import counted
from mqi_cli.store.records import CaseRow, PartRow


class Acts:
    """The operator's hand on the cases. `actor` names who acts, for the log."""

    def __init__(self, conductor: Conductor, *, actor: str) -> None:
        self._conductor = conductor
        self._store = conductor.store
        self._actor = actor

    def retry(self, identity: int, *, step: str = "", part: str = "") -> str:
        """Go on from the failed step, at once; return a sentence that says what happens.

        Of a step that fans out, only what failed is done again, or the one `part` that is named; others may go on
        meanwhile. `step` may only name the step that the case stands at.
        """
        with self._store.transaction():
            case = self._case(identity)
            if step and step != case.step:
                raise UsageError(
                    f"the case stands at step {case.step or 'none'}: only that can be done again",
                    hint=f"from the start: mqi case rerun {case.key}",
                )
            going_on = case.state in (CaseState.RUNNING, CaseState.WAITING) and not case.cancelling
            if going_on and (part or self._ended(case, PartState.FAILED)):
                return self._retry_parts(case, part)
            if case.state is CaseState.WAITING or self._asks_again(case):
                return self._retry_now(case)
            if case.state not in (CaseState.HELD, CaseState.CANCELLED):
                raise UsageError(
                    f"the case is {case.state}: there is nothing to retry", hint=f"mqi case why {case.key}"
                )
            if not case.fingerprint:
                raise UsageError("the case was never complete", hint="mqi scan")
            if case.step and self._conductor.step_of(case, case.step) is None:
                raise UsageError(
                    f"the config has no step {case.step} in workflow {case.workflow} any more",
                    hint=f"add it again, or begin anew with the config as it is: mqi case rerun {case.key}",
                )
            failed = self._ended(case, PartState.FAILED, PartState.CANCELLED)
            if part:
                failed = [self._one_of(case, failed, part)]
            self._note(case, "retry", f"retry of part {failed[0].part} asked for" if part else "retry asked for")
            self._conductor.move(case, CaseState.READY)
            case = self._case(identity)
            if not failed:
                self._restart(case)
                return "it begins again"
            for each in failed:
                self._conductor.again(case, each, tries=0)
            self._conductor.settle(case.id)
            return f"part {failed[0].part} begins again" if part else f"it goes on from step {case.step}"

    def _ended(self, case: CaseRow, *states: PartState) -> list[PartRow]:
        """Return the parts of the case's step that ended so."""
        found = counted(self._store.parts.of_step(case.id, case.step)) if case.step else []
        return [part for part in found if part.state in states]

    def _one_of(self, case: CaseRow, parts: Sequence[PartRow], wanted: str) -> PartRow:
        name = self._real_part(case, case.step, wanted)
        found = next((each for each in parts if each.part == name), None)
        if found is None:
            part = self._store.parts.latest(case.id, case.step, name)
            state = part.state if part else "not begun"
            raise UsageError(f"part {name} of step {case.step} is {state}: there is nothing to retry")
        return found

    def _retry_parts(self, case: CaseRow, wanted: str) -> str:
        """Do failed parts again beside those that go on; a part that waits for its next try begins it now."""
        parts = self._ended(case, PartState.FAILED, PartState.CANCELLED)
        parts += [part for part in self._store.parts.live_of_case(case.id) if part.waiting_for in ("time", "turn")]
        if wanted:
            parts = [self._one_of(case, parts, wanted)]
        for part in parts:
            if part.state in PART_LIVE:
                self._conductor.dispatch.give_turn(part)
            else:
                self._conductor.again(case, part, tries=0)
        names = ", ".join(part.part for part in parts)
        self._note(case, "retry", f"retry of part {names} asked for")
        self._conductor.settle(case.id)
        return f"part {names} begins again; the others go on"

    def _asks_again(self, case: CaseRow) -> bool:
        """Whether a stage waits and will be asked again by itself: for a run to end, or for room on a disk."""
        return any(part.waiting_for == "turn" for part in self._store.parts.live_of_case(case.id))

    def _retry_now(self, case: CaseRow) -> str:
        live = self._store.parts.live_of_case(case.id)
        parts = [part for part in live if part.waiting_for in ("time", "turn")]
        paused = {part.host for part in live if part.waiting_for == f"host:{part.host}"}
        tried = sorted(name for name in paused if not self._store.hosts.get(name).held)
        if not parts and tried:
            for name in tried:
                self._conductor.dispatch.probe(name)
            self._note(case, "retry", f"a try of host {', '.join(tried)} was asked for now")
            return f"host {', '.join(tried)} is tried again now"
        if not parts:
            raise UsageError(f"the case waits: {case.reason}", hint=case.hint or f"mqi case why {case.key}")
        for part in parts:
            self._conductor.dispatch.give_turn(part)
        self._note(case, "retry", "the next try was asked for now")
        return "the next try begins now"

    def _restart(self, case: CaseRow) -> None:
        workflow = self._conductor.config.workflows.get(case.workflow)
        step = workflow.step(case.step) if workflow and case.step else None
        if step is not None:
            self._conductor.start_step(case, step)
        else:
            self._conductor.begin(case)

    def rerun(self, identity: int) -> str:
        """Begin again from the first step, whatever was reached."""
        with self._store.transaction():
            case = self._case(identity)
            self._refuse_if_busy(case)
            if not case.fingerprint:
                raise UsageError("the case was never complete", hint="mqi scan")
            for part in self._store.parts.live_of_case(case.id):
                self._conductor.overtake(part)
            self._store.parts.leave_behind(case.id)
            self._store.cases.update(case.id, step="", cancelling=False, cleared=[])
            self._conductor.move(case, CaseState.READY)
            case = self._case(identity)
            self._note(case, "rerun", "rerun from the start asked for")
            self._conductor.begin(case)
            return "it begins again with its first step"

    def pause(self, identity: int) -> str:
        """Begin nothing new for a case. What runs goes on to its end."""
        with self._store.transaction():
            case = self._case(identity)
            if case.state in (CaseState.DONE, CaseState.CANCELLED):
                raise UsageError(f"the case is {case.state}")
            self._store.cases.update(case.id, paused=True)
            self._note(case, "paused", "paused")
            for part in self._store.parts.live_of_case(case.id):
                if part.state is PartState.WAITING and part.turn == 0:
                    self._conductor.dispatch.give_turn(part)  # finds the pause in its way and says so
            busy = [p for p in self._store.parts.live_of_case(case.id) if p.turn > 0]
            return "paused" + (f"; {busy[0].step} goes on to its end first" if busy else "")

    def resume(self, identity: int) -> str:
        """Take a paused case into work again."""
        with self._store.transaction():
            case = self._case(identity)
            if not case.paused:
                raise UsageError("the case is not paused", hint=f"mqi case why {case.key}")
            self._store.cases.update(case.id, paused=False)
            self._note(case, "resumed", "resumed")
            for part in self._store.parts.live_of_case(case.id):
                if part.waiting_for == "pause":
                    self._conductor.dispatch.give_turn(part)
            return "resumed"

    def cancel(self, identity: int, *, part: str = "") -> str:
        """Cancel a case; what runs on a host is ended first, and the case is cancelled once that is proven.

        With `part`, only that part of its step: the others go on, and then the case is held.
        """
        with self._store.transaction():
            case = self._case(identity)
            if part:
                return self._cancel_part(case, part)
            if case.state in (CaseState.DONE, CaseState.CANCELLED):
                raise UsageError(f"the case is {case.state}: there is nothing to cancel")
            self._note(case, "cancel", "cancel asked for")
            self._store.cases.update(case.id, cancelling=True)
            for each in [*self._store.parts.live_of_case(case.id), *self._ended_unproven(case)]:
                if self._conductor.may_live(each):
                    self._store.parts.update(each.id, cancel=True, ended_at=None)
                    self._conductor.dispatch.give_turn(self._part(each.id))
                elif each.state in PART_LIVE:
                    self._conductor.overtake(each)
            self._conductor.finish_cancel(self._case(identity))
            ended = self._case(identity).state is CaseState.CANCELLED
            return "cancelled" if ended else "cancelling: what runs on the host is ended first"

    def _cancel_part(self, case: CaseRow, wanted: str) -> str:
        name = self._real_part(case, case.step, wanted)
        part = self._store.parts.latest(case.id, case.step, name)
        if part is None or not (part.state in PART_LIVE or self._conductor.may_live(part)):
            state = part.state if part else "not begun"
            raise UsageError(f"part {name} of step {case.step} is {state}: there is nothing to cancel")
        self._note(case, "cancel", f"cancel of part {name} asked for")
        if self._conductor.may_live(part):
            self._store.parts.update(part.id, cancel=True, ended_at=None)
            self._conductor.dispatch.give_turn(self._part(part.id))
            return f"part {name} is ended on its host; the others go on"
        self._conductor.overtake(part, reason="cancelled by an operator")
        self._conductor.settle(case.id)
        return f"part {name} is cancelled; the others go on"

    def set_priority(self, identity: int, priority: int) -> str:
        """Let a case go before others (higher) or after them where they wait for one thing."""
        with self._store.transaction():
            case = self._case(identity)
            self._store.cases.update(case.id, priority=priority)
            self._store.parts.set_priority(case.id, priority)
            self._note(case, "priority", f"priority {priority}")
            return f"priority {priority}"

    def drain(self, reason: str) -> None:
        """Begin no new work, for this reason; with an empty one, begin it again."""
        with self._store.transaction():
            self._store.switches.set_drain(reason)
            text = f"drain: {reason}" if reason else "drain is over"
            self._store.events.add(
                at=self._conductor.clock.now(), case=None, kind="drain", actor=self._actor, text=text
            )
            if not reason:
                self._conductor.dispatch.wake("drain")

    def hold_host(self, name: str, reason: str) -> None:
        """Pause a host until an operator resumes it."""
        with self._store.transaction():
            self._store.hosts.update(name, held=True, reason=reason or "paused by an operator")

    def release_host(self, name: str) -> None:
        """Take a host into use again, also one that was paused because it did not answer."""
        with self._store.transaction():
            self._store.hosts.update(name, held=False, reason="", failures=1, state="probing")
            self._conductor.dispatch.host_answers(name)

    def hold_gpu(self, uuid: str, *, held: bool) -> None:
        """Hold a GPU back from new leases, or give it free."""
        with self._store.transaction():
            gpu = next((each for each in self._store.gpus.all() if each.uuid == uuid), None)
            if gpu is None:
                raise UsageError(f"no GPU has the UUID {uuid}", hint="mqi gpu list")
            self._store.gpus.hold(uuid, held=held)
            if not held:
                self._conductor.dispatch.wake(f"gpu:{gpu.host}")

    # ---- by hand ----

    def claim(
        self, identity: int, stage: str, *, step: str = "", part: str = "", worker: str, daemon_running: bool
    ) -> Command:
        """Take a step into the operator's own hands: return its command, leased to `worker`.

        Of a step that fans out, that is first the plan that lists its parts, then the part that is named or the first
        that is not done. Refuses, naming the holder, while a worker has it, or while the daemon is about to give it to
        one.
        """
        with self._store.transaction():
            case = self._case(identity)
            chosen = self._choose(case, stage, step)
            name = self._next_part(case, chosen, part)
            found = self._store.parts.latest(case.id, chosen.name, name)
            if found is None or found.state not in PART_LIVE or not found.current:
                found = self._new_attempt(case, chosen, name, former=found)
            else:
                self._refuse_if_leased(case, found, daemon_running=daemon_running)
            if not self._conductor.dispatch.lease_gpus(found):
                raise UsageError(f"{found.gpus} free GPUs are needed on {found.host}", hint="mqi gpu list")
            command = self._conductor.dispatch.command(case, found, turn=found.turn + 1)
            now = self._conductor.clock.now()
            self._store.messages.take_back(found.id)
            self._store.parts.update(
                found.id, state=PartState.WORKING, turn=command.turn, worker=worker, waiting_for="", due_at=None,
                lease_until=now + self._conductor.config.daemon.lease, reason=f"{worker} works on it", hint="",
                started_at=found.started_at or now,
            )  # fmt: skip
            self._note(case, "started", f"{chosen.name}{'/' + name if name else ''} begun by hand")
            self._conductor.settle(case.id)
            return command

    def look(self, identity: int, stage: str, *, step: str = "", part: str = "") -> Command:
        """Return the command of the newest attempt of a step's part, without claiming anything.

        Of a step with several parts, one must be named.
        """
        with self._store.reading():
            case = self._case(identity)
            chosen = self._choose(case, stage, step)
            names = self._part_names(case, chosen)
            if not part and len(names) > 1:
                raise UsageError(f"step {chosen.name} has the parts 1 to {len(names)}", hint="name one with --part")
            name = self._real_part(case, chosen.name, part) if part else names[0] if names else ""
            found = self._store.parts.latest(case.id, chosen.name, name)
            if found is None:
                raise UsageError(f"{chosen.name} of this case has not begun", hint=f"mqi case why {case.key}")
            return self._conductor.dispatch.command(case, found, turn=max(found.turn, 1))

    def part_names(self, identity: int, stage: str, *, step: str = "") -> list[str]:
        """Return the parts of a step in their order: `[""]` where it does not fan out, or has not listed them yet."""
        with self._store.reading():
            case = self._case(identity)
            return self._part_names(case, self._choose(case, stage, step)) or [""]

    def unfinished(self, identity: int, step: str) -> bool:
        """Whether a step has parts that are not done."""
        with self._store.reading():
            return any(part.state is not PartState.DONE for part in self._store.parts.of_step(identity, step))

    def _part_names(self, case: CaseRow, step: Step) -> list[str]:
        return [part.part for part in counted(self._store.parts.of_step(case.id, step.name))]

    def _real_part(self, case: CaseRow, step: str, wanted: str) -> str:
        """Return the name of the part that an operator means. Raises `UsageError` when there is none."""
        names = [part.part for part in counted(self._store.parts.of_step(case.id, step)) if part.part]
        if not names:
            raise UsageError(f"step {step} of this case has no parts", hint=f"mqi case show {case.key}")
        name = wanted.strip().lstrip("0") or "0"
        if name not in names:
            raise UsageError(f"step {step} has no part {wanted}: they are called 1 to {len(names)}")
        return name

    def _next_part(self, case: CaseRow, step: Step, wanted: str) -> str:
        """Return the part that is to be worked on by hand: "" for the plan, and for a step that does not fan out."""
        parts = self._store.parts.of_step(case.id, step.name)
        plan = next((part for part in parts if part.plan), None)
        if plan is None and (parts or not step.fans_out):
            return self._real_part(case, step.name, wanted) if wanted else ""
        if plan is None or plan.state is not PartState.DONE:
            return ""
        if wanted:
            return self._real_part(case, step.name, wanted)
        left = [part.part for part in counted(parts) if part.state is not PartState.DONE]
        if not left:
            raise UsageError(f"all parts of step {step.name} are done", hint="name one with --part to do it again")
        return left[0]

    def _choose(self, case: CaseRow, stage: str, name: str) -> Step:
        workflow = self._conductor.config.workflows.get(case.workflow)
        if workflow is None:
            raise UsageError(
                "the case has no workflow", hint=f"mqi case add DIRECTORY --workflow NAME gives it one ({case.key})"
            )
        if not case.fingerprint:
            raise UsageError(f"the case is not complete: {case.reason}", hint=f"mqi case why {case.key}")
        steps = [each for each in workflow.steps if each.stage.name == stage and name in ("", each.name)]
        if not steps:
            wanted = f"step {name} of stage {stage}" if name else f"step of stage {stage}"
            raise UsageError(
                f"workflow {workflow.name} has no {wanted}; it has: {', '.join(each.name for each in workflow.steps)}"
            )
        current = case.step or workflow.steps[0].name
        chosen = next((each for each in steps if each.name == current), None)
        if chosen is not None:
            return chosen
        names = [each.name for each in workflow.steps]
        reached = [each for each in steps if names.index(each.name) < names.index(current)]
        if not reached:
            raise UsageError(
                f"the case stands at step {current}, which comes before {steps[0].name}",
                hint=f"mqi case why {case.key}",
            )
        if len(reached) > 1:
            raise UsageError(
                f"which step? the case has been through {', '.join(each.name for each in reached)}",
                hint="name it with --step",
            )
        return reached[0]

    def _new_attempt(self, case: CaseRow, step: Step, part: str, *, former: PartRow | None) -> PartRow:
        if case.state in (CaseState.HELD, CaseState.CANCELLED) and step.name == (case.step or step.name):
            self._conductor.move(case, CaseState.READY)
        if not case.step:
            self._store.cases.update(case.id, step=step.name)
        return self._conductor.add_attempt(case, step, part=part, former=former if former and former.current else None)

    def _ended_unproven(self, case: CaseRow) -> list[PartRow]:
        """Return the newest attempts that ended for us while their run may live."""
        found = self._store.parts.maybe_alive(case.id)
        return [part for part in found if self._store.parts.latest(case.id, part.step, part.part) == part]

    def _refuse_if_busy(self, case: CaseRow) -> None:
        for part in self._store.parts.live_of_case(case.id):
            if part.state is PartState.WORKING or part.waiting_for == "turn":
                who = part.worker or f"a run on {part.host or 'this machine'}"
                raise UsageError(f"{part.step} is being worked on: {who}", hint=f"mqi case cancel {case.key}")
        for part in [*self._store.parts.live_of_case(case.id), *self._ended_unproven(case)]:
            if self._conductor.may_live(part):
                where = part.host or "this machine"
                raise UsageError(f"a run of it may be alive on {where}", hint=f"first: mqi case cancel {case.key}")

    def _refuse_if_leased(self, case: CaseRow, part: PartRow, *, daemon_running: bool) -> None:
        now = self._conductor.clock.now()
        if part.cancel:
            raise UsageError(f"{part.step} of this case is being cancelled", hint=f"mqi case why {case.key}")
        if part.state is PartState.WORKING and (part.lease_until or 0) > now:
            left = (part.lease_until or 0) - now
            raise UsageError(
                f"{part.worker} works on {part.step} of this case (attempt {part.attempt}, lease for {left:.0f} s more)",
                hint=f"wait for it, or: mqi case cancel {case.key}",
            )
        if daemon_running and (part.state is PartState.QUEUED or part.waiting_for in ("turn", "time")):
            what = "is queued for the daemon's workers" if part.state is PartState.QUEUED else "is the daemon's"
            raise UsageError(
                f"{part.step} of this case {what}: {part.reason}", hint=f"mqi case pause {case.key}, or mqi daemon stop"
            )

    def _note(self, case: CaseRow, kind: str, text: str) -> None:
        self._conductor.note(case, kind=kind, text=text, actor=self._actor)

    def _case(self, identity: int) -> CaseRow:
        found = self._store.cases.by_id(identity)
        assert found is not None  # noqa: S101  cases are never deleted
        return found

    def _part(self, identity: int) -> PartRow:
        found = self._store.parts.by_id(identity)
        assert found is not None  # noqa: S101  parts are never deleted
        return found
