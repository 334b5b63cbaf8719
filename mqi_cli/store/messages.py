"""Named operations on the outbox (commands that were decided on) and the inbox (events that were applied)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import fn

from mqi_cli.store.records import OutboxRow
from mqi_cli.store.statements import Statement, blank, insert
from mqi_cli.store.tables import InboxTable, OutboxTable

# What runs for every event.
_TAKE_IN = Statement(
    lambda: InboxTable.insert(
        {InboxTable.message: blank("message"), InboxTable.received_at: blank("now")}
    ).on_conflict_ignore()
)
_TAKE_BACK = Statement(lambda: OutboxTable.delete().where(OutboxTable.part == blank("part")))
_UNSENT = Statement(
    lambda: (
        OutboxTable.select(OutboxTable.id, OutboxTable.message, OutboxTable.lane, OutboxTable.body)
        .where(OutboxTable.sent_at.is_null())
        .order_by(OutboxTable.id)
        .limit(blank("limit"))
    )
)
_SENT = Statement(lambda: OutboxTable.update({OutboxTable.sent_at: blank("now")}).where(OutboxTable.id == blank("id")))


class Messages:
    """What goes out, and what has come in."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def take_in(self, message: str, *, now: float) -> bool:
        """Note an event's id; False when it was applied before."""
        return bool(_TAKE_IN.run(self._database, message=message, now=now).rowcount)

    def forget_in(self, *, before: float, limit: int = 10_000) -> int:
        """Forget the ids of events that were applied before a time; return how many."""
        old = InboxTable.select(InboxTable.message).where(InboxTable.received_at < before).limit(limit)
        return int(InboxTable.delete().where(InboxTable.message.in_(old)).execute(self._database))

    def put_out(self, message: str, *, part: int, lane: str, body: bytes, now: float) -> None:
        """Write a command that the relay will send; it takes the place of any other for the same part."""
        self.take_back(part)
        row = {"message": message, "part": part, "lane": lane, "body": body, "created_at": now}
        insert(self._database, OutboxTable, row)

    def take_back(self, part: int) -> None:
        """Drop the command of a part: answered, or overtaken."""
        _TAKE_BACK.run(self._database, part=part)

    def unsent(self, *, limit: int = 200) -> list[OutboxRow]:
        """Return commands that wait to be sent, oldest first."""
        rows = _UNSENT.run(self._database, limit=limit).fetchall()
        return [OutboxRow(id=a, message=b, lane=c, body=bytes(d)) for a, b, c, d in rows]

    def mark_sent(self, identities: Sequence[int], *, now: float) -> None:
        """Note that the broker has these commands."""
        for identity in identities:
            _SENT.run(self._database, id=identity, now=now)

    def unsent_count(self) -> int:
        """Count the commands that wait to be sent."""
        query = OutboxTable.select(fn.COUNT(OutboxTable.id)).where(OutboxTable.sent_at.is_null())
        return int(query.tuples().execute(self._database)[0][0])
