"""Named operations on cases and on their log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from peewee import fn

from mqi_cli.case import CaseState
from mqi_cli.store.records import CaseRow, EventRow
from mqi_cli.store.statements import Rows, blank, insert, update
from mqi_cli.store.tables import CaseTable, EventTable

# What runs for every event.
_BY_ID = Rows(CaseTable, lambda: CaseTable.select().where(CaseTable.id == blank("id")))
_BY_KEY = Rows(CaseTable, lambda: CaseTable.select().where(CaseTable.key == blank("key")).limit(1))
_NEWEST = Rows(
    CaseTable,
    lambda: (
        CaseTable.select()
        .where((CaseTable.source == blank("source")) & (CaseTable.name == blank("name")))
        .order_by(CaseTable.revision.desc())
        .limit(1)
    ),
)
_EVENTS_AFTER = Rows(
    EventTable,
    lambda: EventTable.select().where(EventTable.id > blank("id")).order_by(EventTable.id).limit(blank("limit")),
)


class Cases:
    """Cases, each revision a row of its own."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def add(self, **fields: Any) -> CaseRow:
        """Insert a case; what is not given is empty."""
        row = {
            "directory": "", "workflow": "", "fingerprint": "", "files": 0, "size": 0, "snapshot": "", "look": "",
            "look_boot": "", "look_since": 0.0, "step": "", "reason": "", "hint": "", "until": None, "priority": 0,
            "paused": False, "cancelling": False, "cleared": [], "ended_at": None, **fields,
        }  # fmt: skip
        identity = insert(self._database, CaseTable, row)
        found = self.by_id(identity)
        assert found is not None  # noqa: S101  it was inserted in this transaction
        return found

    def update(self, identity: int, **fields: Any) -> None:
        """Change columns of one case."""
        update(self._database, CaseTable, identity, fields)

    def by_id(self, identity: int) -> CaseRow | None:
        """Return one case."""
        return _one(_BY_ID.all(self._database, id=identity))

    def by_key(self, key: str) -> CaseRow | None:
        """Return the case with this key."""
        return _one(_BY_KEY.all(self._database, key=key))

    def newest(self, source: str, name: str) -> CaseRow | None:
        """Return the newest revision of a name below a source."""
        return _one(_NEWEST.all(self._database, source=source, name=name))

    def matching(self, text: str, *, limit: int = 20) -> list[CaseRow]:
        """Return the cases whose key or name is, else begins with, `text`; newest revisions first.

        An exact key or name wins over prefixes, and of an exact name only its newest revision is meant.
        """
        exact = self._rows(CaseTable.select().where((CaseTable.key == text) | (CaseTable.name == text)))
        if exact:
            newest = max(exact, key=lambda row: row.revision)
            return [newest] if len({(row.source, row.name) for row in exact}) == 1 else exact[:limit]
        end = text[:-1] + chr(ord(text[-1]) + 1) if text else ""
        columns = (CaseTable.key, CaseTable.name)
        found: dict[tuple[str, str], CaseRow] = {}
        for column in columns:
            query = CaseTable.select().where((column >= text) & (column < end)).limit(limit * 4)
            for row in self._rows(query):
                other = found.get((row.source, row.name))
                if other is None or other.revision < row.revision:
                    found[row.source, row.name] = row
        return sorted(found.values(), key=lambda row: row.name)[:limit]

    def listing(
        self,
        *,
        states: Iterable[CaseState] = (),
        source: str = "",
        since: float | None = None,
        limit: int | None = None,
        newest_first: bool = True,
    ) -> list[CaseRow]:
        """Return cases, filtered; the newest first unless told otherwise."""
        query = CaseTable.select()
        wanted = [str(state) for state in states]
        if wanted:
            query = query.where(CaseTable.state.in_(wanted))
        if source:
            query = query.where(CaseTable.source == source)
        if since is not None:
            query = query.where(CaseTable.updated_at >= since)
        query = query.order_by(CaseTable.id.desc() if newest_first else CaseTable.id)
        return self._rows(query.limit(limit) if limit else query)

    def each(self, states: Iterable[CaseState] = (), *, page: int = 500) -> Iterator[CaseRow]:
        """Go through the cases in these states (all, without any), oldest first, in pages: no read stays open."""
        last = 0
        wanted = [str(state) for state in states]
        while True:
            query = CaseTable.select().where(CaseTable.id > last)
            if wanted:
                query = query.where(CaseTable.state.in_(wanted))
            rows = self._rows(query.order_by(CaseTable.id).limit(page))
            yield from rows
            if len(rows) < page:
                return
            last = rows[-1].id

    def known(self, source: str) -> Iterator[CaseRow]:
        """Return the newest revision of each name below a source."""
        newest = (
            CaseTable.select(CaseTable.name, fn.MAX(CaseTable.revision).alias("top"))
            .where(CaseTable.source == source)
            .group_by(CaseTable.name)
        )
        query = (
            CaseTable.select(CaseTable)
            .join(newest, on=((CaseTable.name == newest.c.name) & (CaseTable.revision == newest.c.top)))
            .where(CaseTable.source == source)
        )
        yield from self._rows(query)

    def counts(self) -> dict[CaseState, int]:
        """Count the cases in each state."""
        query = CaseTable.select(CaseTable.state, fn.COUNT(CaseTable.id)).group_by(CaseTable.state).tuples()
        found = {CaseState(state): count for state, count in query.execute(self._database)}
        return {state: found.get(state, 0) for state in CaseState}

    def names_beginning(self, text: str, *, limit: int = 50) -> list[str]:
        """Return names for shell completion."""
        query = CaseTable.select(CaseTable.name).distinct().where(CaseTable.name.startswith(text)).limit(limit)
        return [name for (name,) in query.tuples().execute(self._database)]

    def _rows(self, query: Any) -> list[CaseRow]:
        return [CaseRow.of(row) for row in query.dicts().execute(self._database)]


def _one(rows: Iterable[Mapping[str, Any]]) -> CaseRow | None:
    return next(map(CaseRow.of, rows), None)


class Events:
    """The log of the cases and of the installation."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def add(
        self,
        *,
        at: float,
        case: int | None,
        kind: str,
        text: str,
        step: str = "",
        part: str = "",
        attempt: int = 0,
        actor: str = "",
        detail: str = "",
    ) -> int:
        """Record that something happened; return the entry's id."""
        row = {
            "at": at, "case": case, "step": step, "part": part, "attempt": attempt, "kind": kind, "actor": actor,
            "text": text, "detail": detail,
        }  # fmt: skip
        return insert(self._database, EventTable, row)

    def of_case(self, case: int, *, limit: int = 0) -> list[EventRow]:
        """Return a case's log, oldest first; with `limit` only its newest entries."""
        query = EventTable.select().where(EventTable.case == case).order_by(EventTable.id.desc())
        return self._rows(query.limit(limit) if limit else query)[::-1]

    def after(self, identity: int, *, limit: int = 1000) -> list[EventRow]:
        """Return what was recorded after an entry, oldest first."""
        return [EventRow(**row) for row in _EVENTS_AFTER.all(self._database, id=identity, limit=limit)]

    def latest(self, *, limit: int) -> list[EventRow]:
        """Return the newest entries of all, oldest of them first."""
        return self._rows(EventTable.select().order_by(EventTable.id.desc()).limit(limit))[::-1]

    def last_id(self) -> int:
        """Return the id of the newest entry; 0 when there is none."""
        newest = self.latest(limit=1)
        return newest[0].id if newest else 0

    def _rows(self, query: Any) -> list[EventRow]:
        return [EventRow(**row) for row in query.dicts().execute(self._database)]
