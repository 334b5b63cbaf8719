"""Named operations on parts: the attempts of steps, what they wait for, and who has a lease on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peewee import fn

from mqi_cli.case import PART_LIVE, PartState
from mqi_cli.store.records import PartRow
from mqi_cli.store.tables import CaseTable, PartTable

END_UNPROVEN = "end"  # what a failed attempt still waits for while nobody knows whether its run lives
_LIVE = [str(state) for state in PART_LIVE]


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
        identity = PartTable.insert(**row).execute(self._database)
        found = self.by_id(identity)
        assert found is not None  # noqa: S101  it was inserted in this transaction
        return found

    def update(self, identity: int, **fields: Any) -> None:
        """Change columns of one attempt."""
        PartTable.update(**fields).where(PartTable.id == identity).execute(self._database)

    def by_id(self, identity: int) -> PartRow | None:
        """Return one attempt."""
        rows = self._rows(PartTable.select().where(PartTable.id == identity))
        return rows[0] if rows else None

    def latest(self, case: int, step: str, part: str) -> PartRow | None:
        """Return the newest attempt of a part."""
        query = PartTable.select().where((PartTable.case == case) & (PartTable.step == step) & (PartTable.part == part))
        rows = self._rows(query.order_by(PartTable.attempt.desc()).limit(1))
        return rows[0] if rows else None

    def of_case(self, case: int) -> list[PartRow]:
        """Return every attempt of a case, in the order in which they were made."""
        return self._rows(PartTable.select().where(PartTable.case == case).order_by(PartTable.id))

    def of_step(self, case: int, step: str) -> list[PartRow]:
        """Return the newest current attempt of each part of a step."""
        query = PartTable.select().where((PartTable.case == case) & (PartTable.step == step) & PartTable.current)
        newest = {row.part: row for row in self._rows(query.order_by(PartTable.attempt))}
        return list(newest.values())

    def live_of_case(self, case: int) -> list[PartRow]:
        """Return a case's attempts that are not ended."""
        query = PartTable.select().where((PartTable.case == case) & PartTable.state.in_(_LIVE))
        return self._rows(query.order_by(PartTable.id))

    def finished(self, case: int, steps: Sequence[str]) -> list[PartRow]:
        """Return the current attempts that finished the parts of these steps."""
        query = PartTable.select().where(
            (PartTable.case == case)
            & PartTable.step.in_(list(steps))
            & PartTable.current
            & (PartTable.state == str(PartState.DONE))
        )
        newest = {(row.step, row.part): row for row in self._rows(query.order_by(PartTable.attempt))}
        return list(newest.values())

    def maybe_alive(self, case: int) -> list[PartRow]:
        """Return a case's attempts that ended for us while their run may live on its host, oldest first."""
        query = PartTable.select().where(
            (PartTable.case == case)
            & (PartTable.state == str(PartState.FAILED))
            & (PartTable.waiting_for == END_UNPROVEN)
        )
        return self._rows(query.order_by(PartTable.id))

    def leave_behind(self, case: int) -> None:
        """Mark all attempts of a case as no longer current: it is run again from the start."""
        PartTable.update(current=False).where(PartTable.case == case).execute(self._database)

    def due(self, now: float, *, limit: int = 500) -> list[PartRow]:
        """Return what waits for a time that has come, oldest due first."""
        query = PartTable.select().where(
            (PartTable.state == str(PartState.WAITING)) & PartTable.due_at.is_null(False) & (PartTable.due_at <= now)
        )
        return self._rows(query.order_by(PartTable.due_at).limit(limit))

    def expired(self, now: float, *, limit: int = 500) -> list[PartRow]:
        """Return what is queued or worked on and whose lease has ended."""
        query = PartTable.select().where(
            PartTable.state.in_([str(PartState.QUEUED), str(PartState.WORKING)]) & (PartTable.lease_until <= now)
        )
        return self._rows(query.order_by(PartTable.lease_until).limit(limit))

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
        query = (
            PartTable.select(PartTable)
            .join(CaseTable, on=(PartTable.case == CaseTable.id))
            .where((PartTable.state == str(PartState.WAITING)) & (PartTable.waiting_for == what))
        )
        return self._rows(query.order_by(CaseTable.priority.desc(), PartTable.id).limit(limit))

    def things_waited_for(self) -> list[str]:
        """Return each thing that some part waits for."""
        query = PartTable.select(PartTable.waiting_for).distinct().where(PartTable.state == str(PartState.WAITING))
        return sorted(what for (what,) in query.tuples().execute(self._database) if what)

    def jobs_on(self, host: str) -> int:
        """Count the runs that a host carries: parts of job stages that have had a turn and are not ended."""
        query = PartTable.select(fn.COUNT(PartTable.id)).where(
            PartTable.state.in_(_LIVE) & PartTable.job & (PartTable.host == host) & (PartTable.turn > 0)
        )
        return int(query.tuples().execute(self._database)[0][0])

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
        return [PartRow.of(row) for row in query.dicts().execute(self._database)]
