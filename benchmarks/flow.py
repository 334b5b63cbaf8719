"""A conductor with a worker's part played for it: what the measurements of the state database send through."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from big_store import SOURCE, STEPS

from mqi_cli.conductor import Conductor
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import CompleteWhen, HostLimits, LocalHostSection, SourceSection
from mqi_cli.intake import Intake
from mqi_cli.message import Command, Event, EventKind, decode, event_id
from mqi_cli.patrol import CaseSeen
from mqi_cli.stage import Done, Stage, Step, StepOptions, Workflow
from mqi_cli.store import Store

JOBS = 8
Clocked = Callable[[], float]


class _OnHost(StepOptions):
    host: str = "far"


def _never(case: Any, ctx: Any) -> Done:
    raise AssertionError("no stage is run here")


def _config(state: Path) -> Config:
    lanes = ("sftp", "ssh-exec", "sftp", "archiver")
    steps = [
        Step(name, Stage(name, _never, lane, _OnHost, cancel=_never if name == "run" else None, job=name == "run"), _OnHost())
        for name, lane in zip(STEPS, lanes, strict=True)
    ]  # fmt: skip
    return Config(
        file=None,
        state_path=state,
        hosts={"far": LocalHostSection(type="local", base_dir="/nowhere", limits=HostLimits(jobs=JOBS))},
        sources=(
            SourceSection(
                path=state.parent, name=SOURCE, workflow="all_steps", complete_when=CompleteWhen(quiet_for=1.0)
            ),
        ),
        workflows={"all_steps": Workflow("all_steps", tuple(steps))},
    )


class Flow:
    """Sends cases through a conductor. `spent` holds the seconds that each event took, by `clock`."""

    def __init__(self, store: Store, *, clock: Clocked = time.perf_counter) -> None:
        self.store = store
        self.conductor = Conductor(store, _config(store.path))
        self.intake = Intake(self.conductor)
        self.spent: list[float] = []
        self._back: list[Command] = []
        self._clock = clock

    def new_case(self, name: str) -> None:
        """Let a complete case be seen: its upload is queued."""
        directory = Path("/srv/incoming") / name
        seen = CaseSeen(
            SOURCE,
            name,
            directory,
            f"look of {name}",
            fingerprint=f"{hash(name) & (1 << 60):064x}",
            files=3,
            size=60_000,
        )
        self._timed(lambda: self.intake.take(seen))

    def commands(self) -> list[Command]:
        """Take what the outbox holds, as the relay does; what was put back comes first."""
        back, self._back = self._back, []
        rows = self.store.messages.unsent(limit=1000)
        with self.store.transaction():
            self.store.messages.mark_sent([row.id for row in rows], now=time.time())
        return back + [each for row in rows if isinstance(each := decode(row.body), Command)]

    def put_back(self, commands: list[Command]) -> None:
        """Keep commands for later: they wait in a queue."""
        self._back = commands

    def do(self, command: Command) -> None:
        """Accept a command, tell how far it is, and end it."""
        for event in self.answers(command):
            self._timed(lambda event=event: self.conductor.apply(event))  # type: ignore[misc]

    def answers(self, command: Command) -> list[Event]:
        """Return what a worker reports of a command: that it has it, how far it is, that it is done."""
        answers: list[tuple[EventKind, dict[str, Any]]] = [
            (EventKind.ACCEPTED, {}),
            (EventKind.PROGRESS, {"done": 1, "total": 3, "unit": "files"}),
            (EventKind.DONE, {"facts": {"files": 3}}),
        ]
        return [
            Event(
                event_id(command.id, kind, 1), kind, "worker@here-1", time.time(), command.case, command.step,
                command.part, command.attempt, command.turn, data,
            )
            for kind, data in answers
        ]  # fmt: skip

    def _timed(self, act: Callable[[], object]) -> None:
        began = self._clock()
        act()
        self.spent.append(self._clock() - began)


def share(values: list[float], part: float) -> float:
    """Return the value below which this part of all lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
