"""The embedded queue: the broker contract on a SQLite file of its own. One machine, no server.

Any number of processes and threads may use one file. A delivery belongs to the bell of the process that took it
(`doorbell.py`): as long as that process lives nobody else gets it, and soon after it ended the lane has it back.
The file is no truth: when it is lost, the conductor sends again what is due.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqi_cli.broker import doorbell
from mqi_cli.broker.base import DELIVERY_LIMIT, DeadLetter, Delivery, LaneDepth, Outgoing
from mqi_cli.broker.queue_file import QueueFile, Run
from mqi_cli.clock import Clock
from mqi_cli.errors import BrokerError, BrokerUnreachable

POLL_SECONDS = 1.0  # a waiting process looks so often without being rung: for the messages of the dead

_READY = "SELECT number FROM message WHERE lane = ? AND owner IS NULL ORDER BY number LIMIT ?"
_CLAIM = (
    f"UPDATE message SET owner = ?, taken = taken + 1 WHERE number IN ({_READY})"  # noqa: S608 <our own text>
    " RETURNING number, id, body, taken"
)
_HELD = "number = ? AND owner = ? AND taken = ?"
_REMOVE = f"DELETE FROM message WHERE {_HELD}"  # noqa: S608 <our own text>


@dataclass(frozen=True)
class _Claim:
    """A delivery's receipt. The count tells a second taking by the same process from the first."""

    number: int
    owner: str
    taken: int

    @property
    def values(self) -> tuple[Any, ...]:
        return (self.number, self.owner, self.taken)


