"""What an operator does to cases: retry, rerun, pause, resume, cancel, priority; and what he holds back.

Each act is one transaction of the conductor's own code, whether a daemon runs or not. What can't be done is refused
with a `UsageError` that says who or what is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from mqi_cli.case import PART_LIVE, CaseState, PartState
from mqi_cli.claims import named_part
from mqi_cli.conductor import Conductor
from mqi_cli.errors import UsageError
from mqi_cli.moves import ENDED_BY_HAND
from mqi_cli.obstacles import ends_doubt
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
            case = self._conductor.case(identity)
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
            case = self._conductor.case(identity)
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
        name = named_part(self._store, case, case.step, wanted)
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
            case = self._conductor.case(identity)
            self._refuse_if_busy(case)
            if not case.fingerprint:
                raise UsageError("the case was never complete", hint="mqi scan")
            for part in self._store.parts.live_of_case(case.id):
                self._conductor.overtake(part)
            self._store.parts.leave_behind(case.id)
            self._store.cases.update(case.id, step="", cancelling=False, cleared=[])
            self._conductor.move(case, CaseState.READY)
            case = self._conductor.case(identity)
            self._note(case, "rerun", "rerun from the start asked for")
            self._conductor.begin(case)
            return "it begins again with its first step"

    def pause(self, identity: int) -> str:
        """Begin nothing new for a case. What runs goes on to its end."""
        with self._store.transaction():
            case = self._conductor.case(identity)
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
            case = self._conductor.case(identity)
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
            case = self._conductor.case(identity)
            if part:
                return self._cancel_part(case, part)
            if case.state in (CaseState.DONE, CaseState.CANCELLED):
                live = [each for each in self._store.parts.live_of_case(case.id) if self._conductor.may_live(each)]
                alive = [*live, *self._store.parts.maybe_alive(case.id)]
                raise UsageError(
                    f"the case is {case.state}: there is nothing to cancel",
                    hint=f"a run of it may be alive: {self._way_out(case, alive[0])}" if alive else "",
                )
            self._refuse_if_taking_away(case)
            self._note(case, "cancel", "cancel asked for")
            self._store.cases.update(case.id, cancelling=True)
            for each in [*self._store.parts.live_of_case(case.id), *self._ended_unproven(case)]:
                if self._conductor.may_live(each):
                    self._store.parts.update(each.id, cancel=True, ended_at=None)
                    self._conductor.dispatch.give_turn(self._part(each.id))
                elif each.state in PART_LIVE:
                    self._conductor.overtake(each)
            self._conductor.finish_cancel(self._conductor.case(identity))
            self._conductor.settle(case.id)
            ended = self._conductor.case(identity).state is CaseState.CANCELLED
            return "cancelled" if ended else "cancelling: what runs on the host is ended first"

    def _cancel_part(self, case: CaseRow, wanted: str) -> str:
        name = named_part(self._store, case, case.step, wanted)
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

    def end_step(self, identity: int, step: str) -> list[str]:
        """Begin nothing more of the step that a case stands at; return the parts whose runs are to be ended.

        What may live on a host is ended by the daemon, or by the caller, who then says so by `ended`. When all have ended
        the case is held, or cancelled where that was asked for. Nothing changes, and none is returned, where the case doesn't
        stand at this step or doesn't go on.
        """
        with self._store.transaction():
            case = self._conductor.case(identity)
            live = [each for each in self._store.parts.live_of_case(case.id) if each.step == step == case.step]
            if not live or case.cancelling:
                return [each.part for each in live if each.cancel]
            self._note(case, "cancel", f"end of step {step} asked for")
            runs = [each for each in live if self._conductor.may_live(each)]
            for each in live:  # first what has not begun: it must not take the place of what is ended
                if each not in runs:
                    self._conductor.overtake(each, reason=ENDED_BY_HAND, hint=f"mqi case retry {case.key}")
            for each in runs:
                if not each.cancel:
                    self._store.parts.update(each.id, cancel=True, ended_at=None)
                    self._conductor.dispatch.give_turn(self._part(each.id), settle=False)
            self._conductor.settle(case.id)
            return [each.part for each in runs]

    def ended(self, identity: int, step: str, part: str, *, attempts: Sequence[int] = ()) -> None:
        """Take note that nothing of a part that `end_step` named lives any more, nor ever will: the caller has proven it.

        Or, with `attempts`, that this holds for these, which have ended for us; one that came into doubt since stays so.
        """
        with self._store.transaction():
            case = self._conductor.case(identity)
            found = self._store.parts.latest(case.id, step, part)
            if found is None:
                return
            doubted = self._store.parts.maybe_alive(case.id)
            if not attempts and found.cancel and found.state in PART_LIVE:
                self._conductor.end_cancelled(case, found, note="ended on its host")
            elif any((each.step, each.part) == (step, part) and each.attempt in attempts for each in doubted):
                self._note(case, "ended", f"{found.title}: nothing of it lives any more")
                self._conductor.end_doubt(found, attempts=attempts)
                self._conductor.settle(case.id)

    def set_priority(self, identity: int, priority: int) -> str:
        """Let a case go before others (higher) or after them where they wait for one thing."""
        with self._store.transaction():
            case = self._conductor.case(identity)
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
            self._conductor.dispatch.host_answers(name, has_room=True)

    def hold_gpu(self, uuid: str, *, held: bool) -> None:
        """Hold a GPU back from new leases, or give it free."""
        with self._store.transaction():
            gpu = next((each for each in self._store.gpus.all() if each.uuid == uuid), None)
            if gpu is None:
                raise UsageError(f"no GPU has the UUID {uuid}", hint="mqi gpu list")
            self._store.gpus.hold(uuid, held=held)
            if not held:
                self._conductor.dispatch.wake(f"gpu:{gpu.host}")

    def _ended_unproven(self, case: CaseRow) -> list[PartRow]:
        """Return the newest attempts that ended for us while their run may live."""
        found = self._store.parts.maybe_alive(case.id)
        return [part for part in found if self._store.parts.latest(case.id, part.step, part.part) == part]

    def _refuse_if_taking_away(self, case: CaseRow) -> None:
        """Refuse while a worker is at a step that must be alone: it would go on unseen, beside what is begun again."""
        for part in self._store.parts.live_of_case(case.id):
            step = self._conductor.step_of(case, part.step)
            leased = part.state is PartState.WORKING and (part.lease_until or 0) > self._conductor.clock.now()
            if leased and step is not None and step.stage.alone:
                raise UsageError(
                    f"{part.worker} works on {part.title}, which is not ended half way",
                    hint=f"wait for its end; what it does: mqi case show {case.key}",
                )

    def _refuse_if_busy(self, case: CaseRow) -> None:
        self._refuse_if_taking_away(case)
        for part in self._store.parts.live_of_case(case.id):
            if part.state is PartState.WORKING or part.waiting_for == "turn":
                who = part.worker or f"a run on {part.host or 'this machine'}"
                raise UsageError(f"{part.step} is being worked on: {who}", hint=self._way_out(case, part))
        for part in [*self._store.parts.live_of_case(case.id), *self._ended_unproven(case)]:
            if self._conductor.may_live(part):
                where = part.host or "this machine"
                raise UsageError(f"a run of it may be alive on {where}", hint=f"first: {self._way_out(case, part)}")

    def _way_out(self, case: CaseRow, part: PartRow) -> str:
        """Name what ends a part that is in the way; of a case that has ended, nothing is cancelled."""
        if case.state not in (CaseState.DONE, CaseState.CANCELLED):
            return f"mqi case cancel {case.key}"
        if part.state in PART_LIVE and self._conductor.may_live(part):
            part_of = f" --part {part.part}" if part.part else ""
            noted = f"mqi exec run {case.key} --step {part.step}{part_of}"
            return f"{ends_doubt(case, part)} (without a daemon that takes note of it, then: {noted})"
        if self._conductor.may_live(part):
            return ends_doubt(case, part)
        return f"wait for its end; what it does: mqi case show {case.key}"

    def _note(self, case: CaseRow, kind: str, text: str) -> None:
        self._conductor.note(case, kind=kind, text=text, actor=self._actor)

    def _part(self, identity: int) -> PartRow:
        found = self._store.parts.by_id(identity)
        assert found is not None  # noqa: S101  parts are never deleted
        return found
