"""A step taken into the operator's own hands: which of a workflow's steps and parts is meant, and who has it.

The lease is the one that a worker would have, so that a daemon and a hand never work on the same part.
"""

from __future__ import annotations

from mqi_cli.case import PART_LIVE, CaseState, PartState
from mqi_cli.conductor import Conductor
from mqi_cli.errors import UsageError
from mqi_cli.message import Command
from mqi_cli.obstacles import ends_doubt
from mqi_cli.stage import Step
from mqi_cli.standing import counted
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, PartRow


class NoFreeGpu(UsageError):
    """A host has too few GPUs that could be given to a part now, as far as was seen."""

    def __init__(self, message: str, *, host: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.host = host


class Claims:
    """Steps by hand. `actor` names who acts, for the log."""

    def __init__(self, conductor: Conductor, *, actor: str) -> None:
        self._conductor = conductor
        self._store = conductor.store
        self._actor = actor

    def claim(
        self, identity: int, stage: str, *, step: str = "", part: str = "", worker: str, daemon_running: bool
    ) -> Command:
        """Take a step into the operator's own hands: return its command, leased to `worker`.

        Of a step that fans out, that is first the plan that lists its parts, then the part that is named or the first
        that is not done. Refuses, naming the holder, while a worker has it, or while the daemon is about to give it to
        one. Raises `NoFreeGpu`.
        """
        with self._store.transaction():
            case = self._conductor.case(identity)
            if case.cancelling:
                raise UsageError("the case is being cancelled", hint=f"mqi case why {case.key}")
            chosen = self._choose(case, stage, step)
            name = self._next_part(case, chosen, part)
            found = self._store.parts.latest(case.id, chosen.name, name)
            if found is None or found.state not in PART_LIVE or not found.current:
                found = self._new_attempt(case, chosen, name, former=found)
            else:
                self._refuse_if_leased(case, found, alone=chosen.stage.alone, daemon_running=daemon_running)
            abandoned = self._beside(case, found, daemon_running=daemon_running)
            if not self._conductor.dispatch.obstacles.lease_gpus(found):
                lack = self._conductor.dispatch.obstacles.lack_of_gpus(found)
                raise NoFreeGpu(f"{chosen.name} can't begin: {lack.reason}", host=found.host, hint=lack.hint)
            command = self._conductor.dispatch.command(case, found, turn=found.turn + 1)
            now = self._conductor.clock.now()
            self._store.messages.take_back(found.id)
            self._store.parts.update(
                found.id, state=PartState.WORKING, turn=command.turn, worker=worker, waiting_for="", due_at=None,
                lease_until=now + self._conductor.config.daemon.lease, reason=f"{worker} works on it", hint="",
                started_at=found.started_at or now,
            )  # fmt: skip
            for other in abandoned:  # finds this step in its way, and waits for its end
                self._conductor.dispatch.give_turn(other, settle=False)
            self._note(case, "started", f"{chosen.name}{'/' + name if name else ''} begun by hand")
            self._conductor.settle(case.id)
            return command

    def look(self, identity: int, stage: str, *, step: str = "", part: str = "") -> Command:
        """Return the command of the newest attempt of a step's part, without claiming anything.

        Of a step with several parts, one must be named.
        """
        with self._store.reading():
            case = self._conductor.case(identity)
            chosen = self._choose(case, stage, step)
            if part:
                name = named_part(self._store, case, chosen.name, part)
            else:
                names = self._part_names(case, chosen)
                if len(names) > 1:
                    raise UsageError(f"step {chosen.name} has the parts 1 to {len(names)}", hint="name one with --part")
                name = names[0] if names else ""
            found = self._store.parts.latest(case.id, chosen.name, name)
            if found is None:
                raise UsageError(f"{chosen.name} of this case has not begun", hint=f"mqi case why {case.key}")
            return self._conductor.dispatch.command(case, found, turn=max(found.turn, 1))

    def part_names(self, identity: int, stage: str, *, step: str = "") -> list[str]:
        """Return the parts of a step in their order: `[""]` where it does not fan out, or has not listed them yet."""
        with self._store.reading():
            case = self._conductor.case(identity)
            return self._part_names(case, self._choose(case, stage, step)) or [""]

    def unfinished(self, identity: int, step: str) -> list[str]:
        """Return the parts of a step that are not done, in their order."""
        with self._store.reading():
            parts = self._store.parts.of_step(identity, step)
            return [part.part for part in parts if part.state is not PartState.DONE]

    def in_doubt(self, identity: int, step: str, part: str) -> list[int]:
        """Return the attempts of a part that have ended for us while their runs may live, oldest first."""
        with self._store.reading():
            found = self._store.parts.maybe_alive(identity)
            return [each.attempt for each in found if (each.step, each.part) == (step, part)]

    def is_ended(self, command: Command) -> bool:
        """Whether an operator has ended what was claimed by this command, or lets it be ended."""
        with self._store.reading():
            case = self._store.cases.by_key(command.case)
            part = self._store.parts.latest(case.id, command.step, command.part) if case else None
            return part is not None and (part.cancel or part.state is PartState.CANCELLED)

    def _part_names(self, case: CaseRow, step: Step) -> list[str]:
        return [part.part for part in counted(self._store.parts.of_step(case.id, step.name))]

    def _next_part(self, case: CaseRow, step: Step, wanted: str) -> str:
        """Return the part that is to be worked on by hand: "" for the plan, and for a step that does not fan out."""
        parts = self._store.parts.of_step(case.id, step.name)
        plan = next((part for part in parts if part.plan), None)
        if plan is None and (parts or not step.fans_out):
            return named_part(self._store, case, step.name, wanted) if wanted else ""
        if plan is None or plan.state is not PartState.DONE:
            return ""
        if wanted:
            return named_part(self._store, case, step.name, wanted)
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

    def _refuse_if_leased(self, case: CaseRow, part: PartRow, *, alone: bool, daemon_running: bool) -> None:
        now = self._conductor.clock.now()
        if part.cancel:
            raise UsageError(f"{part.step} of this case is being cancelled", hint=f"mqi case why {case.key}")
        if part.state is PartState.WORKING and (part.lease_until or 0) > now:
            left = (part.lease_until or 0) - now
            raise UsageError(
                f"{part.worker} works on {part.step} of this case (attempt {part.attempt}, lease for {left:.0f} s more)",
                hint="wait for its end" if alone else f"wait for it, or: mqi case cancel {case.key}",
            )
        if daemon_running and (part.state is PartState.QUEUED or part.waiting_for in ("turn", "time")):
            what = "is queued for the daemon's workers" if part.state is PartState.QUEUED else "is the daemon's"
            raise UsageError(
                f"{part.step} of this case {what}: {part.reason}", hint=f"mqi case pause {case.key}, or mqi daemon stop"
            )

    def _beside(self, case: CaseRow, part: PartRow, *, daemon_running: bool) -> list[PartRow]:
        """Return the other parts that stand back for this one, for nobody works on them; refuse where one goes on, or may."""
        others = self._conductor.dispatch.obstacles.all_beside(case, part)
        for other in others:
            if self._is_abandoned(other, daemon_running=daemon_running):
                continue
            hint = f"wait for its end; what it does: mqi case show {case.key}"
            if other.waiting_for == END_UNPROVEN:
                hint = f"first: {ends_doubt(case, other)}"
            elif self._conductor.may_live(other):
                hint = f"wait for its end, or: {ends_doubt(case, other)}"
                if not daemon_running:  # nobody takes note of its end; and a worker elsewhere may begin what is queued
                    part_of = f" --part {other.part}" if other.part else ""
                    hint += f", and then: mqi exec run {case.key} --step {other.step}{part_of}"
            raise UsageError(
                f"{other.title} of this case goes on, or may: {part.step} must not be worked on beside it", hint=hint
            )
        return [other for other in others if other.state is not PartState.WAITING]

    def _is_abandoned(self, other: PartRow, *, daemon_running: bool) -> bool:
        """Whether nobody has a part, nor will before this step's end, and no run of it may live."""
        if other.state not in PART_LIVE or (daemon_running and other.waiting_for != "hand"):
            return False
        if other.state is PartState.WORKING and (other.lease_until or 0) > self._conductor.clock.now():
            return False
        return not self._conductor.may_live(other)

    def _note(self, case: CaseRow, kind: str, text: str) -> None:
        self._conductor.note(case, kind=kind, text=text, actor=self._actor)


def named_part(store: Store, case: CaseRow, step: str, wanted: str) -> str:
    """Return the name of the part that an operator means. Raises `UsageError` when there is none."""
    name = wanted.strip().lstrip("0") or "0"
    known = store.parts.latest(case.id, step, name)
    if known is not None and known.current and not known.plan:  # without reading hundreds of others
        return name
    names = [part.part for part in counted(store.parts.of_step(case.id, step)) if part.part]
    if not names:
        raise UsageError(f"step {step} of this case has no parts", hint=f"mqi case show {case.key}")
    if name not in names:
        raise UsageError(f"step {step} has no part {wanted}: they are called 1 to {len(names)}")
    return name
