"""A pytest kit for mqi and for plugin authors: a clock that is turned by hand, and a place for a stage to run in.

Loaded by pytest through an entry point; fixtures `fake_clock` and `stage_kit` are there without an import.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mqi_cli.case import CaseRef, derive_key
from mqi_cli.clock import Clock
from mqi_cli.hosts.base import Host
from mqi_cli.layout import RemoteLayout
from mqi_cli.message import Earlier, Facts, GpuLease
from mqi_cli.scheduler import Scheduler
from mqi_cli.stage import Done, Stage, Step, Wait, Workflow


class FakeClock(Clock):
    """Stands still until it is turned."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._elapsed = 1000.0
        self._boot = "boot-1"

    def now(self) -> float:
        """Return the wall time it was set to."""
        return self._now

    def elapsed(self) -> float:
        """Return the boot time it was set to."""
        return self._elapsed

    def boot_id(self) -> str:
        """Return the name of the boot it stands in."""
        return self._boot

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Let the wall clock jump, as a correction of the system's time does."""
        self._now += seconds

    def reboot(self) -> None:
        """Begin another boot."""
        self._elapsed = 0.0
        self._boot += "+"


class KitContext:
    """A `StageContext` over a directory of the test's own. What the stage tells is kept in lists."""

    def __init__(
        self,
        stage: Stage,
        options: Any,
        *,
        case: CaseRef,
        directory: Path,
        config: Any,
        host: Host | None,
        scheduler: Scheduler | None = None,
    ) -> None:
        self.config = config
        self.options = options
        self.log = logging.LoggerAdapter(logging.getLogger("mqi.stage"), {"case": case.key, "step": stage.name})
        self.step = options.name or stage.name
        self.part = ""
        self.attempt = 1
        self.turn = 1
        self.owner = ""
        self.workflow = Workflow("test", (Step(self.step, stage, options),))
        self.earlier: Sequence[Earlier] = ()
        self.facts: Facts = {}
        self.gpus: Sequence[GpuLease] = ()
        self.told: list[tuple[float, float, str]] = []
        self.stop = False
        self._case = case
        self._data_dir = directory / "data"
        self._host = host
        self._scheduler = scheduler

    @property
    def data_dir(self) -> Path:
        """Return a directory of the test's own."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        return self._data_dir

    @property
    def host(self) -> Host:
        """Return the host that the test gave."""
        if self._host is None:
            raise AssertionError("this test gave its stage no host")
        return self._host

    @property
    def scheduler(self) -> Scheduler:
        """Return the scheduler that the test gave."""
        if self._scheduler is None:
            raise AssertionError("this test gave its stage no scheduler")
        return self._scheduler

    @property
    def layout(self) -> RemoteLayout:
        """Return where the case lies on the host."""
        return RemoteLayout(self.host.base_dir, self._case.key)

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        """Return none: what a test makes has but one revision."""
        del case
        return ()

    @property
    def fence(self) -> str:
        """Return `<attempt>-<turn>`."""
        return f"{self.attempt}-{self.turn}"

    @property
    def is_recent(self) -> bool:
        """Return True: a test's turn was given just now."""
        return True

    def host_named(self, name: str) -> Host:
        """Return the host that the test gave, whatever its name."""
        del name
        return self.host

    def remember(self, **facts: Any) -> None:
        """Keep facts."""
        self.facts = {**self.facts, **facts}

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        """Keep what was told."""
        del detail
        self.told.append((done, total, unit))

    def stopping(self) -> bool:
        """Return what the test set `stop` to."""
        return self.stop


class StageKit:
    """Makes cases and runs stages on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def case(self, name: str = "case-1", files: dict[str, bytes] | None = None) -> CaseRef:
        """Make a case directory with these files and return the case."""
        root = self.directory / "incoming" / name
        for path, data in (files or {"a.dat": b"data"}).items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return CaseRef(derive_key("incoming", name, 1), name, 1, "incoming", root, "")

    def run(
        self,
        stage: Stage,
        case: CaseRef,
        *,
        config: Any = None,
        host: Host | None = None,
        scheduler: Scheduler | None = None,
        **options: Any,
    ) -> tuple[Done | Wait, KitContext]:
        """Run a stage once, with its options checked by its own model; return its end and the context."""
        context = KitContext(
            stage,
            stage.options(**options),
            case=case,
            directory=self.directory,
            config=config,
            host=host,
            scheduler=scheduler,
        )
        return stage.run(case, context), context


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until it is turned."""
    return FakeClock()


@pytest.fixture
def stage_kit(tmp_path: Path) -> StageKit:
    """A place to try a stage in."""
    return StageKit(tmp_path)
