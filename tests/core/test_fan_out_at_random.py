"""Two cases that fan out, under random events, repeats, losses and operators: what must hold does so after each act."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from mqi_cli.case import PART_LIVE, CaseState, PartState
from mqi_cli.errors import UsageError
from mqi_cli.message import Command, EventKind
from mqi_cli.patrol import GpuSeen, GpusSeen
from mqi_cli.store.parts import END_UNPROVEN

PARTS = 3


class Chance:
    """Acts at random on a bench, and checks after each act."""

    def __init__(self, bench: Any, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.cases = [bench.case(), bench.case()]
        self.commands: list[Command] = []
        self.numbers = 100

    def act(self) -> None:
        """Do one thing."""
        chosen = self.random.choices(
            [self.answer, self.turn_clock, self.operate, self.look], weights=[12, 4, 3, 2]
        )[0]  # fmt: skip
        chosen()
        self.commands += self.bench.commands()
        self.check()

    def answer(self) -> None:
        """Let a worker answer a command that is waited for, now and then one that is long overtaken."""
        wanted = [each for each in self.commands if self.is_wanted(each)]
        if not self.commands:
            return
        command = self.random.choice(wanted if wanted and self.random.random() < 0.9 else self.commands)
        kinds = [EventKind.ACCEPTED, EventKind.DONE, EventKind.WAIT, EventKind.RETRY, EventKind.GAVE_UP, EventKind.BUG]
        kind = self.random.choices(kinds, weights=[2, 8, 2, 1, 1, 1])[0]
        if command.cancel and kind is EventKind.DONE:
            kind = EventKind.CANCELLED
        self.tell(command, kind)

    def is_wanted(self, command: Command) -> bool:
        """Whether this is the turn that its part stands at."""
        case = self.bench.store.cases.by_key(command.case)
        part = self.bench.store.parts.latest(case.id, command.step, command.part)
        return part.state in PART_LIVE and (part.attempt, part.turn) == (command.attempt, command.turn)

    def tell(self, command: Command, kind: EventKind) -> None:
        data: dict[str, Any] = {
            EventKind.DONE: {"facts": {"parts": PARTS} if command.plan else {}},
            EventKind.WAIT: {"seconds": self.random.choice([0, 5]), "note": "running"},
            EventKind.RETRY: {
                "reason": "broke",
                "hint": "",
                "after": None,
                "host": self.random.choice(["", "", "hpc"]),
            },
            EventKind.GAVE_UP: {"reason": "exit code 3", "hint": ""},
            EventKind.BUG: {"reason": "TypeError", "traceback": ""},
        }.get(kind, {})
        self.numbers += self.random.choice([0, 1])  # the same number again is the same event again
        self.bench.answer(command, kind, number=self.numbers, **data)

    def turn_clock(self) -> None:
        self.bench.clock.turn(self.random.choice([1, 6, 20, 70]))
        self.bench.idle_lanes.update(self.random.sample(["sftp", "ssh-exec", "archiver"], 2))
        self.bench.clockwork.tick()

    def operate(self) -> None:
        """Let an operator do something; what can't be done is refused."""
        case = self.random.choice(self.cases).id
        part = self.random.choice(["", "", str(self.random.randint(1, PARTS))])
        acts = self.bench.acts
        with contextlib.suppress(UsageError):
            self.random.choice([
                lambda: acts.retry(case, part=part), lambda: acts.retry(case), lambda: acts.retry(case),
                lambda: acts.cancel(case, part=part or "1"), lambda: acts.cancel(case, part=part),
                lambda: acts.pause(case), lambda: acts.resume(case), lambda: acts.resume(case), lambda: acts.rerun(case),
            ])()  # fmt: skip

    def look(self) -> None:
        """Let the curator see one to three GPUs in any order, some with a stranger on them."""
        uuids = self.random.sample(["GPU-0", "GPU-1", "GPU-2"], self.random.randint(1, 3))
        seen = [GpuSeen(uuid, at, processes=self.random.choice([(), (), (9,)])) for at, uuid in enumerate(uuids)]
        self.bench.intake.take(GpusSeen("hpc", tuple(seen)))

    def check(self) -> None:
        """What must hold at every moment."""
        store = self.bench.store
        for case in (self.bench.fresh(each) for each in self.cases):
            rows = store.parts.of_case(case.id)
            live = [row for row in rows if row.state in PART_LIVE]
            names = [(row.step, row.part) for row in live]
            assert len(names) == len(set(names)), "two attempts of one part are live"
            assert {row.part for row in rows if row.step == "run"} <= {"", *(str(n + 1) for n in range(PARTS))}
            if case.state in (CaseState.RUNNING, CaseState.WAITING):
                assert live, f"the case is {case.state}, and nothing of it goes on: {case.reason}"
            if case.state in (CaseState.DONE, CaseState.CANCELLED, CaseState.HELD):
                assert not [row for row in live if row.step == case.step and not row.cancel], case.state
            if case.step == "archive" or case.state is CaseState.DONE:
                done = [row.part for row in store.parts.finished(case.id, ["run"])]
                assert sorted(done) == ["", *(str(n + 1) for n in range(PARTS))]
        for gpu in store.gpus.all():
            part = store.parts.by_id(gpu.lease) if gpu.lease is not None else None
            assert part is None or part.state in PART_LIVE or part.waiting_for == END_UNPROVEN, "a lease leaked"

    def end_well(self) -> None:
        """Let everything go well from now on: every case must come to its end, and every GPU back."""
        free = tuple(GpuSeen(f"GPU-{number}", number) for number in range(3))
        for case in self.cases:
            with contextlib.suppress(UsageError):
                self.bench.acts.resume(case.id)
        for _ in range(80):
            self.bench.clock.turn(100)
            self.bench.intake.take(GpusSeen("hpc", free))
            self.bench.clockwork.tick()
            for case in self.cases:
                if self.bench.fresh(case).state in (CaseState.HELD, CaseState.CANCELLED):
                    with contextlib.suppress(UsageError):
                        self.bench.acts.retry(case.id)
            for command in self.bench.commands():
                self.tell(command, EventKind.ACCEPTED)
                self.numbers += 1
                self.tell(command, EventKind.CANCELLED if command.cancel else EventKind.DONE)
            if all(self.bench.fresh(case).state is CaseState.DONE for case in self.cases):
                break
            self.check()
        assert [self.bench.fresh(case).state for case in self.cases] == [CaseState.DONE] * 2, [
            (self.bench.fresh(case).state, self.bench.fresh(case).reason) for case in self.cases
        ]
        assert [gpu.lease for gpu in self.bench.store.gpus.all()] == [None] * 3


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_parts_stay_whole_and_come_to_an_end(make_bench: Any, seed: int) -> None:
    chance = Chance(make_bench(fans_out=True, gpus=1, jobs=2), seed)
    for _ in range(150):
        chance.act()
    chance.end_well()
    assert all(
        part.state is not PartState.WORKING
        for case in chance.cases
        for part in chance.bench.store.parts.of_case(case.id)
    )
