"""A conductor over a real store with a small workflow, and a worker's part played by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mqi_cli.acts import Acts
from mqi_cli.case import CaseState
from mqi_cli.claims import Claims
from mqi_cli.clockwork import Clockwork
from mqi_cli.conductor import Conductor
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import CompleteWhen, DaemonSection, HostLimits, LocalHostSection, SourceSection
from mqi_cli.intake import Intake
from mqi_cli.message import Command, Event, EventKind, decode, event_id
from mqi_cli.patrol import CaseSeen, GpuSeen, GpusSeen
from mqi_cli.stage import Done, Stage, Step, StepOptions, Workflow
from mqi_cli.store import Store, open_store
from mqi_cli.store.records import CaseRow, PartRow
from mqi_cli.testing import FakeClock


class HostOptions(StepOptions):
    """Options of the steps of this test's workflow."""

    host: str = "hpc"
    gpus: int = 0
    for_each: tuple[str, ...] | None = None


def never(case: Any, ctx: Any) -> Done:
    """Stand for a stage that these tests never call."""
    raise AssertionError("the conductor must not run a stage")


UPLOAD = Stage("upload", never, "sftp", HostOptions, attempts=3)
RUN = Stage("run", never, "ssh-exec", HostOptions, attempts=3, cancel=never, plan=never, job=True)
ARCHIVE = Stage("archive", never, "archiver", attempts=3, alone=True)


class Bench:
    """Everything that a test of the conductor turns."""

    def __init__(
        self, directory: Path, clock: FakeClock, *, gpus: int = 0, jobs: int = 8, fans_out: bool = False
    ) -> None:
        self.clock = clock
        self.workflow = Workflow(
            "qa",
            (
                Step("upload", UPLOAD, HostOptions()),
                Step("run", RUN, HostOptions(gpus=gpus, for_each=("listed by the plan",) if fans_out else None)),
                Step("archive", ARCHIVE, StepOptions()),
            ),
        )
        self.config = Config(
            file=None,
            state_path=directory / "state" / "state.db",
            hosts={"hpc": LocalHostSection(type="local", base_dir="/nowhere", limits=HostLimits(jobs=jobs))},
            sources=(
                SourceSection(
                    path=directory / "in", name="in", workflow="qa", complete_when=CompleteWhen(quiet_for=30.0)
                ),
            ),
            workflows={"qa": self.workflow},
            daemon=DaemonSection(lease=60.0, retry_first=10.0, retry_most=100.0),
        )
        self.store: Store = open_store(self.config.state_path)
        self.conductor = Conductor(self.store, self.config, clock=clock, random=Random(1))
        self.acts = Acts(self.conductor, actor="somebody")
        self.claims = Claims(self.conductor, actor="somebody")
        self.intake = Intake(self.conductor)
        self.idle_lanes: set[str] = set()
        self.clockwork = Clockwork(self.conductor, lane_is_idle=self.idle_lanes.__contains__)
        self._names = itertools.count(1)
        self._progress = itertools.count(1)

    def case(self, name: str = "", *, fingerprint: str = "f" * 64) -> CaseRow:
        """Let a complete case be seen."""
        name = name or f"case-{next(self._names)}"
        seen = CaseSeen(
            "in", name, Path("/in") / name, f"look-{fingerprint[:4]}", fingerprint=fingerprint, files=2, size=10
        )
        self.intake.take(seen)
        return self.now("in", name)

    def now(self, source: str, name: str) -> CaseRow:
        """Return the newest revision of a case as it stands."""
        row = self.store.cases.newest(source, name)
        assert row is not None
        return row

    def fresh(self, case: CaseRow) -> CaseRow:
        """Return a case as it stands."""
        row = self.store.cases.by_id(case.id)
        assert row is not None
        return row

    def part(self, case: CaseRow, step: str = "", part: str = "") -> PartRow:
        """Return the newest attempt of a part of a step, by default the current one."""
        row = self.store.parts.latest(case.id, step or self.fresh(case).step, part)
        assert row is not None
        return row

    def commands(self) -> list[Command]:
        """Take every command from the outbox, as the relay does."""
        rows = self.store.messages.unsent()
        with self.store.transaction():
            self.store.messages.mark_sent([row.id for row in rows], now=self.clock.now())
        found = [decode(row.body) for row in rows]
        assert all(isinstance(each, Command) for each in found)
        return found  # type: ignore[return-value]

    def command(self) -> Command:
        """Take the one command that is in the outbox."""
        commands = self.commands()
        assert len(commands) == 1
        return commands[0]

    def event(self, command: Command, kind: EventKind, *, worker: str = "w1", number: int = 1, **data: Any) -> Event:
        """Make a worker's answer."""
        return Event(
            event_id(command.id, kind, number), kind, worker, 0.0, command.case, command.step, command.part,
            command.attempt, command.turn, data,
        )  # fmt: skip

    def answer(self, command: Command, kind: EventKind, *, worker: str = "w1", number: int = 1, **data: Any) -> bool:
        """Let a worker's answer come in."""
        return self.conductor.apply(self.event(command, kind, worker=worker, number=number, **data))

    def do(self, command: Command, **facts: Any) -> None:
        """Let a worker accept a command and finish it."""
        self.answer(command, EventKind.ACCEPTED)
        self.answer(command, EventKind.DONE, facts=facts)

    def retry(
        self, command: Command, reason: str = "it broke", *, host: str = "", after: float | None = None, **more: Any
    ) -> None:
        """Let a worker accept a command and fail for now."""
        self.answer(command, EventKind.ACCEPTED)
        self.answer(command, EventKind.RETRY, reason=reason, hint="", after=after, host=host, **more)

    def gpus(self, count: int, *, busy: int = 0, foreign: int = 0, host: str = "hpc") -> None:
        """Let the curator see GPUs, `busy` of them with a process, `foreign` of them with one that is surely of no run."""
        seen = tuple(
            GpuSeen(
                f"GPU-{n}", n, processes=(99,) if n < max(busy, foreign) else (), foreign=(99,) if n < foreign else ()
            )
            for n in range(count)
        )
        self.intake.take(GpusSeen(host, seen))

    def texts(self, case: CaseRow) -> list[str]:
        """Return the case's log."""
        return [event.text for event in self.store.events.of_case(case.id)]

    def finish(self, case: CaseRow) -> None:
        """Play the worker until the case has ended."""
        while self.fresh(case).state is CaseState.RUNNING:
            for command in self.commands():
                self.do(command)


@pytest.fixture
def bench(tmp_path: Path, fake_clock: FakeClock) -> Iterator[Bench]:
    """A conductor without GPUs."""
    bench = Bench(tmp_path, fake_clock)
    yield bench
    bench.store.close()


@pytest.fixture
def make_bench(tmp_path: Path, fake_clock: FakeClock) -> Iterator[Any]:
    """Make a conductor with GPUs or with few jobs."""
    made: list[Bench] = []

    def make(**changes: int) -> Bench:
        made.append(Bench(tmp_path, fake_clock, **changes))
        return made[-1]

    yield make
    for each in made:
        each.store.close()
