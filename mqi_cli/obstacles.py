"""What is in the way of a part's next turn, and the GPUs that are leased for it. Called in a transaction of the conductor.

A part that may not go on waits *for a thing*, written in `waiting_for`:

    time  turn  pause  drain  hand  config  case:<id>  host:<name>  jobs:<host>  gpu:<host>

`turn` is a stage's own `Wait`; `time` a back-off. `hand` is for cases outside every source, which only an operator moves.
`config` is for what the config no longer has; a conductor that starts with another config asks again. `case` is for a
step of the same case beside which this one must not be worked on.
Only an attempt that has not begun waits for pause, drain, jobs and GPUs: what runs on a host goes on being looked after.
"""

from __future__ import annotations

from dataclasses import dataclass

from mqi_cli.case import PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.quantity import age, counted
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, GpuRow, PartRow

LOOK_VALID = 600.0  # seconds; a GPU not looked at for so long (the curator does every 30 s) may be taken by anybody
LOOKED_THROUGH = 200  # who waits in a line, to find one that could be served


@dataclass(frozen=True)
class Obstacle:
    """Why a part can't have its turn now."""

    thing: str
    reason: str
    hint: str = ""


class Obstacles:
    """Says what a part waits for, and whether a thing that is waited for is there."""

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock

    def of(self, case: CaseRow, part: PartRow, *, in_order: bool, probe: bool) -> Obstacle | None:
        """Return what is in the way of a part's next turn; None, and its GPUs are leased, where nothing is.

        `in_order` is for who was called up from a line; `probe` for who is to find out whether his host answers again.
        """
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
        if (running < limit and (in_order or not self._overtakes(part, thing))) or self.unproven(part):
            return None
        reason, doubted = f"host {part.host} runs {running} of {limit} jobs", self._store.parts.doubted_on(part.host)
        if not doubted:
            return Obstacle(thing, reason)
        return Obstacle(
            thing,
            f"{reason}, and of {len(doubted)} nobody knows whether it has ended",
            ends_doubt(self._case(doubted[0]), doubted[0]),
        )

    def _gpu_obstacle(self, part: PartRow, *, in_order: bool) -> Obstacle | None:
        thing = f"gpu:{part.host}"
        # only the next attempt can end a run of unknown fate: it must not wait behind those who wait for its GPU
        if (in_order or self.unproven(part) or not self._overtakes(part, thing)) and self.lease_gpus(part):
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
        first = self.first_for(thing)
        return first is not None and first.id != part.id and _rank(first) < _rank(part)

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

    def first_for(self, thing: str) -> PartRow | None:
        """Return who is served next with a thing.

        Who waits for two GPUs keeps the first that is free from those behind him, else they would starve him. But who
        asks for more than there are to give stands in nobody's way.
        """
        first = self._store.parts.waiting_for(thing, limit=1)
        if not first or self._could_be_served(first[0]):
            return first[0] if first else None
        waiting = self._store.parts.waiting_for(thing, limit=LOOKED_THROUGH)
        return next((each for each in waiting if self._could_be_served(each)), None)

    def _could_be_served(self, part: PartRow) -> bool:
        if not part.waiting_for.startswith("gpu:"):
            return True
        now = self._clock.now()
        known = self._store.gpus.on(part.host)
        return sum(gpu.lease is not None or is_free(gpu, now=now) for gpu in known if not gpu.held) >= part.gpus

    def beside(self, case: CaseRow, part: PartRow) -> PartRow | None:
        """Return the part of another step of the case beside which this part must not be worked on; None mostly.

        Who must be alone waits for all that go on or will, or may; but one that must be alone, too, and is not at work
        is in nobody's way: they would wait for each other.
        """
        alone = self.alone(case)
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
        alone = self.alone(case)
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

    def alone(self, case: CaseRow) -> set[str]:
        """Return the steps of a case beside which none of its other steps is worked on."""
        workflow = self._config.workflows.get(case.workflow)
        return {step.name for step in workflow.steps if step.stage.alone} if workflow else set()

    def lease_gpus(self, part: PartRow) -> bool:
        """Lease the GPUs that the part asks for, unless it has them; False when there are not enough free ones.

        Those of a former attempt whose run may still live come first: this attempt ends that run before it begins its own.
        """
        for former in self.unproven(part):
            self._store.gpus.move(former.id, part.id)
        if not part.gpus or (missing := part.gpus - len(self._store.gpus.leased_by(part.id))) <= 0:
            return True
        now = self._clock.now()
        free = [gpu for gpu in self._store.gpus.on(part.host) if is_free(gpu, now=now)]
        if len(free) < missing:
            return False
        self._store.gpus.lease(part.id, [gpu.uuid for gpu in free[:missing]])
        return True

    def unproven(self, part: PartRow) -> list[PartRow]:
        """Return the former attempts of a part whose runs may live: their places are its own."""
        found = self._store.parts.maybe_alive(part.case)
        return [each for each in found if (each.step, each.part) == (part.step, part.part)]

    def _case(self, part: PartRow) -> CaseRow:
        case = self._store.cases.by_id(part.case)
        assert case is not None  # noqa: S101  a foreign key holds it
        return case


def _rank(part: PartRow) -> tuple[int, int]:
    """Return a part's place among those that wait for one thing: priority, then first come."""
    return -part.priority, part.id


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
