"""Named operations on parts: the attempts of steps, what they wait for, and who has a lease on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peewee import SQL, fn

from mqi_cli.case import PartState
from mqi_cli.store.records import PartRow
from mqi_cli.store.statements import Rows, Statement, blank, insert, update
from mqi_cli.store.tables import CaseTable, PartTable

END_UNPROVEN = "end"  # what a failed attempt still waits for while nobody knows whether its run lives

# The conditions of the partial indexes, word for word as the migration has them: with a bound value in the place of a
# literal SQLite can't know that the index holds what is asked for, and reads the whole table.
LIVE = PartTable.state.in_(SQL("('queued', 'working', 'waiting')"))
WAITS = PartTable.state == SQL("'waiting'")
HAS_RUN = (
    (PartTable.job == SQL("1"))
    & (PartTable.turn > SQL("0"))
    & (LIVE | (PartTable.waiting_for == SQL("'end'")))  # END_UNPROVEN
)


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
_LIVE_OF_CASE = Rows(PartTable, lambda: _of_case(LIVE).order_by(PartTable.id))
_AT_WORK = Rows(
    PartTable,
    lambda: _of_case(
        PartTable.step == blank("step"), PartTable.state.in_([str(PartState.QUEUED), str(PartState.WORKING)])
    ).limit(1),
)
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
        .where(WAITS & (PartTable.due_at <= blank("now")))
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
        PartTable.select()
        .where(WAITS & (PartTable.waiting_for == blank("what")))
        .order_by(PartTable.priority.desc(), PartTable.id)
        .limit(blank("limit"))
    ),
)
# A part counts once, though an earlier attempt of it may be alive beside the one that is to end it.
_JOBS_ON = Statement(
    lambda: PartTable.select(fn.COUNT(SQL("DISTINCT case_id || '/' || step || '/' || part"))).where(
        (PartTable.host == blank("host"))
        & HAS_RUN
        & ~((PartTable.case == blank("case")) & (PartTable.step == blank("step")) & (PartTable.part == blank("part")))
    )
)
_DOUBTED_ON = Rows(
    PartTable,
    lambda: (
        PartTable.select()
        .where((PartTable.host == blank("host")) & HAS_RUN & (PartTable.waiting_for == END_UNPROVEN))
        .order_by(PartTable.id)
    ),
)
_PRIORITY = Statement(lambda: CaseTable.select(CaseTable.priority).where(CaseTable.id == blank("case")))


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
        row["priority"] = next((first for (first,) in _PRIORITY.run(self._database, case=row["case"])), 0)
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

    def at_work(self, case: int, step: str) -> PartRow | None:
        """Return a part of a step that a worker has, or is about to get; None when there is none."""
        return _first(_AT_WORK.all(self._database, case=case, step=step))

    def live_besides(self, case: int, steps: Iterable[str]) -> PartRow | None:
        """Return an attempt of a case that is not ended and is of none of these steps; None when there is none."""
        found = PartTable.select().where(PartTable.case == case, LIVE, PartTable.step.not_in(list(steps)))
        return next(iter(self._rows(found.limit(1))), None)

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

    def renew_all(self, until: float) -> None:
        """Let every lease end at `until`."""
        PartTable.update(lease_until=until).where(PartTable.lease_until.is_null(False)).execute(self._database)

    def waiting_for(self, what: str, *, limit: int = 1000) -> list[PartRow]:
        """Return what waits for a thing, in the order in which it is served: priority, then first come."""
        return _records(_WAITING_FOR.all(self._database, what=what, limit=limit))

    def things_waited_for(self) -> list[str]:
        """Return each thing that some part waits for."""
        found: list[str] = []
        while True:  # from one to the next: reading every part that waits would take longer, the more there are
            query = PartTable.select(fn.MIN(PartTable.waiting_for)).where(
                WAITS & (PartTable.waiting_for > (found[-1] if found else ""))
            )
            following = query.tuples().execute(self._database)[0][0]
            if following is None:
                return found
            found.append(following)

    def set_priority(self, case: int, priority: int) -> None:
        """Let a case's attempts go before others (higher) or after them."""
        PartTable.update(priority=priority).where(PartTable.case == case).execute(self._database)

    def jobs_on(self, host: str, *, besides: PartRow | None = None) -> int:
        """Count the parts that have a run on a host, or may have: those that had a turn and are not proven ended.

        `besides` leaves out one part with all its attempts.
        """
        case, step, part = (besides.case, besides.step, besides.part) if besides else (0, "", "")
        cursor = _JOBS_ON.run(self._database, host=host, case=case, step=step, part=part)
        return int(cursor.fetchone()[0])

    def doubted_on(self, host: str) -> list[PartRow]:
        """Return the attempts of which `jobs_on` counts the run although they have ended for us, oldest first."""
        return _records(_DOUBTED_ON.all(self._database, host=host))

    def live(self, *, limit: int = 1000) -> list[PartRow]:
        """Return the attempts that are not ended, those that are worked on first."""
        query = PartTable.select().where(LIVE)
        return self._rows(query.order_by(PartTable.state.desc(), PartTable.id).limit(limit))

    def shift_times(self, seconds: float) -> None:
        """Move every due time and lease: the wall clock has jumped by so much."""
        for column in (PartTable.due_at, PartTable.lease_until):
            PartTable.update({column: column + seconds}).where(column.is_null(False)).execute(self._database)

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
