"""A conductor that can be killed at any durable point, over a real state database, with everything around it in hand."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from model.model import ATTEMPTS
from model.wires import Fuse, FusedBroker
from mqi_cli.acts import Acts
from mqi_cli.broker.base import Broker
from mqi_cli.conductor import Conductor
from mqi_cli.conductor_process import ConductorProcess
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import CompleteWhen, DaemonSection, HostLimits, LocalHostSection, SourceSection
from mqi_cli.intake import Intake
from mqi_cli.patrol import CaseSeen, Finding
from mqi_cli.stage import Done, Stage, Step, StepOptions, Workflow
from mqi_cli.store import Store, open_store
from mqi_cli.store.records import PartRow
from mqi_cli.store.statements import Rows
from mqi_cli.store.tables import PartTable
from mqi_cli.testing import FakeClock

LANES = {"upload": "sftp", "run": "ssh-exec", "archive": "archiver"}
PLAIN, FANS_OUT = "plain", "parts"  # the sources, each with a workflow of its name
HOST = "hpc"
JOBS = 2
LEASE = 60.0
_PARTS = Rows(
    PartTable, lambda: PartTable.select().order_by(PartTable.id)
)  # put into words once: it is asked for all the time
_MEMORY = Path("/dev/shm")  # a thousand small databases; what a disk does to them is tested elsewhere


class HostOptions(StepOptions):
    """Options of the steps on the host."""

    host: str = HOST
    gpus: int = 0
    for_each: tuple[str, ...] | None = None


def never(case: Any, ctx: Any) -> Done:
    """Stand for a stage: here the machine plays the workers."""
    raise AssertionError("the conductor must not run a stage")


UPLOAD = Stage("upload", never, LANES["upload"], HostOptions, attempts=ATTEMPTS)
RUN = Stage("run", never, LANES["run"], HostOptions, attempts=ATTEMPTS, cancel=never, plan=never, job=True)
ARCHIVE = Stage("archive", never, LANES["archive"], attempts=ATTEMPTS, alone=True)


def workflow(source: str) -> Workflow:
    """Return the workflow of a source's cases."""
    for_each = ("listed by the plan",) if source == FANS_OUT else None
    steps = (
        Step("upload", UPLOAD, HostOptions()),
        Step("run", RUN, HostOptions(gpus=1, for_each=for_each)),
        Step("archive", ARCHIVE, StepOptions()),
    )
    return Workflow(source, steps)


class NoObservers:
    """Plugins that observe nothing."""

    observed = True

    def lanes(self) -> list[str]:
        """Return the lanes of the workflow's stages."""
        return list(LANES.values())

    def notify(self, event: Any) -> None:
        """See an event."""


class World:
    """State database, broker, clock, conductor process and operator. `connect` opens a connection to the broker."""

    def __init__(self, connect: Callable[[Path, FakeClock], Broker]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mqi-model-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.clock = FakeClock()
        self.fuse = Fuse()
        self.config = Config(
            file=None,
            state_path=self.directory / "state.db",
            hosts={HOST: LocalHostSection(type="local", base_dir="/nowhere", limits=HostLimits(jobs=JOBS))},
            sources=tuple(
                SourceSection(
                    path=self.directory / name, name=name, workflow=name, complete_when=CompleteWhen(quiet_for=30.0)
                )
                for name in (PLAIN, FANS_OUT)
            ),
            workflows={name: workflow(name) for name in (PLAIN, FANS_OUT)},
            daemon=DaemonSection(lease=LEASE, retry_first=10.0, retry_most=100.0),
        )
        self._connect = lambda: connect(self.directory, self.clock)
        self.workers: Broker = self._connect()
        self._start()

    def _start(self) -> None:
        self.store = self._fused(open_store(self.config.state_path))
        self._broker = self._connect()
        plugins: Any = NoObservers()
        self.process = ConductorProcess(
            config=self.config, plugins=plugins, store=self.store, broker=FusedBroker(self._broker, self.fuse),
            clock=self.clock, random=Random(1),
        )  # fmt: skip
        self.process.begin()

    def _end(self) -> None:
        self._broker.close()
        self.store.close()

    def _fused(self, store: Store) -> Store:
        plain = store.transaction

        @contextlib.contextmanager
        def transaction() -> Iterator[None]:
            outermost = not store.database.in_transaction()
            with plain():
                yield
                if outermost:
                    self.fuse.at("before commit")
            if outermost:
                self.fuse.at("after commit")

        store.transaction = transaction  # type: ignore[method-assign]
        return store

    def turn(self, crash: int | None = None) -> None:
        """Let the conductor do all there is to do; with `crash` it dies on the way and is started again."""
        self.fuse.set(crash)
        with self._restarted_after_crash():
            self.process.turn(timeout=0)
        self.fuse.set(None)
        self.process.turn(timeout=0)

    def act(self, what: Callable[[Acts], object], crash: int | None = None) -> None:
        """Let an operator's command do something; with `crash` it dies on the way, and nobody does it again."""
        self.fuse.set(crash)
        with self._restarted_after_crash():
            what(Acts(self._hand(), actor="somebody"))
        self.fuse.set(None)

    def find(self, finding: Finding, crash: int | None = None) -> None:
        """Let a patrol report something; one that dies over it reports it again at its next round."""
        self.fuse.set(crash)
        with self._restarted_after_crash():
            Intake(self._hand()).take(finding)
        self.fuse.set(None)
        Intake(self._hand()).take(finding)

    def away(self, seconds: float) -> None:
        """Let time pass while no conductor runs."""
        self._end()
        self.clock.turn(seconds)
        self._start()

    def complete_case(self, source: str, name: str) -> CaseSeen:
        """Return the sight of a complete case."""
        return CaseSeen(source, name, Path("/in") / name, "look", fingerprint="f" * 64, files=1, size=1)

    def parts(self) -> list[PartRow]:
        """Return every attempt of every case, in the order in which they were made."""
        return [PartRow.of(row) for row in _PARTS.all(self.store.database)]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the state database."""
        return list(self.store.database.execute_sql(query, values).fetchall())

    def stand(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that an event of the past must leave as it is."""
        return {
            "cases": self.rows("SELECT id, state, step, reason, hint, paused, cancelling, ended_at FROM case_"),
            "parts": self.rows(
                "SELECT id, attempt, turn, state, tries, losses, cancel, worker, due_at, waiting_for, reason, facts FROM part"
            ),
            "gpus": self.rows("SELECT uuid, lease_part_id, held FROM gpu"),
            "hosts": self.rows("SELECT name, state, held, failures, until FROM host"),
            "commands": self.rows("SELECT message FROM outbox"),
            "log": self.rows("SELECT id FROM event"),
        }

    def close(self) -> None:
        """End everything and remove it."""
        self._end()
        self.workers.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _hand(self) -> Conductor:
        # The operator's commands and the patrols are processes of their own; to SQLite one connection is as good as two.
        return Conductor(self.store, self.config, clock=self.clock, random=Random(1))

    @contextlib.contextmanager
    def _restarted_after_crash(self) -> Iterator[None]:
        from model.wires import Crash

        try:
            yield
        except Crash:
            self._end()
            self._start()
