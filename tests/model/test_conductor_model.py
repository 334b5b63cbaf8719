"""The conductor against a plain model: whatever is lost, repeated, late or killed, each case is where it should be.

A machine of hypothesis plays workers, operator, host and clock, and compares after each act; it ends by letting everything
go well for a while: then every case must come to its end. A failure is printed as the shortest list of acts that brings it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model import model, promises
from model.far_side import FarSide
from model.wires import ListBroker, ListLanes
from model.world import HOST, LANES, World
from mqi_cli.broker.base import Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.errors import UsageError
from mqi_cli.message import EVENTS_LANE, TURN_ENDS, Command, Event, EventKind, decode, encode, event_id
from mqi_cli.patrol import GpuSeen, GpusSeen, HostSeen
from mqi_cli.testing import FakeClock

CASES = 3
GPUS = ("GPU-1", "GPU-2", "GPU-3")  # one more than the host takes jobs; the operator may hold them
PART_STATES = {"queued": "asked", "waiting": "waits"}

HOW = ("waits", "retry", "gives up", "bug", "host down", "other config")  # and "well": how a worker's turn ends
crashes = st.one_of(st.none(), st.integers(0, 9))  # at which durable point the process dies
MISHAPS = (
    "a worker dies",
    "a worker dies after its work",
    "a report is lost",
    "a report comes again",
    "a command comes again",
    "a lane is purged",
)
which = st.integers(0, 5)
seconds = st.sampled_from([6, 25, 61, 130, 400])


class Turn:
    """A command in a worker's hands."""

    def __init__(self, command: Command, worker: str) -> None:
        self.command = command
        self.worker = worker
        self.told = 0

    def event(self, kind: EventKind, data: dict[str, Any]) -> Event:
        """Return the worker's next report."""
        self.told += 1
        command = self.command
        return Event(
            event_id(command.id, kind, self.told), kind, self.worker, 0.0, command.case, command.step, command.part,
            command.attempt, command.turn, data,
        )  # fmt: skip


