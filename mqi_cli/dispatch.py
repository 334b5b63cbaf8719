"""Decides whether a part may have its next turn, leases what the turn needs, and writes its command to the outbox.

Everything here happens inside a transaction of the conductor. A part that may not go on waits *for a thing*, written in
`waiting_for`, and is woken in order when that thing changes:

    time  turn  pause  drain  hand  config  case:<id>  host:<name>  jobs:<host>  gpu:<host>

`turn` is a stage's own `Wait`; `time` a back-off. `hand` is for cases outside every source, which only an operator moves.
`config` is for what the config no longer has; a conductor that starts with another config asks again. `case` is for a
step of the same case beside which this one must not be worked on.
Only an attempt that has not begun waits for pause, drain, jobs and GPUs: what runs on a host goes on being looked after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from mqi_cli.case import PART_LIVE, PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.message import Command, Earlier, GpuLease, MessageError, command_id, encode
from mqi_cli.quantity import age, counted
from mqi_cli.retry import backoff
from mqi_cli.step_digest import step_digest
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, GpuRow, PartRow

MORE_ROOM = 100_000_000  # bytes; a full host that has so much more than at the last look is full no longer
HOST_PAUSE_MOST = 300.0  # a host that is down is asked again at least this often, seconds
LEASE_GRACE = 60.0  # seconds; a lease of a part that ended so long ago is a leak
LOOK_VALID = 600.0  # seconds; a GPU not looked at for so long (the curator does every 30 s) may be taken by anybody
WOKEN_AT_ONCE = 200
SERVED_IN_ORDER = ("jobs:", "gpu:")  # who comes first is served first; nobody overtakes


@dataclass(frozen=True)
class Obstacle:
    """Why a part can't have its turn now."""

    thing: str
    reason: str
    hint: str = ""
    until: float | None = None