class EmbeddedBroker:
    """The five verbs on a SQLite file. Nothing is created before the first of them is called."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock or Clock()
        self._file = QueueFile(path)
        self._bells_at = path.with_name(path.name + ".bells")
        self._bells: dict[str, doorbell.Bell] = {}
        self._looked: dict[str, float] = {}  # lane -> when the messages of the dead were last looked for
        self._lock = threading.Lock()
        self._closed = False

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Write the messages in one transaction. An id that its lane still holds is dropped: it is there already."""
        with self._transaction() as run:
            self._write(run, messages)
        self._ring(messages)

    def take(self, lane: str, *, timeout: float) -> Delivery | None:
        """Take the oldest message of a lane, waiting for one up to `timeout` seconds. None also when closed meanwhile."""
        return next(iter(self.take_many(lane, timeout=timeout, most=1)), None)

    def take_many(self, lane: str, *, timeout: float, most: int) -> list[Delivery]:
        """Take the oldest messages of a lane, waiting for one up to `timeout` seconds. Empty also when closed meanwhile."""
        deadline = time.monotonic() + timeout
        bell = self._bell(lane)
        try:
            while not self._closed:
                self._give_back_of_dead(lane)
                # Looked for before the wait: what was published before our bell hung rang for nobody.
                if deliveries := self._claim(lane, bell, most):
                    return deliveries
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                bell.wait(min(left, POLL_SECONDS))
        except BrokerError:
            if not self._closed:
                raise
        return []

    def ack(self, *deliveries: Delivery) -> None:
        """Remove messages that this process holds."""
        claims = [_claim_of(each) for each in deliveries]
        with self._transaction() as run:
            for claim in claims:
                run(_REMOVE, *claim.values)

    def answer(self, deliveries: Sequence[Delivery], messages: Sequence[Outgoing]) -> None:
        """Publish messages and remove those that they answer, in one transaction."""
        claims = [_claim_of(each) for each in deliveries]
        with self._transaction() as run:
            self._write(run, messages)
            for claim in claims:
                run(_REMOVE, *claim.values)
        self._ring(messages)

    def reject(self, delivery: Delivery, *, reason: str, requeue: bool = False) -> None:
        """Put a message that this process holds among the dead letters, or back into its place in the lane."""
        claim = _claim_of(delivery)
        with self._transaction() as run:
            if requeue:
                self._give_back(run, _HELD, *claim.values)
            else:
                self._bury(run, reason, _HELD, *claim.values)
        if requeue:
            doorbell.ring_all(self._bells_at, delivery.lane)

    def depth(self, lane: str) -> LaneDepth:
        """Count a lane's messages; those that a process has just died with count as taken."""
        with self._transaction(write=False) as run:
            ready, taken = run("SELECT COUNT(*) - COUNT(owner), COUNT(owner) FROM message WHERE lane = ?", lane)[0]
            dead = run("SELECT COUNT(*) FROM dead WHERE lane = ?", lane)[0][0]
        return LaneDepth(ready=ready, taken=taken, dead=dead)

    def dead(self, lane: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Read a lane's dead letters, oldest first."""
        statement = "SELECT id, lane, body, reason, at FROM dead WHERE lane = ? ORDER BY number LIMIT ?"
        with self._transaction(write=False) as run:
            rows = run(statement, lane, limit)
        return [DeadLetter(*row) for row in rows]

    def drop_dead(self, lane: str, message_id: str, *, at: float | None = None) -> bool:
        """Remove one dead letter."""
        with self._transaction() as run:
            which = "lane = ? AND id = ? AND at = ifnull(?, at)"
            return bool(run(f"DELETE FROM dead WHERE {which} RETURNING id", lane, message_id, at))  # noqa: S608 <our own text>

    def close(self) -> None:
        """Give back what this object took, and end: a thread that waits in `take` gets None."""
        with self._lock:
            if self._closed:
                return
            bells = dict(self._bells)
            # Where it fails: without its bell this object is as good as dead, and others give back for the dead.
            with contextlib.suppress(BrokerError):
                if bells:
                    self._give_back_all(bells)
            self._closed = True
            self._bells.clear()
        self._file.close()
        for lane, bell in bells.items():
            bell.take_down()
            doorbell.ring_all(self._bells_at, lane)

    def _write(self, run: Run, messages: Sequence[Outgoing]) -> None:
        for each in messages:
            run("INSERT OR IGNORE INTO message (lane, id, body) VALUES (?, ?, ?)", each.lane, each.id, each.body)

    def _ring(self, messages: Sequence[Outgoing]) -> None:
        for lane in dict.fromkeys(each.lane for each in messages):
            doorbell.ring_all(self._bells_at, lane)

    def _claim(self, lane: str, bell: doorbell.Bell, most: int) -> list[Delivery]:
        with self._transaction(write=False) as run:  # most of those who are rung come too late: they needn't write
            if not run(_READY, lane, 1):
                return []
        with self._transaction() as run:
            rows = run(_CLAIM, bell.name, lane, most)
            more = bool(rows and run(_READY, lane, 1))
        if more:
            bell.ring()  # the ring that woke this thread was perhaps meant for two
        return [
            Delivery(lane, message_id, body, redelivered=taken > 1, receipt=_Claim(number, bell.name, taken))
            for number, message_id, body, taken in sorted(rows)
        ]

    def _give_back_of_dead(self, lane: str) -> None:
        now = time.monotonic()
        if now - self._looked.get(lane, -POLL_SECONDS) < POLL_SECONDS:
            return
        self._looked[lane] = now
        with self._transaction(write=False) as run:
            rows = run("SELECT DISTINCT owner FROM message WHERE lane = ? AND owner IS NOT NULL", lane)
        dead = [owner for (owner,) in rows if not doorbell.lives(self._bells_at, lane, owner)]
        if not dead:
            return
        with self._transaction() as run:
            for owner in dead:
                self._give_back(run, "lane = ? AND owner = ?", lane, owner)
        doorbell.ring_all(self._bells_at, lane)

    def _give_back(self, run: Run, which: str, *values: Any) -> None:
        """Return taken messages to their lane; one that was taken too often is what kills its takers."""
        reason = f"taken {DELIVERY_LIMIT} times and never settled"
        self._bury(run, reason, f"{which} AND taken >= {DELIVERY_LIMIT}", *values)
        run(f"UPDATE message SET owner = NULL WHERE {which}", *values)  # noqa: S608 <our own text>

    def _give_back_all(self, bells: dict[str, doorbell.Bell]) -> None:
        """Return what is held, in good order: this take does not count."""
        with self._transaction() as run:
            for lane, bell in bells.items():
                held = "lane = ? AND owner = ?"
                run(f"UPDATE message SET owner = NULL, taken = taken - 1 WHERE {held}", lane, bell.name)  # noqa: S608 <our own text>

    def _bury(self, run: Run, reason: str, which: str, *values: Any) -> None:
        copy = f"INSERT OR REPLACE INTO dead (lane, id, body, reason, at) SELECT lane, id, body, ?, ? FROM message WHERE {which}"  # noqa: S608 <our own text>
        run(copy, reason, self._clock.now(), *values)
        run(f"DELETE FROM message WHERE {which}", *values)  # noqa: S608 <our own text>

    def _bell(self, lane: str) -> doorbell.Bell:
        with self._lock:
            if self._closed:
                raise _closed()
            if lane not in self._bells:
                with self._file.transaction(write=False):
                    pass  # the file first: its directory, its refusals
                try:
                    doorbell.sweep(self._bells_at, lane)
                    self._bells[lane] = doorbell.Bell(self._bells_at, lane)
                except OSError as error:
                    raise self._file.unusable(error) from error
            return self._bells[lane]

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[Run]:
        if self._closed:
            raise _closed()
        with self._file.transaction(write=write) as run:
            yield run


def _claim_of(delivery: Delivery) -> _Claim:
    if not isinstance(delivery.receipt, _Claim):
        raise TypeError("not a delivery of the embedded queue")
    return delivery.receipt


def _closed() -> BrokerUnreachable:
    return BrokerUnreachable("this connection to the queue was closed", hint="open a new one")