class ConductorMachine(RuleBasedStateMachine):
    """Plays everything around the conductor."""

    def connect(self, directory: Path, clock: FakeClock) -> Any:
        """Open a connection to the broker."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.connect)
        self.far = FarSide()
        self.cases: dict[str, model.Case] = {}
        self.marks: dict[Any, tuple[int, int]] = {}
        self.seen: set[str] = set()
        self.hands: list[Turn] = []
        self.air: list[Event] = []  # reports on their way
        self.sent: list[Event] = []  # every report that arrived
        self.commands: list[Command] = []  # every command that a worker took
        self.workers = 0

    # ---- a case comes; commands go to workers ----

    @initialize(reached=st.lists(st.integers(0, 3), min_size=1, max_size=CASES))
    def cases_have_come(self, reached: list[int]) -> None:
        """Let cases come, and each go well for some turns: it is to be uploaded, to run, to be looked after, to be filed."""
        self.see_gpus()
        for turns in reached:
            self.a_case_comes(None)
            for _ in range(turns):
                self.world.clock.turn(6)
                self.world.turn()
                for lane in self.lanes():
                    self.turned(lane, "well")
                if turns == 3:
                    self.runs_end()

    @precondition(lambda self: len(self.cases) < CASES)
    @rule(crash=crashes)
    def a_case_comes(self, crash: int | None) -> None:
        name = f"case-{len(self.cases) + 1}"
        self.world.find(self.world.complete_case(name), crash)
        row = self.world.store.cases.newest("in", name)
        assert row is not None
        self.cases[row.key] = model.new_case()
        self.world.turn()

    @precondition(lambda self: self.lanes())
    @rule(number=which, dies=st.sampled_from(["", "", "at once", "once it has accepted", "once it has acknowledged"]))
    def a_worker_takes(self, number: int, dies: str) -> None:
        self.taken(self.lane(number), dies)

    def lanes(self) -> list[str]:
        """Return the lanes that hold a command."""
        return [lane for lane in sorted(LANES.values()) if self.world.workers.depth(lane).ready]

    def lane(self, number: int) -> str:
        """Choose one of them."""
        return self.lanes()[number % len(self.lanes())]

    def taken(self, lane: str, dies: str = "") -> Turn | None:
        """Let a worker take a lane's next command and accept it."""
        delivery = self.world.workers.take(lane, timeout=0)
        if delivery is None:
            return None
        if dies == "at once":
            self.world.workers.reject(delivery, reason="", requeue=True)
            return None
        command = decode(delivery.body)
        assert isinstance(command, Command)
        self.commands.append(command)
        self.workers += 1
        turn = Turn(command, f"w{self.workers}")
        self.air.append(turn.event(EventKind.ACCEPTED, {}))
        if dies == "once it has accepted":
            self.world.workers.reject(delivery, reason="", requeue=True)
            return None
        self.world.workers.ack(delivery)
        if not dies:
            self.hands.append(turn)
        return turn

    @precondition(lambda self: self.hands)
    @rule(number=which, how=st.one_of(st.just("well"), st.sampled_from(["progress", "remembers", *HOW])))
    def a_worker_works(self, number: int, how: str) -> None:
        turn = self.hands[number % len(self.hands)]
        kind, data = self.performed(turn, how)
        self.air.append(turn.event(kind, data))
        if kind in TURN_ENDS:
            self.hands.remove(turn)

    def performed(self, turn: Turn, how: str) -> tuple[EventKind, dict[str, Any]]:
        """Do what a stage does, and say what the worker reports."""
        command = turn.command
        plain = {"reason": how, "hint": "", "after": None, "host": ""}
        match how:
            case "progress":
                return EventKind.PROGRESS, {"done": 1, "total": 2, "unit": "files"}
            case "remembers":
                return EventKind.REMEMBERED, {"facts": {turn.worker: turn.told}}
            case "bug":
                if command.step == model.JOB:
                    self.run_turn(command)
                return EventKind.BUG, {"reason": "ValueError", "traceback": "somewhere"}
            case "host down" if command.step != "archive":
                return EventKind.RETRY, plain | {"host": HOST}
            case "other config":
                return EventKind.WAIT, {"seconds": 10.0, "note": "its config says otherwise"}
        if command.step == model.JOB:
            return self.run_turn(command)
        match how:
            case "waits":
                return EventKind.WAIT, {"seconds": 5.0, "note": "later"}
            case "retry":
                return EventKind.RETRY, plain
            case "gives up":
                return EventKind.GAVE_UP, plain
        return EventKind.DONE, {"facts": {"by": turn.worker}}

    def run_turn(self, command: Command) -> tuple[EventKind, dict[str, Any]]:
        """Do what the stage `run` does: nothing ends it but what is proven on the far side."""
        part = (command.case, command.step, command.part)
        if command.cancel:
            self.far.kill(part, command.attempt)
            return EventKind.CANCELLED, {"note": "ended"}
        if not self.far.look(part, command.attempt) and not command.gpus:
            return EventKind.RETRY, {"reason": "it was given no GPU", "hint": "", "after": None, "host": ""}
        match self.far.submit(part, command.attempt, {gpu.uuid for gpu in command.gpus}):
            case "well":
                return EventKind.DONE, {"facts": {"exit": 0}}
            case "busy":
                self.far.kill(part, command.attempt - 1)
                return EventKind.WAIT, {"seconds": 2.0, "note": "an earlier run is ended first"}
            case "lives":
                return EventKind.WAIT, {"seconds": 5.0, "note": "it runs"}
            case "lost":
                return EventKind.RETRY, {"reason": "it vanished", "hint": "", "after": None, "host": ""}
        return EventKind.GAVE_UP, {"reason": "exit code 1", "hint": ""}

    @precondition(lambda self: self.far.living())
    @rule(number=which, end=st.sampled_from(["well", "badly", "lost"]))
    def a_run_ends(self, number: int, end: str) -> None:
        living = self.far.living()
        part, attempt, _ = living[number % len(living)]
        self.far.end(part, attempt, end)

    def runs_end(self) -> None:
        """Let all runs end well."""
        for part, attempt, _ in self.far.living():
            self.far.end(part, attempt, "well")

    # ---- reports come, twice, late, or never ----

    @precondition(lambda self: self.air)
    @rule(number=which, crash=crashes)
    def a_report_comes(self, number: int, crash: int | None) -> None:
        self.delivered(self.air.pop(number % len(self.air)), crash=crash)

    @precondition(lambda self: len(self.air) > 1)
    @rule(crash=crashes)
    def all_reports_come_at_once(self, crash: int | None) -> None:
        events, self.air = self.air, []
        self.delivered(*events, crash=crash)

    @rule(what=st.sampled_from(MISHAPS), number=st.integers(0, 30), crash=crashes)
    def a_mishap(self, what: str, number: int, crash: int | None) -> None:
        match what:
            case "a worker dies" if self.hands:
                self.hands.pop(number % len(self.hands))
            case "a worker dies after its work" if self.hands:
                self.performed(self.hands.pop(number % len(self.hands)), "well")  # and could not say so
            case "a report is lost" if self.air:
                self.air.pop(number % len(self.air))
            case "a report comes again" if self.sent:
                self.delivered(self.sent[number % len(self.sent)], crash=crash)
            case "a command comes again" if self.commands:
                command = self.commands[number % len(self.commands)]
                self.world.workers.publish([Outgoing(command.lane, command.id, encode(command))])
            case "a lane is purged" if self.lanes():
                lane = self.lane(number)
                while delivery := self.world.workers.take(lane, timeout=0):
                    self.world.workers.ack(delivery)

    def delivered(self, *events: Event, crash: int | None = None) -> None:
        """Bring reports to the conductor and change the model as it must change."""
        self.every_case_is_where_the_model_has_it()
        before, late = self.world.stand(), True
        self.world.workers.publish([Outgoing(EVENTS_LANE, event.id, encode(event)) for event in events])
        self.world.turn(crash)
        for event in events:
            case = self.cases[event.case]
            if model.counts(case, self.seen, event):
                model.apply(case, event)
                late = False
            if event.kind is not EventKind.PROGRESS:
                self.seen.add(event.id)
        if late:
            assert self.world.stand() == before, f"events of the past changed something: {events}"
        assert not self.world.workers.dead(EVENTS_LANE), "a report was refused"
        self.sent += events

    @precondition(lambda self: self.lanes())
    @rule(number=which, how=st.one_of(st.just("well"), st.sampled_from(HOW)), crash=crashes)
    def a_whole_turn(self, number: int, how: str, crash: int | None) -> None:
        self.turned(self.lane(number), how, crash)

    @precondition(lambda self: self.lanes())
    @rule(runs_end=st.booleans())
    def work_goes_on(self, runs_end: bool) -> None:
        if runs_end:
            self.runs_end()
        for lane in self.lanes():
            self.turned(lane, "well")
        self.world.clock.turn(6)
        self.world.turn()

    def turned(self, lane: str, how: str, crash: int | None = None) -> None:
        """Let a worker take a command, do it, and report it, and let both reports come."""
        turn = self.taken(lane)
        if turn is not None:
            self.hands.remove(turn)
            self.delivered(self.air.pop())
            self.delivered(turn.event(*self.performed(turn, how)), crash=crash)

    # ---- time ----

    @rule(by=seconds, conductor=st.booleans(), jump=st.sampled_from([0, 0, 0, -86_400, -3600, 3600, 86_400]))
    def time_goes_oddly(self, by: int, conductor: bool, jump: int) -> None:
        if not conductor:
            self.world.away(by)
        self.world.clock.jump(jump)
        self.world.turn()

    @rule(by=seconds, crash=crashes)
    def time_passes(self, by: int, crash: int | None) -> None:
        self.world.clock.turn(by)
        self.world.turn(crash)

    # ---- the operator, the host, its GPU ----

    @precondition(lambda self: self.cases)
    @rule(act=st.sampled_from(["retry", "rerun", "pause", "resume", "cancel", "priority"]), number=which, crash=crashes)
    def the_operator_acts(self, act: str, number: int, crash: int | None) -> None:
        key = sorted(self.cases)[number % len(self.cases)]
        case, row = self.cases[key], self.world.store.cases.by_key(key)
        assert row is not None
        before = self.world.stand()
        try:
            if act == "priority":
                self.world.act(lambda acts: acts.set_priority(row.id, number), crash)
            else:
                self.world.act(lambda acts: getattr(acts, act)(row.id), crash)
        except UsageError as refusal:
            assert refusal.message
            assert self.world.stand() == before, "a refused act changed something"
        else:
            if self.world.stand() != before:  # else it was killed before it was durable
                self.acted(act, case)
        self.world.turn()

    def acted(self, act: str, case: model.Case) -> None:
        """Change the model as the operator's act must change it."""
        match act:
            case "retry":
                model.retried(case)
            case "rerun":
                model.rerun(case)
            case "cancel":
                model.cancelled(case)
            case "pause" | "resume":
                case["paused"] = act == "pause"

    @rule(what=st.sampled_from(["drain", "host", *GPUS]), off=st.booleans())
    def the_operator_switches(self, what: str, off: bool) -> None:
        self.switched(what, off=off)

    def switched(self, what: str, *, off: bool) -> None:
        """Let the operator drain the installation, pause the host, hold a GPU; or end that."""
        if what == "drain":
            self.world.act(lambda acts: acts.drain("power cut at noon" if off else ""))
        elif what == "host":
            self.world.act(lambda acts: acts.hold_host(HOST, "") if off else acts.release_host(HOST))
        else:
            self.world.act(lambda acts: acts.hold_gpu(what, held=off))
        self.world.turn()

    @rule(what=st.sampled_from(["the host answers", "the host is down", "the GPUs", "foreign work", "one GPU is gone"]),
          crash=crashes)  # fmt: skip
    def the_curator_sees(self, what: str, crash: int | None) -> None:
        if "host" in what:
            up = what == "the host answers"
            self.world.find(HostSeen(HOST, up, problem="" if up else "no route"), crash)
        else:
            self.see_gpus(foreign=what == "foreign work", gone=what == "one GPU is gone")
        self.world.turn()

    def see_gpus(self, *, foreign: bool = False, gone: bool = False) -> None:
        """Let the curator see the GPUs, with the processes of our own runs and of others."""
        busy = {uuid for _, _, gpus in self.far.living() for uuid in gpus} | ({GPUS[0]} if foreign else set())
        seen = [GpuSeen(uuid, n, processes=(7,) if uuid in busy else ()) for n, uuid in enumerate(GPUS)]
        self.world.find(GpusSeen(HOST, tuple(seen[:-1] if gone else seen)))

    # ---- what must be true after each act ----

    @invariant()
    def every_case_is_where_the_model_has_it(self) -> None:
        for key, case in self.cases.items():
            row = self.world.store.cases.by_key(key)
            assert row is not None
            for (step, name), part in case["parts"].items():
                found = self.world.store.parts.latest(row.id, step, name)
                assert found is not None
                assert found.attempt == part["attempt"], f"{step} is at attempt {found.attempt}, not {part['attempt']}"
                wrong = model.took_over(
                    case, (step, name), turn=found.turn, state=PART_STATES.get(found.state, str(found.state))
                )
                assert not wrong, f"{step}, attempt {found.attempt}: {wrong}"
                assert dict(found.facts) == part["facts"]
            state = str(row.state) if row.state in ("held", "done", "cancelled") else "moving"
            assert state == case["state"], f"the case should be {case['state']}, and is {row.state}: {row.reason}"
            assert (row.step, row.paused, row.cancelling) == (case["step"], case["paused"], case["cancelling"])
            told = [each for each in self.world.store.events.of_case(row.id) if each.kind == "case-done"]
            assert len(told) == case["cases_done"]

    @invariant()
    def every_promise_holds(self) -> None:
        promises.check(self.world, self.far, self.marks)

    # ---- the end: once everything goes well, every case ends ----

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.everything_goes_well()
        finally:
            self.world.close()

    def everything_goes_well(self) -> None:
        """Mend all, deliver all, and let time pass until nothing moves any more."""
        for what in ("drain", "host", *GPUS):
            self.switched(what, off=False)
        for key, case in sorted(self.cases.items()):
            row = self.world.store.cases.by_key(key)
            if row and case["paused"]:
                self.world.act(lambda acts, row=row: acts.resume(row.id))
                case["paused"] = False
        self.world.turn()
        self.hands.clear()  # their leases will end
        for _ in range(60):
            while self.air:
                self.a_report_comes(0, None)
            for lane in sorted(LANES.values()):
                self.turned(lane, "well")
            self.runs_end()
            self.see_gpus()
            self.time_passes(61, None)
            self.every_case_is_where_the_model_has_it()
            self.every_promise_holds()
            if all(case["state"] != "moving" for case in self.cases.values()) and not self.air:
                break
        moving = [key for key, case in self.cases.items() if case["state"] == "moving"]
        assert not moving, f"{len(moving)} cases do not come to an end: {self.world.stand()}"
        assert not self.world.rows("SELECT message FROM outbox")