class Dispatcher:
    """Gives turns to parts. `settle` brings a case's own state in line after a change of its parts; `fail` ends a part."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        random: Random,
        *,
        settle: Callable[[int], None],
        fail: Callable[[CaseRow, PartRow, str, str], None],
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._random = random
        self._settle = settle
        self._fail = fail
        self._moved: set[int] = set()  # cases of which an attempt has ended, until they are settled
        self._to_wake: list[str] = []  # while somebody is woken: whoever is to be woken after him
        self._waking = False

    def give_turn(
        self,
        part: PartRow,
        *,
        in_order: bool = False,
        probe: bool = False,
        settle: bool = True,
        earlier: tuple[Earlier, ...] | None = None,
    ) -> bool:
        """Queue the part's next turn, or let it wait for what is in the way. True when it was queued.

        With `settle` false the caller brings the case in line afterwards. Who gives turns to many parts of one step at
        once reads what the steps before it left but once, and hands it over as `earlier`.
        """
        case = self._case(part)
        obstacle = self._obstacle(case, part, in_order=in_order, probe=probe)
        if obstacle:
            self._store.messages.take_back(part.id)  # the command of a lost turn
            self._store.parts.update(
                part.id, state=PartState.WAITING, waiting_for=obstacle.thing, reason=obstacle.reason, hint=obstacle.hint,
                due_at=None, lease_until=None, worker="",
            )  # fmt: skip
            if settle:
                self._settle(part.case)
            return False
        now = self._clock.now()
        command = self.command(case, part, turn=part.turn + 1, earlier=earlier)
        try:
            body = _encoded(command)
        except MessageError as error:  # the clock would try again for ever, and to no avail
            reason = f"what the steps before it left is more than a message carries: {error}"
            self._fail(case, part, reason, f"fewer steps or parts in the workflow, then: mqi case rerun {case.key}")
            if settle:
                self._settle(part.case)
            return False
        self._store.parts.update(
            part.id, state=PartState.QUEUED, turn=command.turn, waiting_for="", due_at=None, worker="", hint="",
            reason=f"queued for a worker of {part.lane}", lease_until=now + self._config.daemon.lease,
        )  # fmt: skip
        self._store.messages.put_out(command.id, part=part.id, lane=part.lane, body=body, now=now)
        if settle:
            self._settle(part.case)
        return True

    def earlier(self, case: CaseRow, step: str, *, of_part: bool) -> tuple[Earlier, ...]:
        """Return what the steps before this one left, in their order; for one of its parts, also what its plan left."""
        names = [each.name for each in self._config.workflows[case.workflow].steps]
        found = self._store.parts.finished(case.id, names[: names.index(step) + 1])
        # in their order parts that follow one another take little room in a message
        found.sort(key=lambda done: (names.index(done.step), len(done.part), done.part))
        return tuple(
            Earlier(done.step, done.part, done.attempt, dict(done.facts))
            for done in found
            if done.step != step or (done.plan and of_part)
        )

    def command(
        self, case: CaseRow, part: PartRow, *, turn: int, earlier: tuple[Earlier, ...] | None = None
    ) -> Command:
        """Return the command for a turn of a part, with what earlier steps reported and the GPUs it has."""
        step = self._config.workflows[case.workflow].step(part.step)
        assert step is not None  # noqa: S101  what the config has lost is an obstacle
        if earlier is None:
            earlier = self.earlier(case, part.step, of_part=bool(part.part))
        return Command(
            id=command_id(case.key, part.step, part.part, part.attempt, turn),
            lane=part.lane,
            case=case.key,
            revision=case.revision,
            source=case.source,
            fingerprint=case.fingerprint,
            workflow=case.workflow,
            step=part.step,
            part=part.part,
            attempt=part.attempt,
            turn=turn,
            cancel=part.cancel,
            plan=part.plan,
            facts=dict(part.facts),
            gpus=tuple(GpuLease(gpu.uuid, gpu.number) for gpu in self._store.gpus.leased_by(part.id)),
            earlier=earlier,
            digest=step_digest(step, salt=self._config.key_salt),
            owner=self._store.owner,
            at=self._clock.now(),
        )

    def lease_gpus(self, part: PartRow) -> bool:
        """Lease the GPUs that the part asks for, unless it has them; False when there are not enough free ones.

        Those of a former attempt whose run may still live come first: this attempt ends that run before it begins its own.
        """
        for former in self._unproven(part):
            self._store.gpus.move(former.id, part.id)
        if not part.gpus or (missing := part.gpus - len(self._store.gpus.leased_by(part.id))) <= 0:
            return True
        now = self._clock.now()
        free = [gpu for gpu in self._store.gpus.on(part.host) if is_free(gpu, now=now)]
        if len(free) < missing:
            return False
        self._store.gpus.lease(part.id, [gpu.uuid for gpu in free[:missing]])
        return True

    def _unproven(self, part: PartRow) -> list[PartRow]:
        """Return the former attempts of a part whose runs may live: their places are its own."""
        found = self._store.parts.maybe_alive(part.case)
        return [each for each in found if (each.step, each.part) == (part.step, part.part)]

    def release(self, part: PartRow, *, keep_gpus: bool = False) -> None:
        """Take back what an ended attempt had, and wake who waits for it; not its GPUs while its run may live."""
        self._store.messages.take_back(part.id)
        if not keep_gpus and self._store.gpus.release(part.id, now=self._clock.now()):
            self.wake(f"gpu:{part.host}")
        if part.job:
            self.wake(f"jobs:{part.host}")
        self._moved.add(part.case)

    def settled(self, case: int) -> None:
        """Wake who waits for an end within a case, now that what follows on that end has been added."""
        if case in self._moved:
            self._moved.discard(case)
            self.wake(f"case:{case}")

    def beside(self, case: CaseRow, part: PartRow) -> PartRow | None:
        """Return the part of another step of the case beside which this part must not be worked on; None mostly.

        Who must be alone waits for all that go on or will, or may; but one that must be alone, too, and is not at work
        is in nobody's way: they would wait for each other.
        """
        alone = self._alone(case)
        for step in sorted(alone - {part.step}):
            if other := self._store.parts.at_work(case.id, step):
                return other
        if part.step not in alone:
            return None
        if other := self._store.parts.live_besides(case.id, alone):
            return other
        unproven = self._store.parts.maybe_alive(case.id)
        return next((each for each in unproven if each.step != part.step), None)

    def all_beside(self, case: CaseRow, part: PartRow) -> list[PartRow]:
        """Return all parts of which `beside` returns one."""
        if self.beside(case, part) is None:
            return []
        alone = self._alone(case)
        others = [
            each
            for each in self._store.parts.live_of_case(case.id)
            if each.state is not PartState.WAITING or each.step not in alone
        ]
        if part.step in alone:
            others += self._store.parts.maybe_alive(case.id)
        else:
            others = [each for each in others if each.step in alone]
        return [each for each in others if each.step != part.step]

    def _alone(self, case: CaseRow) -> set[str]:
        workflow = self._config.workflows.get(case.workflow)
        return {step.name for step in workflow.steps if step.stage.alone} if workflow else set()

    def wake(self, thing: str) -> None:
        """Give a turn to those that wait for a thing. Where order counts, stop at the first that can't go on.

        Some at once: a transaction that moves ten thousand would keep everybody else waiting. The clock wakes the others.
        What is to be woken because one that was woken has ended comes after it, not within it: hundreds may end in a row.
        """
        if thing not in self._to_wake:
            self._to_wake.append(thing)
        if self._waking:
            return
        self._waking = True
        try:
            while self._to_wake:
                self._wake(self._to_wake.pop(0))
        finally:
            self._waking, self._to_wake = False, []

    def _wake(self, thing: str) -> None:
        if thing.startswith("case:"):
            for part in self._of_case_waiting(thing)[:WOKEN_AT_ONCE]:
                self.give_turn(part)
            return
        if not thing.startswith(SERVED_IN_ORDER):
            for part in self._store.parts.waiting_for(thing, limit=WOKEN_AT_ONCE):
                self.give_turn(part)
            return
        for _ in range(WOKEN_AT_ONCE):
            first = self._first_for(thing)
            for each in [first] if first else self._store.parts.waiting_for(thing, limit=1):
                self.give_turn(each, in_order=True)  # where nobody can be served, the first says why
                first = self._store.parts.by_id(each.id)
            if first is None or first.waiting_for == thing:
                return

    def _of_case_waiting(self, thing: str) -> list[PartRow]:
        """Return who waits for other steps of his case, last those that must be alone: they wait for the others, too."""
        waiting = self._store.parts.waiting_for(thing)
        alone = self._alone(self._case(waiting[0])) if waiting else set()
        return sorted(waiting, key=lambda each: each.step in alone)

    def stands_open(self, thing: str) -> bool:
        """Whether a thing that parts wait for is there, so that they wait for nothing; a time and a hand come by themselves."""
        kind, _, host = thing.partition(":")
        now = self._clock.now()
        match kind:
            case "drain":
                return not self._store.switches.drain()
            case "host":
                return self._host_obstacle(host) is None
            case "config":
                first = self._store.parts.waiting_for(thing, limit=1)
                return bool(first) and not self._missing(self._case(first[0]), first[0])
            case "case":
                one_of_each = {each.step: each for each in self._store.parts.waiting_for(thing)}
                return any(self.beside(self._case(each), each) is None for each in one_of_each.values())
            case "jobs":
                return (
                    host in self._config.hosts
                    and self._store.parts.jobs_on(host) < self._config.hosts[host].limits.jobs
                )
            case "gpu":
                return any(is_free(gpu, now=now) for gpu in self._store.gpus.on(host))
        return False

    def _first_for(self, thing: str) -> PartRow | None:
        """Return who is served next with a thing.

        Who waits for two GPUs keeps the first that is free from those behind him, else they would starve him. But who
        asks for more than there are to give stands in nobody's way.
        """
        first = self._store.parts.waiting_for(thing, limit=1)
        if not first or self._could_be_served(first[0]):
            return first[0] if first else None
        waiting = self._store.parts.waiting_for(thing, limit=WOKEN_AT_ONCE)
        return next((each for each in waiting if self._could_be_served(each)), None)

    def _could_be_served(self, part: PartRow) -> bool:
        if not part.waiting_for.startswith("gpu:"):
            return True
        now = self._clock.now()
        known = self._store.gpus.on(part.host)
        return sum(gpu.lease is not None or is_free(gpu, now=now) for gpu in known if not gpu.held) >= part.gpus

    def host_failed(
        self, name: str, reason: str, *, hint: str = "", after: float | None = None, full: bool = False
    ) -> None:
        """Pause a host that does not answer, or is `full`; while it is paused already, nothing more happens."""
        now = self._clock.now()
        host = self._store.hosts.get(name)
        if host.state == "paused" and (host.until or 0) > now:
            return
        delay = after or backoff(
            host.failures + 1,
            self._random,
            first=self._config.daemon.retry_first,
            most=min(HOST_PAUSE_MOST, self._config.daemon.retry_most),
        )
        self._store.hosts.update(
            name, state="paused", full=full, reason=reason, hint=hint, until=now + delay,
            failures=host.failures + 1,
        )  # fmt: skip
        if self._store.switches.raise_alert(
            f"host:{name}", text=f"host {name} is paused: {reason}", hint=hint, now=now
        ):
            self._store.events.add(
                at=now, case=None, kind="host", actor="conductor", text=f"host {name} paused: {reason}"
            )

    def host_answers(self, name: str, *, has_room: bool = False) -> None:
        """Take a host into use again and wake who waits for it. That it answers says of a full one nothing."""
        host = self._store.hosts.get(name)
        if (host.state == "up" and not host.failures) or (host.full and not has_room):
            return
        self._store.hosts.update(
            name, state="up", full=False, reason="" if not host.held else host.reason, hint="", until=None, failures=0
        )
        if self._store.switches.clear_alert(f"host:{name}"):
            text = f"host {name} {'has room' if host.full else 'answers'} again"
            self._store.events.add(at=self._clock.now(), case=None, kind="host", actor="conductor", text=text)
        if not host.held:
            self.wake(f"host:{name}")

    def reconcile_gpus(self, host: str) -> None:
        """Give free the GPUs whose part has ended without giving them back.

        No transaction of ours leaves such a lease; a state database that was restored or mended by hand may. A part
        that has just ended is left its time, and one whose run may live keeps what it has.
        """
        now = self._clock.now()
        for gpu in self._store.gpus.leased_on(host):
            part = self._store.parts.by_id(gpu.lease) if gpu.lease is not None else None
            if part is None or part.state in PART_LIVE or part.waiting_for == END_UNPROVEN:
                continue
            if now - (part.ended_at or 0.0) > LEASE_GRACE:
                self._store.gpus.release(part.id, now=now)
                text = f"GPU {gpu.number} of {host} was leased to a part that has ended: it is free again"
                self._store.events.add(at=now, case=None, kind="gpu", actor="conductor", text=text)

    def forget_hosts(self) -> None:
        """Forget what was seen of hosts that the config no longer has. What an operator held back stays held back."""
        known = {row.name for row in self._store.hosts.all()} | {gpu.host for gpu in self._store.gpus.all()}
        for host in sorted(known - set(self._config.hosts)):
            self._store.gpus.forget(host)
            self._store.hosts.forget(host)

    def probe(self, name: str) -> None:
        """Let one part find out whether a paused host answers again; with nobody waiting, assume that it does."""
        waiting = self._store.parts.waiting_for(f"host:{name}", limit=1)
        if not waiting:
            self.host_answers(name, has_room=True)
            return
        self._store.hosts.update(name, state="probing", until=self._clock.now() + 2 * self._config.daemon.lease)
        self.give_turn(waiting[0], probe=True)

    def _obstacle(self, case: CaseRow, part: PartRow, *, in_order: bool, probe: bool) -> Obstacle | None:
        begun = part.turn > 0 or part.cancel
        if missing := self._missing(case, part):
            return Obstacle("config", f"the config has no {missing} any more", "add it again, then: mqi daemon reload")
        if not case.source:
            return Obstacle(
                "hand", "it lies outside every source: its steps are run by hand", f"mqi case show {case.key}"
            )
        if not begun and case.paused:
            return Obstacle("pause", "paused by an operator", f"mqi case resume {case.key}")
        if not begun and (drain := self._store.switches.drain()):
            return Obstacle("drain", f"no new work is begun: {drain}", "mqi daemon undrain")
        if other := self.beside(case, part):
            return Obstacle(
                f"case:{case.id}",
                f"{other.title} of this case goes on, or may",
                ends_doubt(case, other) if other.waiting_for == END_UNPROVEN else f"mqi case show {case.key}",
            )
        if part.host and not probe and (obstacle := self._host_obstacle(part.host)):
            return obstacle
        if not begun and part.job and (obstacle := self._jobs_obstacle(part, in_order=in_order)):
            return obstacle
        if not begun and part.gpus and (obstacle := self._gpu_obstacle(part, in_order=in_order)):
            return obstacle
        return None

    def _missing(self, case: CaseRow, part: PartRow) -> str:
        """Name what the part needs and the config has lost since the case was begun; empty when all is there."""
        workflow = self._config.workflows.get(case.workflow)
        if workflow is None:
            return f"workflow {case.workflow}"
        if workflow.step(part.step) is None:
            return f"step {part.step} in workflow {case.workflow}"
        return f"host {part.host}" if part.host and part.host not in self._config.hosts else ""

    def _host_obstacle(self, name: str) -> Obstacle | None:
        host = self._store.hosts.get(name)
        if host.held:
            return Obstacle(f"host:{name}", f"host {name} is paused by an operator", f"mqi host resume {name}")
        if host.state != "up":
            return Obstacle(
                f"host:{name}", f"host {name} is paused: {host.reason}", host.hint or f"mqi host test {name}"
            )
        return None

    def _jobs_obstacle(self, part: PartRow, *, in_order: bool) -> Obstacle | None:
        thing = f"jobs:{part.host}"
        limit = self._config.hosts[part.host].limits.jobs
        running = self._store.parts.jobs_on(part.host, besides=part)
        if (running < limit and (in_order or not self._overtakes(part, thing))) or self._unproven(part):
            return None
        return Obstacle(thing, f"host {part.host} runs {running} of {limit} jobs")

    def _gpu_obstacle(self, part: PartRow, *, in_order: bool) -> Obstacle | None:
        thing = f"gpu:{part.host}"
        # only the next attempt can end a run of unknown fate: it must not wait behind those who wait for its GPU
        if (in_order or self._unproven(part) or not self._overtakes(part, thing)) and self.lease_gpus(part):
            return None
        return self.lack_of_gpus(part)

    def lack_of_gpus(self, part: PartRow) -> Obstacle:
        """Say why a part can't have the GPUs that it asks for."""
        thing = f"gpu:{part.host}"
        now = self._clock.now()
        known = self._store.gpus.on(part.host)
        looked = max((gpu.seen_at for gpu in known), default=now)
        if now - looked > LOOK_VALID:
            reason = f"the last look at the GPUs of {part.host} is {age(now - looked)} old"
            return Obstacle(thing, reason, "mqi daemon status")
        free = sum(is_free(gpu, now=now) for gpu in known)
        there = f"{free} of {len(known)} free" if known else "none was found there"
        reason = f"waits for {counted(part.gpus, 'GPU')} on {part.host}: {there}"
        if known and part.gpus > len(known):
            reason = f"it asks for {counted(part.gpus, 'GPU')}, and {part.host} has {len(known)}"
        return Obstacle(thing, reason, "mqi gpu list")

    def _overtakes(self, part: PartRow, thing: str) -> bool:
        first = self._first_for(thing)
        return first is not None and first.id != part.id and _rank(first) < _rank(part)

    def _case(self, part: PartRow) -> CaseRow:
        case = self._store.cases.by_id(part.case)
        assert case is not None  # noqa: S101  a foreign key holds it
        return case


def _rank(part: PartRow) -> tuple[int, int]:
    """Return a part's place among those that wait for one thing: priority, then first come."""
    return -part.priority, part.id


def _encoded(command: Command) -> bytes:
    """Return a command as bytes; where many parts reported much, without what the others' reports say."""
    try:
        return encode(command)
    except MessageError:
        known = [each if each.part in ("", command.part) else replace(each, facts={}) for each in command.earlier]
        return encode(replace(command, earlier=tuple(known)))


def ends_doubt(case: CaseRow, part: PartRow) -> str:
    """Name the command that proves a run over whose fate nobody knows."""
    return f"mqi exec kill {case.key} {part.step}" + (f" --part {part.part}" if part.part else "")


def is_free(gpu: GpuRow, *, now: float) -> bool:
    """Whether a GPU can be given away: there, looked at of late, not held back, not leased, nobody else computes on it.

    Processes that were seen before the last lease ended were that lease's own and don't count, unless they were foreign.
    """
    stale = gpu.freed_at is not None and gpu.freed_at >= gpu.seen_at and not gpu.foreign
    looked_at = now - gpu.seen_at <= LOOK_VALID
    return gpu.present and looked_at and not gpu.held and gpu.lease is None and (stale or not gpu.processes)
