"""The broker contract: a doorbell that carries messages between the conductor and the lanes. Five verbs, some for many at once.

SQLite is the truth; a broker may lose everything and no case is lost. What it must do is deliver at least once, keep
what it confirmed across its own restart, and never block for ever. Two implementations, one test suite:
`embedded.py` (a SQLite file of its own, one machine, no server) and `rabbitmq.py`.

An object of this contract may be used from several threads of one process, and never crosses a fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DELIVERY_LIMIT = 10  # a message that was taken so often and never settled is what kills its takers: a dead letter


@dataclass(frozen=True)
class Outgoing:
    """A message on its way to a lane. `id` is the message's own id; the broker may use it to drop repeats."""

    lane: str
    id: str
    body: bytes


@dataclass(frozen=True)
class Delivery:
    """A message taken from a lane. It comes back to the lane unless it is settled before the connection ends.

    `receipt` is the implementation's own. `redelivered` is a hint only.
    """

    lane: str
    id: str
    body: bytes
    redelivered: bool
    receipt: object


@dataclass(frozen=True)
class LaneDepth:
    """How many messages a lane holds: to be taken, taken and not settled, dead.

    RabbitMQ tells only of this process's own what is taken.
    """

    ready: int
    taken: int
    dead: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that was refused for good, with the reason and the lane it was refused on."""

    id: str
    lane: str
    body: bytes
    reason: str
    at: float


class Broker(Protocol):
    """The verbs: publish, take, ack, reject, depth. Dead letters are a companion of each lane, read and emptied apart.

    Every method raises `BrokerUnreachable` where trying again can help, `BrokerRefused` where a person must act, and
    reconnects by itself when it is called again.
    """

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Hand over messages, in order, as one batch. On return every one is durable; on an error any may be."""

    def take(self, lane: str, *, timeout: float) -> Delivery | None:
        """Wait up to `timeout` seconds for the next message of a lane. None when there is none."""

    def take_many(self, lane: str, *, timeout: float, most: int) -> list[Delivery]:
        """Wait likewise for the next message, and take with it, in order, up to `most` that are there.

        Ask for no more than is worked on at once: nobody else gets them.
        """

    def ack(self, *deliveries: Delivery) -> None:
        """Settle deliveries. One that the connection has meanwhile lost is no error: the message comes again."""

    def answer(self, deliveries: Sequence[Delivery], messages: Sequence[Outgoing]) -> None:
        """Publish messages, and settle the deliveries that they answer: never the second without the first."""

    def reject(self, delivery: Delivery, *, reason: str, requeue: bool = False) -> None:
        """Put a delivery among the lane's dead letters with the reason, or back into its lane."""

    def depth(self, lane: str) -> LaneDepth:
        """Count a lane's messages."""

    def dead(self, lane: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Look at a lane's dead letters, oldest first; they stay where they are."""

    def drop_dead(self, lane: str, message_id: str, *, at: float | None = None) -> bool:
        """Remove one dead letter. False when there is none of that id, or none that was put there `at` that time."""

    def close(self) -> None:
        """Give back what was taken and end the connection. May be called twice."""
