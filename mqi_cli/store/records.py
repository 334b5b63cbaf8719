"""Rows of the state database as frozen records: what the operations return.

Named tuples, since every command that reads the state makes these classes at its start: ten times cheaper than dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mqi_cli.case import CaseRef, CaseState, PartState


class CaseRow(NamedTuple):
    """One revision of a case. Times are wall seconds; `look_since` is boot time of the boot `look_boot`."""

    id: int
    key: str
    source: str
    name: str
    revision: int
    directory: str
    workflow: str
    fingerprint: str
    files: int
    size: int
    snapshot: str
    look: str
    look_boot: str
    look_since: float
    state: CaseState
    step: str
    reason: str
    hint: str
    until: float | None
    priority: int
    paused: bool
    cancelling: bool
    cleared: tuple[str, ...]
    created_at: float
    updated_at: float
    ended_at: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CaseRow:
        """Make the record of a row."""
        return cls(**{**row, "state": CaseState(row["state"]), "cleared": tuple(row["cleared"])})

    @property
    def ref(self) -> CaseRef:
        """Return the case as a stage sees it, with the directory of this machine."""
        return CaseRef(self.key, self.name, self.revision, self.source, Path(self.directory), self.fingerprint)


class PartRow(NamedTuple):
    """One attempt of one part of a step. `case` is the case's id in the database."""

    id: int
    case: int
    step: str
    part: str
    attempt: int
    turn: int
    state: PartState
    current: bool
    lane: str
    host: str
    job: bool
    gpus: int
    plan: bool
    tries: int
    losses: int
    cancel: bool
    worker: str
    lease_until: float | None
    due_at: float | None
    waiting_for: str
    priority: int
    reason: str
    hint: str
    facts: Mapping[str, Any]
    progress_done: float
    progress_total: float
    progress_unit: str
    created_at: float
    started_at: float | None
    ended_at: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> PartRow:
        """Make the record of a row."""
        return cls(**{**row, "state": PartState(row["state"])})

    @property
    def title(self) -> str:
        """The step with the part's number, as they are shown."""
        return self.step + (f"/{self.part}" if self.part else " (plan)" if self.plan else "")


class EventRow(NamedTuple):
    """An entry of a case's log, or of the installation's when `case` is None."""

    id: int
    at: float
    case: int | None
    step: str
    part: str
    attempt: int
    kind: str
    actor: str
    text: str
    detail: str


class HostRow(NamedTuple):
    """A host as it was last seen."""

    name: str
    state: str
    held: bool
    reason: str
    hint: str
    until: float | None
    failures: int
    load: float | None
    cores: int | None
    free_bytes: int | None
    total_bytes: int | None
    seen_at: float | None
    full: bool


class GpuRow(NamedTuple):
    """A GPU as it was last seen, and the id of the part that has it."""

    uuid: str
    host: str
    number: int
    name: str
    memory_total: int | None
    memory_used: int | None
    utilization: int | None
    temperature: int | None
    processes: tuple[int, ...]
    foreign: tuple[int, ...]  # of these, those that are surely of no run of ours
    present: bool
    held: bool
    lease: int | None
    freed_at: float | None
    seen_at: float


class OutboxRow(NamedTuple):
    """A command that waits to be sent."""

    id: int
    message: str
    lane: str
    body: bytes


class WorkerRow(NamedTuple):
    """A worker as it last gave a sign of life. Times are wall seconds."""

    name: str
    lane: str
    machine: str
    pid: int
    busy: int
    started_at: float
    seen_at: float


class LaneLoad(NamedTuple):
    """How many messages the broker held of a lane, and how many lay among its dead letters."""

    held: int
    dead: int
