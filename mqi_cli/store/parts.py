"""Named operations on parts: the attempts of steps, what they wait for, and who has a lease on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peewee import fn

from mqi_cli.case import PART_LIVE, PartState
from mqi_cli.store.records import PartRow
from mqi_cli.store.statements import Rows, Statement, blank, insert, update
from mqi_cli.store.tables import CaseTable, PartTable

END_UNPROVEN = "end"  # what a failed attempt still waits for while nobody knows whether its run lives
_LIVE = [str(state) for state in PART_LIVE]


def _of_case(*further: Any) -> Any:
    query = PartTable.select().where(PartTable.case == blank("case"))
    return query.where(*further) if further else query


# What runs for every event.
_BY_ID = Rows(PartTable, lambda: PartTable.select().where(PartTable.id == blank("id")))
_LATEST = Rows(
    PartTable,
    lambda: (
        _of_case(PartTable.step == blank("step"), PartTable.part == blank("part"))
        .order_by(PartTable.attempt.desc())
        .limit(1)
    ),
)
_OF_STEP = Rows(
    PartTable, lambda: _of_case(PartTable.step == blank("step"), PartTable.current).order_by(PartTable.attempt)
)
_LIVE_OF_CASE = Rows(PartTable, lambda: _of_case(PartTable.state.in_(_LIVE)).order_by(PartTable.id))
_FINISHED = Rows(
    PartTable, lambda: _of_case(PartTable.current, PartTable.state == str(PartState.DONE)).order_by(PartTable.attempt)
)
_MAYBE_ALIVE = Rows(
    PartTable,
    lambda: _of_case(PartTable.state == str(PartState.FAILED), PartTable.waiting_for == END_UNPROVEN).order_by(
        PartTable.id
    ),
)
_DUE = Rows(
    PartTable,
    lambda: (
        PartTable.select()
        .where(
            (PartTable.state == str(PartState.WAITING))
            & PartTable.due_at.is_null(False)
            & (PartTable.due_at <= blank("now"))
        )
        .order_by(PartTable.due_at)
        .limit(blank("limit"))
    ),
)
_EXPIRED = Rows(
    PartTable,
    lambda: (
        PartTable.select()
        .where(
            PartTable.state.in_([str(PartState.QUEUED), str(PartState.WORKING)])
            & (PartTable.lease_until <= blank("now"))
        )
        .order_by(PartTable.lease_until)
        .limit(blank("limit"))
    ),
)
_WAITING_FOR = Rows(
    PartTable,
    lambda: (
        PartTable.select(PartTable)
        .join(CaseTable, on=(PartTable.case == CaseTable.id))
        .where((PartTable.state == str(PartState.WAITING)) & (PartTable.waiting_for == blank("what")))
        .order_by(CaseTable.priority.desc(), PartTable.id)
        .limit(blank("limit"))
    ),
)
_JOBS_ON = Statement(
    lambda: PartTable.select(fn.COUNT(PartTable.id)).where(
        PartTable.state.in_(_LIVE) & PartTable.job & (PartTable.host == blank("host")) & (PartTable.turn > 0)
    )
)


class Parts:
    """Parts, each attempt a row of its own."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def add(self, **fields: Any) -> PartRow:
        """Insert an attempt that waits for its first turn."""
        row = {
            "turn": 0, "state": PartState.WAITING, "current": True, "plan": False, "tries": 0, "losses": 0, "cancel": False,
            "worker": "", "lease_until": None, "due_at": None, "waiting_for": "", "reason": "", "hint": "", "facts": {},
            "progress_done": 0.0, "progress_total": 0.0, "progress_unit": "", "started_at": None, "ended_at": None,
            **fields,
        }  # fmt: skip
        identity = insert(self._database, PartTable, row)
        found = self.by_id(identity)
        assert found is not None  # noqa: S101  it was inserted in this transaction
        return found

    def update(self, identity: int, **fields: Any) -> None:
        """Change columns of one attempt."""
        update(self._database, PartTable, identity, fields)

    def by_id(self, identity: int) -> PartRow | None:
        """Return one attempt."""
        return _first(_BY_ID.all(self._database, id=identity))

    def latest(self, case: int, step: str, part: str) -> PartRow | None:
        """Return the newest attempt of a part."""
        return _first(_LATEST.all(self._database, case=case, step=step, part=part))

    def of_case(self, case: int) -> list[PartRow]:
        """Return every attempt of a case, in the order in which they were made."""
        return self._rows(PartTable.select().where(PartTable.case == case).order_by(PartTable.id))

    def of_step(self, case: int, step: str) -> list[PartRow]:
        """Return the newest current attempt of each part of a step."""
        newest = {row.part: row for row in _records(_OF_STEP.all(self._database, case=case, step=step))}
        return list(newest.values())

    def live_of_case(self, case: int) -> list[PartRow]:
        """Return a case's attempts that are not ended."""
        return _records(_LIVE_OF_CASE.all(self._database, case=case))

    def finished(self, case: int, steps: Sequence[str]) -> list[PartRow]:
        """Return the current attempts that finished the parts of these steps."""
        rows = [row for row in _records(_FINISHED.all(self._database, case=case)) if row.step in steps]
        newest = {(row.step, row.part): row for row in rows}
        return list(newest.values())

    def maybe_alive(self, case: int) -> list[PartRow]:
        """Return a case's attempts that ended for us while their run may live on its host, oldest first."""
        return _records(_MAYBE_ALIVE.all(self._database, case=case))

    def leave_behind(self, case: int) -> None:
        """Mark all attempts of a case as no longer current: it is run again from the start."""
        PartTable.update(current=False).where(PartTable.case == case).execute(self._database)

    def due(self, now: float, *, limit: int = 500) -> list[PartRow]:
        """Return what waits for a time that has come, oldest due first."""
        return _records(_DUE.all(self._database, now=now, limit=limit))

    def expired(self, now: float, *, limit: int = 500) -> list[PartRow]:
        """Return what is queued or worked on and whose lease has ended."""
        return _records(_EXPIRED.all(self._database, now=now, limit=limit))

    def next_time(self) -> float | None:
        """Return the earliest time at which a part is due or a lease ends."""
        query = PartTable.select(fn.MIN(PartTable.due_at), fn.MIN(PartTable.lease_until)).where(
            PartTable.state.in_(_LIVE)
        )
        due, lease = query.tuples().execute(self._database)[0]
        times = [each for each in (due, lease) if each is not None]
        return min(times) if times else None

    def waiting_for(self, what: str, *, limit: int = 1000) -> list[PartRow]:
        """Return what waits for a thing, in the order in which it is served: priority, then first come."""
        return _records(_WAITING_FOR.all(self._database, what=what, limit=limit))

    def things_waited_for(self) -> list[str]:
        """Return each thing that some part waits for."""
        query = PartTable.select(PartTable.waiting_for).distinct().where(PartTable.state == str(PartState.WAITING))
        return sorted(what for (what,) in query.tuples().execute(self._database) if what)

    def jobs_on(self, host: str) -> int:
        """Count the runs that a host carries: parts of job stages that have had a turn and are not ended."""
        return int(_JOBS_ON.run(self._database, host=host).fetchone()[0])

    def live_on(self, host: str) -> list[PartRow]:
        """Return the attempts on a host that are not ended."""
        return self._rows(PartTable.select().where(PartTable.state.in_(_LIVE) & (PartTable.host == host)))

    def live(self, *, limit: int = 1000) -> list[PartRow]:
        """Return the attempts that are not ended, those that are worked on first."""
        query = PartTable.select().where(PartTable.state.in_(_LIVE))
        return self._rows(query.order_by(PartTable.state.desc(), PartTable.id).limit(limit))

    def shift_times(self, seconds: float) -> None:
        """Move every due time and lease: the wall clock has jumped by so much."""
        for column in (PartTable.due_at, PartTable.lease_until):
            PartTable.update({column: column + seconds}).where(
                PartTable.state.in_(_LIVE) & column.is_null(False)
            ).execute(self._database)

    def by_ids(self, identities: Iterable[int]) -> dict[int, PartRow]:
        """Return attempts by their ids."""
        query = PartTable.select().where(PartTable.id.in_(list(identities)))
        return {row.id: row for row in self._rows(query)}

    def _rows(self, query: Any) -> list[PartRow]:
        return _records(query.dicts().execute(self._database))


def _records(rows: Iterable[Mapping[str, Any]]) -> list[PartRow]:
    return [PartRow.of(row) for row in rows]


def _first(rows: Iterable[Mapping[str, Any]]) -> PartRow | None:
    return next(map(PartRow.of, rows), None)
