"""Named operations for the dashboards: everything that one frame shows, read in one transaction, bounded in size."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peewee import fn

from mqi_cli.case import ENDED, CaseState, PartState
from mqi_cli.store import Store
from mqi_cli.store.database import translated
from mqi_cli.store.parts import LIVE
from mqi_cli.store.records import CaseRow, EventRow, GpuRow, HostRow, LaneLoad, PartRow, WorkerRow
from mqi_cli.store.tables import AlertTable, CaseTable, PartTable

# What a person should see first comes first.
STATE_ORDER = (
    CaseState.HELD,
    CaseState.RUNNING,
    CaseState.WAITING,
    CaseState.READY,
    CaseState.SETTLING,
    CaseState.DONE,
    CaseState.CANCELLED,
)

SEARCHED = 20_000  # of the cases that ended only so many, the newest, are searched in every column


@dataclass(frozen=True)
class AlertRow:
    """What a person should know now."""

    topic: str
    text: str
    hint: str
    since: float


@dataclass(frozen=True)
class LaneCount:
    """What the state database expects of a lane: queued and not taken up, worked on, waiting for something."""

    lane: str
    queued: int
    working: int
    waiting: int


@dataclass(frozen=True)
class NamedEvent:
    """An event with the case it is about; both empty for one about the installation."""

    event: EventRow
    key: str
    name: str


@dataclass(frozen=True)
class PartCount:
    """Of the step that a case stands at: how many parts it has, and how many of them are done."""

    parts: int
    done: int


@dataclass(frozen=True)
class WatchData:
    """One moment of the whole installation. `cases` and `parts` are bounded; `counts` counts everything."""

    counts: dict[CaseState, int]
    cases: tuple[CaseRow, ...]
    parts: tuple[PartRow, ...]  # attempts that are not ended, of all cases
    fanned: dict[int, PartCount]  # by case, for those whose step fans out
    hosts: tuple[HostRow, ...]
    gpus: tuple[GpuRow, ...]
    workers: tuple[WorkerRow, ...]
    lanes: tuple[LaneCount, ...]
    alerts: tuple[AlertRow, ...]
    events: tuple[NamedEvent, ...]  # newest first
    unsent: int  # commands that the broker does not have yet
    drain: str
    loads: dict[str, LaneLoad]  # what the broker held of each lane when the conductor last looked


@dataclass(frozen=True)
class CaseDetail:
    """All of one case at one moment. `events` are its newest, oldest of them first."""

    case: CaseRow
    parts: tuple[PartRow, ...]
    events: tuple[EventRow, ...]


class Views:
    """Reads for dashboards. Changes nothing, and may be opened on a read-only store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def version(self) -> int:
        """Return a number that changes when another connection has changed anything.

        `PRAGMA data_version` (https://sqlite.org/pragma.html#pragma_data_version) costs next to nothing.
        """
        with translated(self._store.path):
            return int(self._database.execute_sql("PRAGMA data_version").fetchone()[0])

    def snapshot(
        self, *, find: str = "", ended_since: float = 0.0, cases: int = 500, parts: int = 2000, events: int = 100
    ) -> WatchData:
        """Read one moment. `find` keeps the cases that have it in name, key, state, step, source or reason.

        Without it, cases that ended before `ended_since` (wall seconds) are left out.
        """
        store = self._store
        with store.reading():
            shown = self._cases(find, ended_since, cases)
            return WatchData(
                counts=store.cases.counts(),
                cases=tuple(shown),
                parts=tuple(store.parts.live(limit=parts)),
                fanned=self._fanned([each.id for each in shown if each.ended_at is None]),
                hosts=tuple(store.hosts.all()),
                gpus=tuple(store.gpus.all()),
                workers=tuple(store.workers.all()),
                lanes=tuple(self._lanes()),
                alerts=tuple(self._alerts()),
                events=tuple(self._events(events)),
                unsent=store.messages.unsent_count(),
                drain=store.switches.drain(),
                loads=store.switches.loads(),
            )

    def detail(self, key: str, *, events: int = 500) -> CaseDetail | None:
        """Read all of one case; None when there is none with this key."""
        store = self._store
        with store.reading():
            case = store.cases.by_key(key)
            if case is None:
                return None
            return CaseDetail(
                case=case,
                parts=tuple(store.parts.of_case(case.id)),
                events=tuple(store.events.of_case(case.id, limit=events)),
            )

    def _cases(self, find: str, ended_since: float, limit: int) -> list[CaseRow]:
        found = self._found(find, limit) if find else self._current(ended_since, limit)
        return sorted(found, key=_place_on_screen)[:limit]

    def _current(self, ended_since: float, limit: int) -> list[CaseRow]:
        """Read the cases that go on, and those that ended since; state by state, each along an index to `limit` rows."""
        found: list[CaseRow] = []
        for state in STATE_ORDER:
            query = CaseTable.select().where(CaseTable.state == str(state))
            if state in ENDED:
                query = query.where(CaseTable.ended_at >= ended_since).order_by(CaseTable.ended_at.desc())
            else:
                query = query.where(CaseTable.ended_at.is_null()).order_by(CaseTable.priority.desc(), CaseTable.id)
            found += self._rows(query.limit(limit - len(found)))
            if len(found) >= limit:
                break
        return found

    def _found(self, find: str, limit: int) -> list[CaseRow]:
        """Search what goes on and what is new in every column; of what is old only names and keys that begin so."""
        columns = (CaseTable.name, CaseTable.key, CaseTable.state, CaseTable.step, CaseTable.source, CaseTable.reason)
        # SQLite's LOWER knows ASCII only, so that is all that is lowered here
        text = "".join(each.lower() if each.isascii() else each for each in find)
        condition = functools.reduce(operator.or_, [fn.INSTR(fn.LOWER(column), text) > 0 for column in columns])
        (newest,) = CaseTable.select(fn.MAX(CaseTable.id)).tuples().execute(self._database)[0]
        found = {row.id: row for row in self._store.cases.matching(find, limit=limit)}
        for which in (CaseTable.id > (newest or 0) - SEARCHED, CaseTable.ended_at.is_null()):
            query = CaseTable.select().where(which & condition).order_by(CaseTable.id.desc()).limit(limit)
            found |= {row.id: row for row in self._rows(query)}
        return list(found.values())

    def _rows(self, query: Any) -> list[CaseRow]:
        return [CaseRow.of(row) for row in query.dicts().execute(self._database)]

    def _lanes(self) -> list[LaneCount]:
        query = (
            PartTable.select(PartTable.lane, PartTable.state, fn.COUNT(PartTable.id))
            .where(LIVE)
            .group_by(PartTable.lane, PartTable.state)
        )
        counts: dict[str, dict[str, int]] = {}
        for lane, state, count in query.tuples().execute(self._database):
            counts.setdefault(lane, {})[state] = count
        return [
            LaneCount(
                lane, found.get(PartState.QUEUED, 0), found.get(PartState.WORKING, 0), found.get(PartState.WAITING, 0)
            )
            for lane, found in sorted(counts.items())
        ]

    def _fanned(self, cases: Sequence[int]) -> dict[int, PartCount]:
        """Count the parts of the steps that cases stand at, each by its newest attempt."""
        newest: Any = (
            PartTable.select(PartTable.case, fn.MAX(PartTable.id).alias("id"))
            .join(CaseTable, on=(CaseTable.id == PartTable.case))
            .where(
                PartTable.case.in_(cases)
                & PartTable.current
                & (PartTable.step == CaseTable.step)
                & (PartTable.part != "")
            )
            .group_by(PartTable.case, PartTable.part)
        )
        query: Any = (
            PartTable.select(PartTable.case, fn.COUNT(PartTable.id), fn.SUM(PartTable.state == str(PartState.DONE)))
            .join(newest, on=(newest.c.id == PartTable.id))
            .group_by(PartTable.case)
        )
        return {case: PartCount(count, done) for case, count, done in query.tuples().execute(self._database)}

    def _alerts(self) -> list[AlertRow]:
        query = AlertTable.select().order_by(AlertTable.since)
        return [AlertRow(**row) for row in query.dicts().execute(self._database)]

    def _events(self, limit: int) -> list[NamedEvent]:
        events = self._store.events.latest(limit=limit)[::-1]
        names = self._names(sorted({each.case for each in events if each.case is not None}))
        return [NamedEvent(each, *names.get(each.case or 0, ("", ""))) for each in events]

    def _names(self, identities: Sequence[int]) -> dict[int, tuple[str, str]]:
        query: Any = CaseTable.select(CaseTable.id, CaseTable.key, CaseTable.name).where(CaseTable.id.in_(identities))
        return {identity: (key, name) for identity, key, name in query.tuples().execute(self._database)}


def _place_on_screen(row: CaseRow) -> tuple[float, ...]:
    """Return what cases are ordered by: those that go on, oldest first, so that rows keep their places; ended ones, newest first."""
    if row.ended_at is not None:
        return (STATE_ORDER.index(row.state), -row.ended_at, row.id)
    return (STATE_ORDER.index(row.state), -row.priority, row.id)
