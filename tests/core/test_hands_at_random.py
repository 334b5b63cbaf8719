"""Operators who act, do steps by hand and end runs at random, beside a daemon whose workers and host fail: nothing runs beside
a step that must be alone, nothing is lost or stuck, and once all goes well everything ends and every GPU is free.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from core.conftest import Bench
from mqi_cli.case import CaseState, PartState
from mqi_cli.errors import UsageError
from mqi_cli.message import Command, EventKind
from mqi_cli.patrol import HostSeen
from mqi_cli.testing import FakeClock

ACTS = 60
GPUS = 2
AT_WORK = (PartState.QUEUED, PartState.WORKING)
MOVING = (CaseState.READY, CaseState.RUNNING, CaseState.WAITING)
_MEMORY = Path("/dev/shm")  # what a disk does is tested elsewhere

HOW = {"done": 5, "wait": 3, "retry": 2, "gave up": 1, "bug": 1, "host": 1, "lost": 1}
HOW_CANCELLED = {"cancelled": 5, "wait": 2, "gave up": 1, "bug": 1, "retry": 1}
WHAT = {
    "work": 14, "time": 8, "hand": 6, "retry": 3, "cancel": 1, "rerun": 2, "pause": 1, "resume": 2, "kill": 2,
    "settle": 2, "cancel a part": 1, "drain": 1, "hold a GPU": 1, "host": 2,
}  # fmt: skip


class House:
    """A conductor with a few cases, and everybody around it, moved by one row of random numbers."""

    def __init__(self, directory: Path, chance: Random) -> None:
        self.chance = chance
        self.bench = Bench(
            directory, FakeClock(), gpus=chance.choice([0, 1]), jobs=chance.choice([1, 2, 8]),
            fans_out=chance.random() < 0.5,
        )  # fmt: skip
        self.bench.gpus(GPUS)
        self.cases = [self.bench.case() for _ in range(chance.choice([1, 2, 3]))]
        self.commands: list[Command] = []
        self.claimed: list[Command] = []
        self.told: list[str] = []

    def act(self) -> None:
        """Let one thing happen; what is refused changes nothing."""
        bench, chance, case = self.bench, self.chance, self.chance.choice(self.cases).id
        what = _one_of(chance, WHAT)
        acts: dict[str, Callable[[], object]] = {
            "work": self.work,
            "time": lambda: self.time_passes(chance.choice([1, 15, 70, 400])),
            "hand": lambda: self.claim(case),
            "retry": lambda: bench.acts.retry(case),
            "cancel": lambda: bench.acts.cancel(case),
            "rerun": lambda: bench.acts.rerun(case),
            "pause": lambda: bench.acts.pause(case),
            "resume": lambda: bench.acts.resume(case),
            "kill": lambda: self.kill(case),
            "settle": lambda: self.settle(case),
            "cancel a part": lambda: bench.acts.cancel(case, part=chance.choice("12")),
            "drain": lambda: bench.acts.drain(chance.choice(["power cut at noon", ""])),
            "hold a GPU": lambda: bench.acts.hold_gpu(f"GPU-{chance.randrange(GPUS)}", held=chance.random() < 0.3),
            "host": lambda: self.host_seen(reachable=chance.random() < 0.7),
        }
        self.told.append(what)
        with suppress(UsageError):
            acts[what]()

    def work(self) -> None:
        """Let somebody who has a command do something with it, and say so, or not."""
        self.commands += self.bench.commands()
        if self.commands:
            self.answer(self.commands.pop(self.chance.randrange(len(self.commands))))
        elif self.claimed:
            self.answer(self.claimed.pop())

    def answer(self, command: Command) -> None:
        """Let a turn end in one of the ways that turns end."""
        if self.chance.random() < 0.8:
            self.bench.answer(command, EventKind.ACCEPTED)
        how = _one_of(self.chance, HOW_CANCELLED if command.cancel else HOW)
        self.told.append(f"{how}: {command.step}/{command.part} {command.attempt}-{command.turn}")
        plain: dict[str, Any] = {"reason": how, "hint": ""}
        ends: dict[str, tuple[EventKind, dict[str, Any]]] = {
            "done": (EventKind.DONE, self.facts(command, self.chance.choice([1, 2, 3]))),
            "cancelled": (EventKind.CANCELLED, {"note": "ended"}),
            "wait": (EventKind.WAIT, {"seconds": self.chance.choice([0.0, 10.0, 100.0]), "note": "later"}),
            "retry": (EventKind.RETRY, plain | {"after": None, "host": ""}),
            "host": (EventKind.RETRY, plain | {"after": None, "host": "hpc"}),
            "gave up": (EventKind.GAVE_UP, plain),
            "bug": (EventKind.BUG, {"reason": "KeyError", "traceback": ""}),
        }
        if how in ends:
            kind, data = ends[how]
            self.bench.answer(command, kind, **data)

    @staticmethod
    def facts(command: Command, parts: int) -> dict[str, Any]:
        """Return what a turn reports that has done what it should."""
        return {"facts": {"parts": parts, "plan": "0" * 32} if command.plan else {}}

    def time_passes(self, seconds: float) -> None:
        """Let time pass, the curator look at the GPUs, and the clock do what is due."""
        self.bench.clock.turn(seconds)
        self.bench.gpus(GPUS)
        self.bench.clockwork.tick()

    def claim(self, case: int) -> None:
        """Let an operator do a step by hand."""
        step, running = self.chance.choice(["upload", "run", "archive"]), self.chance.random() < 0.5
        self.claimed.append(self.bench.claims.claim(case, step, worker="hand", daemon_running=running))
        self.told.append(f"claimed: {step}")

    def kill(self, case: int) -> None:
        """Let an operator end a step's runs, which mostly succeeds."""
        for part in self.bench.acts.end_step(case, "run"):
            if self.chance.random() < 0.8:
                self.bench.acts.ended(case, "run", part)

    def settle(self, case: int) -> None:
        """Let an operator prove those runs over whose fate nobody knows."""
        for part in self.bench.store.parts.maybe_alive(case):
            attempts = self.bench.claims.in_doubt(case, part.step, part.part)
            self.bench.acts.ended(case, part.step, part.part, attempts=attempts)

    def host_seen(self, *, reachable: bool) -> None:
        """Let the curator find the host up, or down."""
        self.bench.intake.take(HostSeen("hpc", reachable=reachable, problem="" if reachable else "no route"))

    def all_goes_well(self) -> None:
        """Let everything that goes on end well, and every doubt be settled."""
        self.bench.acts.drain("")
        for number in range(GPUS):
            self.bench.acts.hold_gpu(f"GPU-{number}", held=False)
        for case in self.cases:
            with suppress(UsageError):
                self.bench.acts.resume(case.id)
        self.bench.idle_lanes.update({"sftp", "ssh-exec", "archiver"})
        for _ in range(120):
            self.host_seen(reachable=True)
            self.time_passes(130)
            for command in [*self.commands, *self.bench.commands()]:
                self.bench.answer(command, EventKind.ACCEPTED)
                if command.cancel:
                    self.bench.answer(command, EventKind.CANCELLED, note="ended")
                else:
                    self.bench.answer(command, EventKind.DONE, **self.facts(command, 2))
            self.commands.clear()
            self.check()
            for case in self.cases:
                self.settle(case.id)
            if not self.bench.store.parts.live():
                return

    def check(self) -> None:
        """Assert what must hold after each act."""
        store, live = self.bench.store, defaultdict(list)
        for part in store.parts.live():
            live[part.case].append(part)
        for case, parts in live.items():
            names = [(part.step, part.part) for part in parts]
            assert len(set(names)) == len(names), f"two attempts of one part are live: {names}"
            archives = [part for part in parts if part.step == "archive" and part.state in AT_WORK]
            others = [part for part in parts if part.step != "archive"]
            busy = [part for part in others if part.state in AT_WORK or self.bench.conductor.may_live(part)]
            doubted = [part for part in store.parts.maybe_alive(case) if part.step != "archive"]
            assert not archives or not (busy or doubted), f"{archives} beside {busy or doubted}"
        for row in (self.bench.fresh(case) for case in self.cases):
            of_step = [part for part in live[row.id] if part.step == row.step]
            assert row.state is not CaseState.HELD or not of_step, f"held while it goes on: {row} {of_step}"
            assert live[row.id] or not row.cancelling, f"to be cancelled, and nothing goes on that ends it: {row}"
            assert live[row.id] or row.state not in MOVING, f"nothing moves it: {row}"

    def check_the_end(self) -> None:
        """Assert that nothing is left over."""
        live = self.bench.store.parts.live()
        assert not live, f"these never end: {[(part.step, part.part, part.waiting_for) for part in live]}"
        states = {self.bench.fresh(case).state for case in self.cases}
        assert states <= {CaseState.DONE, CaseState.HELD, CaseState.CANCELLED}
        assert all(gpu.lease is None for gpu in self.bench.store.gpus.all())


def _one_of(chance: Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


@contextmanager
def house(seed: int) -> Iterator[House]:
    """Give a house that a number has laid out; what was done there is told where something fails."""
    directory = Path(tempfile.mkdtemp(prefix="mqi-hands-", dir=_MEMORY if _MEMORY.is_dir() else None))
    made = House(directory, Random(seed))
    try:
        yield made
    except Exception as error:
        error.add_note(f"seed {seed}, the last acts: {'; '.join(made.told[-30:])}")
        raise
    finally:
        made.bench.store.close()
        shutil.rmtree(directory)


def live_through(seed: int) -> None:
    """Let a house live through its acts and come to its end."""
    with house(seed) as lives:
        for _ in range(ACTS):
            lives.act()
            lives.check()
        lives.all_goes_well()
        lives.check_the_end()


@pytest.mark.parametrize("tens", range(3))
def test_whatever_operators_do_nothing_is_lost_stuck_or_done_beside_an_archive(tens: int) -> None:
    for seed in range(10 * tens, 10 * (tens + 1)):
        live_through(seed)


@pytest.mark.soak
def test_whatever_operators_do_for_long() -> None:
    first = Random().randrange(1 << 32)
    for seed in range(first, first + 2000):
        live_through(seed)
