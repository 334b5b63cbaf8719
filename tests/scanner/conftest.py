"""A patrol context that keeps what the core would keep, with a clock that tests turn."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import (
    Alert,
    CaseSeen,
    CaseState,
    CaseVanished,
    CaseView,
    Clock,
    KnownCase,
    PatrolContext,
    SourceView,
)
from mqi_cli.config.model import CompleteWhen
from mqi_scanner.config import ScannerSection
from mqi_scanner.scan import Scan


class TurnedClock(Clock):
    """Stands still until a test turns it; `tick` lets each reading of `elapsed` take some time."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.tick = 0.0

    def now(self) -> float:
        return 1.7e9 + self.at

    def elapsed(self) -> float:
        self.at += self.tick
        return self.at


@dataclass
class Row:
    """What the core keeps of the newest revision of a name."""

    look: str = ""
    look_since: float = 0.0
    accepted: str = ""
    fingerprint: str = ""
    state: CaseState = CaseState.SETTLING
    revision: int = 1


@dataclass
class Context:
    """A `PatrolContext` whose findings are applied as the core's intake applies them."""

    sources: list[SourceView]
    data_dir: Path
    clock: TurnedClock = field(default_factory=TurnedClock)
    config: Any = field(default_factory=ScannerSection)
    hosts: tuple[str, ...] = ()
    rows: dict[str, Row] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)
    stop: bool = False
    log: Any = field(default_factory=lambda: logging.LoggerAdapter(logging.getLogger("test"), {}))

    def settling(self, source: str) -> Sequence[str]:
        return [name for name, row in self.rows.items() if row.state is CaseState.SETTLING]

    def known(self, source: str, names: Iterable[str]) -> Mapping[str, KnownCase]:
        return {
            name: KnownCase(
                "caaaaaaaaaa", name, row.revision, row.state, row.look, row.fingerprint,
                self.clock.at - row.look_since, row.accepted,
            )
            for name, row in self.rows.items()
            if name in set(names)
        }  # fmt: skip

    def report(self, finding: Any) -> None:
        self.seen.append(finding)
        if isinstance(finding, CaseVanished):
            self.rows.pop(finding.name)
        if not isinstance(finding, CaseSeen):
            return
        row = self.rows.setdefault(finding.name, Row())
        if row.look != finding.snapshot:
            row.look, row.look_since = finding.snapshot, self.clock.at
        if not finding.fingerprint:
            return
        if row.fingerprint and row.fingerprint != finding.fingerprint:
            row.revision += 1
        row.fingerprint, row.accepted = finding.fingerprint, finding.snapshot
        row.state = CaseState.DONE

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        return iter(())

    def stopping(self) -> bool:
        return self.stop

    def host(self, name: str) -> Any:
        raise AssertionError("the scanner uses no host")

    def backup_state(self, directory: Path, *, keep: int) -> Path:
        raise AssertionError("the scanner makes no backup")

    # what tests ask

    def take(self) -> list[Any]:
        """Return the findings since the last call, without the all-clears of the first round."""
        found = [each for each in self.seen if not (isinstance(each, Alert) and not each.active)]
        self.seen.clear()
        return found


class World:
    """A source on a real disk, a scan and its context."""

    def __init__(self, base: Path, rule: Any, depth: int) -> None:
        self.incoming = base / "incoming"
        self.incoming.mkdir()
        source = SourceView("incoming", self.incoming, depth, CompleteWhen.model_validate(rule), "qa")
        self.ctx = Context([source], base / "data")
        self.scan = Scan()

    def use(self, **fields: Any) -> None:
        """Change the source."""
        self.ctx.sources[0] = replace(self.ctx.sources[0], **fields)

    def write(self, path: str, content: str | bytes = "content", *, mtime: float | None = None) -> Path:
        """Write a file below the source."""
        file = self.incoming / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        if mtime is not None:
            os.utime(file, (mtime, mtime))
        return file

    def look(self, *, after: float = 0.0) -> list[Any]:
        """Turn the clock, do one round, return its findings."""
        self.ctx.clock.at += after
        context: PatrolContext = self.ctx
        self.scan(context)
        return self.ctx.take()

    def restart(self) -> None:
        """Forget what a process remembers; the state database keeps what it knows."""
        self.scan = Scan()

    def accept(self, after: float = 10.0) -> None:
        """Do rounds until nothing is open any more."""
        for _ in range(50):
            self.look(after=after)
            if not self.scan.round.open and not self.scan.round.left:
                return
        raise AssertionError(f"still open: {self.scan.round.open}")

    def notes(self) -> dict[str, str]:
        """Return why each case is not complete."""
        return {name: judgement.note for (_, name), judgement in self.scan.round.open.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A source with `quiet_for: 30s`."""
    return World(tmp_path, {"quiet_for": "30s"}, 1)
