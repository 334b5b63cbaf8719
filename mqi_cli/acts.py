"""What an operator does to cases: retry, rerun, pause, resume, cancel, priority, and working on a step by hand.

Each act is one transaction of the conductor's own code, whether a daemon runs or not. What can't be done is refused
with a `UsageError` that says who or what is in the way.
"""

from __future__ import annotations

from mqi_cli.case import PART_LIVE, CaseState, PartState
from mqi_cli.conductor import Conductor
from mqi_cli.errors import UsageError
from mqi_cli.message import Command
from mqi_cli.stage import Step
from mqi_cli.store.records import CaseRow, PartRow


class Acts:
    """The operator's hand on the cases. `actor` names who acts, for the log."""

    def __init__(self, conductor: Conductor, *, actor: str) -> None:
        self._conductor = conductor
        self._store = conductor.store
        self._actor = actor

    def retry(self, identity: int) -> str:
        """Go on from the failed step, at once; return a sentence that says what happens."""
        with self._store.transaction():
            case = self._case(identity)
            if case.state is CaseState.WAITING:
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
            self._note(case, "retry", "retry asked for")
            self._conductor.move(case, CaseState.READY)
            case = self._case(identity)
            failed = [
                part
                for part in (self._store.parts.of_step(case.id, case.step) if case.step else [])
                if part.state in (PartState.FAILED, PartState.CANCELLED)
            ]
            if not failed:
                self._restart(case)
                return "it begins again"
            for part in failed:
                self._conductor.again(case, part, tries=0)
            self._conductor.settle(case.id)
            return f"it goes on from step {case.step}"

    def _retry_now(self, case: CaseRow) -> str:
        parts = [p for p in self._store.parts.live_of_case(case.id) if p.waiting_for in ("time", "turn")]
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

    def cancel(self, identity: int) -> str:
        """Cancel a case; what runs on a host is ended first, and the case is cancelled once that is proven."""
        with self._store.transaction():
            case = self._case(identity)
            if case.state in (CaseState.DONE, CaseState.CANCELLED):
                raise UsageError(f"the case is {case.state}: there is nothing to cancel")
            self._note(case, "cancel", "cancel asked for")
            self._store.cases.update(case.id, cancelling=True)
            for part in [*self._store.parts.live_of_case(case.id), *self._ended_unproven(case)]:
                if self._conductor.may_live(part):
                    self._store.parts.update(part.id, cancel=True, ended_at=None)
                    self._conductor.dispatch.give_turn(self._part(part.id))
                elif part.state in PART_LIVE:
                    self._conductor.overtake(part)
            self._conductor.finish_cancel(self._case(identity))
            ended = self._case(identity).state is CaseState.CANCELLED
            return "cancelled" if ended else "cancelling: what runs on the host is ended first"

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

    def claim(self, identity: int, stage: str, *, step: str = "", worker: str, daemon_running: bool) -> Command:
        """Take a step into the operator's own hands: return its command, leased to `worker`.

        Refuses, naming the holder, while a worker has it, or while the daemon is about to give it to one.
        """
        with self._store.transaction():
            case = self._case(identity)
            chosen = self._choose(case, stage, step)
            part = self._store.parts.latest(case.id, chosen.name, "")
            if part is None or part.state not in (PartState.QUEUED, PartState.WORKING, PartState.WAITING):
                part = self._new_attempt(case, chosen, former=part)
            else:
                self._refuse_if_leased(case, part, daemon_running=daemon_running)
            if not self._conductor.dispatch.lease_gpus(part):
                raise UsageError(f"{part.gpus} free GPUs are needed on {part.host}", hint="mqi gpu list")
            command = self._conductor.dispatch.command(case, part, turn=part.turn + 1)
            now = self._conductor.clock.now()
            self._store.messages.take_back(part.id)
            self._store.parts.update(
                part.id, state=PartState.WORKING, turn=command.turn, worker=worker, waiting_for="", due_at=None,
                lease_until=now + self._conductor.config.daemon.lease, reason=f"{worker} works on it", hint="",
                started_at=part.started_at or now,
            )  # fmt: skip
            self._note(case, "started", f"{chosen.name} begun by hand")
            self._conductor.settle(case.id)
            return command

    def look(self, identity: int, stage: str, *, step: str = "") -> Command:
        """Return the command of a step's newest attempt, without claiming anything."""
        with self._store.reading():
            case = self._case(identity)
            chosen = self._choose(case, stage, step)
            part = self._store.parts.latest(case.id, chosen.name, "")
            if part is None:
                raise UsageError(f"{chosen.name} of this case has not begun", hint=f"mqi case why {case.key}")
            return self._conductor.dispatch.command(case, part, turn=max(part.turn, 1))

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

    def _new_attempt(self, case: CaseRow, step: Step, *, former: PartRow | None) -> PartRow:
        if case.state in (CaseState.HELD, CaseState.CANCELLED) and step.name == (case.step or step.name):
            self._conductor.move(case, CaseState.READY)
        if not case.step:
            self._store.cases.update(case.id, step=step.name)
        return self._store.parts.add(
            case=case.id, step=step.name, part="", attempt=former.attempt + 1 if former else 1, lane=step.stage.lane,
            host=step.host, job=step.stage.job, gpus=step.gpus, facts=dict(former.facts) if former else {},
            created_at=self._conductor.clock.now(),
        )  # fmt: skip

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
