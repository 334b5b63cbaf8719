"""Named operations on cases and on their log."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

from mqi_cli.case import ENDED, CaseState
from mqi_cli.store.records import CaseRow, EventRow
from mqi_cli.store.statements import Rows, blank, insert, update
from mqi_cli.store.tables import CaseTable, EventTable, TallyTable

NAMES_AT_ONCE = 500  # a page that is read between two writes of others

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
        columns = (CaseTable.key, CaseTable.name)
        found: dict[tuple[str, str], CaseRow] = {}
        for column in columns:
            query = CaseTable.select().where((column >= text) & (column < _after(text))).limit(limit * 4)
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
        ended_since: float | None = None,
        limit: int | None = None,
    ) -> list[CaseRow]:
        """Return cases, filtered, the newest first: changed since `since`; not ended, or ended since `ended_since`."""
        wanted = list(states)
        if not wanted and not source and since is None and ended_since is None:
            query = CaseTable.select().order_by(CaseTable.id.desc())
            return self._rows(query.limit(limit) if limit else query)
        found = []
        for state in wanted or CaseState:  # state by state: each query follows an index to its first `limit` rows
            query = CaseTable.select().where(CaseTable.state == str(state))
            ended = max((each for each in (since, ended_since) if each is not None), default=None)
            if source:
                query = query.where(CaseTable.source == source)
            if state in ENDED and ended is not None:
                # a case's last change is its end
                query = query.where(CaseTable.ended_at >= ended).order_by(CaseTable.ended_at.desc())
            else:
                if since is not None:
                    query = query.where(CaseTable.updated_at >= since, CaseTable.ended_at.is_null())
                query = query.order_by(CaseTable.id.desc())
            found += self._rows(query.limit(limit) if limit else query)
        found.sort(key=lambda row: row.id, reverse=True)
        return found[:limit] if limit else found

    def each(self, states: Iterable[CaseState] = (), *, page: int = 500) -> Iterator[CaseRow]:
        """Go through the cases in these states (all, without any), oldest first, in pages: no read stays open."""
        wanted = [str(state) for state in states]
        if not wanted:
            yield from self._paged(CaseTable.select(), page)
            return
        pages = [self._paged(CaseTable.select().where(CaseTable.state == state), page) for state in wanted]
        yield from heapq.merge(*pages, key=lambda row: row.id)

    def _paged(self, query: Any, page: int) -> Iterator[CaseRow]:
        last = 0
        while True:
            rows = self._rows(query.where(CaseTable.id > last).order_by(CaseTable.id).limit(page))
            yield from rows
            if len(rows) < page:
                return
            last = rows[-1].id

    def known(self, source: str, names: Iterable[str]) -> Iterator[CaseRow]:
        """Return the newest revision of each of these names below a source, where there is one."""
        wanted = list(names)
        for first in range(0, len(wanted), NAMES_AT_ONCE):
            some = wanted[first : first + NAMES_AT_ONCE]
            query = CaseTable.select().where((CaseTable.source == source) & CaseTable.name.in_(some))
            newest = {row.name: row for row in self._rows(query.order_by(CaseTable.name, CaseTable.revision))}
            yield from newest.values()

    def settling(self, source: str) -> list[str]:
        """Return the names below a source that are seen and not complete."""
        query = CaseTable.select(CaseTable.name).where(
            (CaseTable.source == source) & (CaseTable.state == str(CaseState.SETTLING))
        )
        return [name for (name,) in query.tuples().execute(self._database)]

    def counts(self) -> dict[CaseState, int]:
        """Count the cases in each state."""
        found = dict(TallyTable.select(TallyTable.state, TallyTable.cases).tuples().execute(self._database))
        return {state: found.get(str(state), 0) for state in CaseState}

    def names_beginning(self, text: str, *, limit: int = 50) -> list[str]:
        """Return names for shell completion."""
        query = CaseTable.select(CaseTable.name).distinct()
        if text:  # a range rather than LIKE, which reads every name
            query = query.where((CaseTable.name >= text) & (CaseTable.name < _after(text)))
        query = query.order_by(CaseTable.name).limit(limit)
        return [name for (name,) in query.tuples().execute(self._database)]

    def _rows(self, query: Any) -> list[CaseRow]:
        return [CaseRow.of(row) for row in query.dicts().execute(self._database)]


def _one(rows: Iterable[Mapping[str, Any]]) -> CaseRow | None:
    return next(map(CaseRow.of, rows), None)


def _after(text: str) -> str:
    """Return the first text behind all that begin with this one; empty when it is empty."""
    return text[:-1] + chr(min(ord(text[-1]) + 1, 0x10FFFF)) if text else ""


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

    def forget(self, *, before: float, limit: int = 2000) -> int:
        """Forget the oldest entries, those from before a time; return how many, at most `limit`."""
        oldest = EventTable.select(EventTable.id, EventTable.at).order_by(EventTable.id).limit(limit)
        old = list(takewhile(lambda row: row[1] < before, oldest.tuples().execute(self._database)))
        if not old:
            return 0
        return int(EventTable.delete().where(EventTable.id <= old[-1][0]).execute(self._database))

    def last_id(self) -> int:
        """Return the id of the newest entry; 0 when there is none."""
        newest = self.latest(limit=1)
        return newest[0].id if newest else 0

    def _rows(self, query: Any) -> list[EventRow]:
        return [EventRow(**row) for row in query.dicts().execute(self._database)]
