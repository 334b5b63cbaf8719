"""The conductor against a plain model: whatever is lost, repeated, late or killed, each case is where it should be.

A machine of hypothesis plays workers, operator, host and clock, and compares after each act; it ends by letting everything
go well for a while: then every case must come to its end. A failure is printed as the shortest list of acts that brings it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model import model, promises
from model.far_side import FarSide
from model.wires import ListBroker, ListLanes
from model.workers import HOW, Turn
from model.world import FANS_OUT, HOST, LANES, PLAIN, World
from mqi_cli.acts import Acts
from mqi_cli.broker.base import Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.errors import UsageError
from mqi_cli.message import EVENTS_LANE, TURN_ENDS, Command, Event, EventKind, decode, encode
from mqi_cli.patrol import GpuSeen, GpusSeen, HostSeen
from mqi_cli.testing import FakeClock

CASES = 3
GPUS = ("GPU-1", "GPU-2", "GPU-3")  # one more than the host takes jobs; the operator may hold them
PART_STATES = {"queued": "asked", "waiting": "waits"}

crashes = st.one_of(st.none(), st.integers(0, 9))  # at which durable point the process dies
MISHAPS = (
    "a worker dies",
    "a worker dies after its work",
    "a report is lost",
    "a report comes again",
    "a command comes again",
    "a lane is purged",
)
SIGHTS = ("the GPUs", "foreign work", "work of whoever it is", "one GPU is gone", "the GPUs renumbered")
which = st.integers(0, 5)
seconds = st.sampled_from([6, 25, 61, 130, 400])


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
        self.marks = promises.Marks()
        self.seen: set[str] = set()
        self.hands: list[Turn] = []
        self.air: list[Event] = []  # reports on their way
        self.sent: list[Event] = []  # every report that arrived
        self.commands: list[Command] = []  # every command that a worker took
        self.workers = 0

    # ---- a case comes; commands go to workers ----

    @initialize(reached=st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=CASES))
    def cases_have_come(self, reached: list[tuple[bool, int]]) -> None:
        """Let cases come, with parts or without, and each go well for some turns: it is to be uploaded, to be planned where
        it has parts, to run, to be looked after, to be filed.
        """
        self.see_gpus()
        for fans_out, turns in reached:
            self.a_case_comes(fans_out, None)
            for _ in range(turns):
                self.world.clock.turn(6)
                self.world.turn()
                self.each_lane_works()
                if turns == 3 + fans_out:
                    self.runs_end()

    @precondition(lambda self: len(self.cases) < CASES)
    @rule(fans_out=st.booleans(), crash=crashes)
    def a_case_comes(self, fans_out: bool, crash: int | None) -> None:
        name, source = f"case-{len(self.cases) + 1}", FANS_OUT if fans_out else PLAIN
        self.world.find(self.world.complete_case(source, name), crash)
        row = self.world.store.cases.newest(source, name)
        assert row is not None
        self.cases[row.key] = model.new_case(fans_out=fans_out)
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
        kind, data = turn.perform(how, self.far)
        self.air.append(turn.event(kind, data))
        if kind in TURN_ENDS:
            self.hands.remove(turn)

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
                self.hands.pop(number % len(self.hands)).perform("well", self.far)  # and could not say so
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
        self.each_lane_works()
        self.world.clock.turn(6)
        self.world.turn()

    def each_lane_works(self) -> None:
        """Let every command that is out now have a turn that goes well."""
        out = [(lane, self.world.workers.depth(lane).ready) for lane in self.lanes()]
        for lane, commands in out:
            for _ in range(commands):
                self.turned(lane, "well")

    def turned(self, lane: str, how: str, crash: int | None = None) -> None:
        """Let a worker take a command, do it, and report it, and let both reports come."""
        turn = self.taken(lane)
        if turn is not None:
            self.hands.remove(turn)
            self.delivered(self.air.pop())
            self.delivered(turn.event(*turn.perform(how, self.far)), crash=crash)

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
        case, values = self.cases[key], (number,) if act == "priority" else ()
        does = {
            "retry": model.retried, "rerun": model.rerun, "cancel": model.cancelled,
            "pause": lambda case: case.update(paused=True), "resume": lambda case: case.update(paused=False),
        }.get(act, lambda case: None)  # fmt: skip
        name = "set_priority" if act == "priority" else act
        if self.operated(key, lambda acts, identity: getattr(acts, name)(identity, *values), crash):
            does(case)

    @precondition(lambda self: any(case["fans_out"] for case in self.cases.values()))
    @rule(act=st.sampled_from(["retry", "cancel"]), number=which, part=st.sampled_from(["1", "2", "3"]), crash=crashes)
    def the_operator_acts_on_a_part(self, act: str, number: int, part: str, crash: int | None) -> None:
        keys = [key for key, case in sorted(self.cases.items()) if case["fans_out"]]
        key = keys[number % len(keys)]
        if self.operated(key, lambda acts, identity: getattr(acts, act)(identity, part=part), crash):
            (model.retried if act == "retry" else model.part_cancelled)(self.cases[key], part)

    def operated(self, key: str, act: Callable[[Acts, int], object], crash: int | None) -> bool:
        """Let an operator do something to a case; say whether it was done."""
        row = self.world.store.cases.by_key(key)
        assert row is not None
        before, done = self.world.stand(), False
        try:
            self.world.act(lambda acts: act(acts, row.id), crash)
            done = self.world.stand() != before  # else it was killed before it was durable
        except UsageError as refusal:
            assert refusal.message
            assert self.world.stand() == before, "a refused act changed something"
        self.world.turn()
        return done

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

    @rule(what=st.sampled_from(["the host answers", "the host is down", *SIGHTS]), crash=crashes)
    def the_curator_sees(self, what: str, crash: int | None) -> None:
        if "host" in what:
            up = what == "the host answers"
            self.world.find(HostSeen(HOST, up, problem="" if up else "no route"), crash)
        else:
            self.see_gpus(what)
        self.world.turn()

    def see_gpus(self, what: str = "the GPUs") -> None:
        """Let the curator see the GPUs, with the processes of our own runs and of others."""
        busy = {uuid for _, _, gpus in self.far.living() for uuid in gpus}
        numbers = range(len(GPUS), 0, -1) if what == "the GPUs renumbered" else range(len(GPUS))
        seen = [
            GpuSeen(uuid, number, processes=(7,) * (uuid in busy)) for uuid, number in zip(GPUS, numbers, strict=True)
        ]
        if what in ("foreign work", "work of whoever it is"):
            foreign = (9,) if what == "foreign work" else ()
            seen[0] = replace(seen[0], processes=(*seen[0].processes, 9), foreign=foreign)
        self.world.find(GpusSeen(HOST, tuple(seen[:-1] if what == "one GPU is gone" else seen)))

    # ---- what must be true after each act ----

    @invariant()
    def every_case_is_where_the_model_has_it(self) -> None:
        parts = sorted(self.world.parts(), key=lambda each: each.attempt)
        ends = Counter(case for (case,) in self.world.rows("SELECT case_id FROM event WHERE kind = 'case-done'"))
        for key, case in self.cases.items():
            row = self.world.store.cases.by_key(key)
            assert row is not None
            newest = {(each.step, each.part): each for each in parts if each.case == row.id}
            assert newest.keys() == case["parts"].keys()
            for name, part in list(case["parts"].items()):
                found, title = newest[name], "/".join(name)
                assert found.attempt == part["attempt"], f"{title} is at attempt {found.attempt}, not {part['attempt']}"
                wrong = model.took_over(
                    case, name, turn=found.turn, state=PART_STATES.get(found.state, str(found.state))
                )  # fmt: skip
                assert not wrong, f"{title}, attempt {found.attempt}: {wrong}"
                assert (found.current, dict(found.facts)) == (part["current"], part["facts"])
            state = str(row.state) if row.state in ("held", "done", "cancelled") else "moving"
            assert state == case["state"], f"the case should be {case['state']}, and is {row.state}: {row.reason}"
            assert (row.step, row.paused, row.cancelling) == (case["step"], case["paused"], case["cancelling"])
            assert ends[row.id] == case["cases_done"]

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

    def doubts_are_ended(self) -> None:
        """Let the operator do again what is held with a run of unknown fate: it keeps a place that others wait for."""
        for key, case in sorted(self.cases.items()):
            doubted = any(part["unproven"] for part in case["parts"].values())
            if (
                doubted
                and case["state"] == "held"
                and self.operated(key, lambda acts, identity: acts.retry(identity), None)
            ):
                model.retried(case)

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
            self.doubts_are_ended()
            self.each_lane_works()
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

    settings = _settings(12, 50, fixed=True)


@pytest.mark.timeout(600)
class TestOverTheEmbeddedQueue(OverTheEmbeddedQueue.TestCase):  # type: ignore[misc,name-defined]
    """The same examples each time, few enough for every change."""

    settings = _settings(6, 40, fixed=True)


@pytest.mark.soak
class TestOverAListForLong(OverAList.TestCase):  # type: ignore[misc,name-defined]
    """Many more examples, others each time."""

    settings = _settings(2000, 120, fixed=False)


@pytest.mark.soak
class TestOverTheEmbeddedQueueForLong(OverTheEmbeddedQueue.TestCase):  # type: ignore[misc,name-defined]
    """Many more examples, others each time."""

    settings = _settings(400, 100, fixed=False)