class OverAList(ConductorMachine):
    """Commands and events go through lists: as fast as it gets, and repeats come twice, as with RabbitMQ."""

    def connect(self, directory: Path, clock: FakeClock) -> Any:
        """Open a connection to the lists."""
        del directory, clock
        if not hasattr(self, "lists"):
            self.lists = ListLanes()
        return ListBroker(self.lists)


class OverTheEmbeddedQueue(ConductorMachine):
    """Commands and events go through the embedded queue's real file."""

    def connect(self, directory: Path, clock: FakeClock) -> Any:
        """Open the queue."""
        return EmbeddedBroker(directory / "queue.db", clock=clock)


def _settings(examples: int, steps: int, *, fixed: bool) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, derandomize=fixed, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip


@pytest.mark.timeout(600)
class TestOverAList(OverAList.TestCase):  # type: ignore[misc,name-defined]
    """The same examples each time, few enough for every change."""

    settings = _settings(30, 50, fixed=True)


@pytest.mark.timeout(600)
class TestOverTheEmbeddedQueue(OverTheEmbeddedQueue.TestCase):  # type: ignore[misc,name-defined]
    """The same examples each time, few enough for every change."""

    settings = _settings(6, 40, fixed=True)


@pytest.mark.soak
class TestOverAListForLong(OverAList.TestCase):  # type: ignore[misc,name-defined]
    """Many more examples, others each time."""

    settings = _settings(4000, 120, fixed=False)


@pytest.mark.soak
class TestOverTheEmbeddedQueueForLong(OverTheEmbeddedQueue.TestCase):  # type: ignore[misc,name-defined]
    """Many more examples, others each time."""

    settings = _settings(400, 100, fixed=False)
