"""Brokers that a test can break off: a list in memory, and the embedded queue; both behind a fuse that blows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from mqi_cli.broker.base import Broker, DeadLetter, Delivery, LaneDepth, Outgoing


class Crash(BaseException):
    """The process dies here. Not an `Exception`: nothing may catch it."""


class Fuse:
    """Counts the durable points that a process passes, and blows at the chosen one. `passed` names them."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.passed: list[str] = []

    def set(self, point: int | None) -> None:
        """Let the process die at the `point`-th durable point from now; None: let it live."""
        self.left = point
        self.passed = []

    def at(self, point: str) -> None:
        """Pass a durable point, or die there."""
        self.passed.append(point)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Crash(point)


class ListLanes:
    """What a broker holds: it outlives its clients."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Outgoing]] = {}
        self.buried: list[DeadLetter] = []
        self.numbers = itertools.count(1)


class ListBroker:
    """One client's connection to `ListLanes`: what it has taken and not settled goes back when it ends."""

    def __init__(self, lanes: ListLanes) -> None:
        self._lanes = lanes
        self._taken: dict[int, Outgoing] = {}

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Append to the lanes; as RabbitMQ does, a repeat comes twice."""
        for each in messages:
            self._lanes.waiting.setdefault(each.lane, []).append(each)

    def take(self, lane: str, *, timeout: float) -> Delivery | None:
        """Take the first message."""
        del timeout
        waiting = self._lanes.waiting.get(lane)
        if not waiting:
            return None
        message, number = waiting.pop(0), next(self._lanes.numbers)
        self._taken[number] = message
        return Delivery(lane, message.id, message.body, False, number)

    def take_many(self, lane: str, *, timeout: float, most: int) -> list[Delivery]:
        """Take the first messages."""
        deliveries = (self.take(lane, timeout=timeout) for _ in range(most))
        return list(itertools.takewhile(lambda each: each is not None, deliveries))  # type: ignore[arg-type]

    def ack(self, *deliveries: Delivery) -> None:
        """Settle."""
        for delivery in deliveries:
            self._taken.pop(_number(delivery), None)

    def answer(self, delivery: Delivery, messages: Sequence[Outgoing]) -> None:
        """Publish, then settle."""
        self.publish(messages)
        self.ack(delivery)

    def reject(self, delivery: Delivery, *, reason: str, requeue: bool = False) -> None:
        """Bury or put back."""
        message = self._taken.pop(_number(delivery))
        if requeue:
            self._lanes.waiting[message.lane].insert(0, message)
        else:
            self._lanes.buried.append(DeadLetter(message.id, message.lane, message.body, reason, 0.0))

    def depth(self, lane: str) -> LaneDepth:
        """Count what waits; what any client has taken is not told."""
        return LaneDepth(len(self._lanes.waiting.get(lane, [])), sum(m.lane == lane for m in self._taken.values()), 0)

    def dead(self, lane: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the dead letters."""
        return [each for each in self._lanes.buried if each.lane == lane][:limit]

    def drop_dead(self, lane: str, message_id: str) -> bool:
        """Remove nothing: no test of this asks for it."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what was taken, in its order."""
        for message in reversed(self._taken.values()):
            self._lanes.waiting.setdefault(message.lane, []).insert(0, message)
        self._taken.clear()


def _number(delivery: Delivery) -> int:
    assert isinstance(delivery.receipt, int)
    return delivery.receipt


class FusedBroker:
    """The conductor's connection: it may die before and after each thing that lasts."""

    def __init__(self, broker: Broker, fuse: Fuse) -> None:
        self._broker = broker
        self._fuse = fuse

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish; of a batch that is broken off, any part may have come through: here all or nothing."""
        self._fuse.at("before publish")
        self._broker.publish(messages)
        self._fuse.at("after publish")

    def take_many(self, lane: str, *, timeout: float, most: int) -> list[Delivery]:
        """Take, and perhaps die with it."""
        deliveries = self._broker.take_many(lane, timeout=timeout, most=most)
        if deliveries:
            self._fuse.at("after take")
        return deliveries

    def ack(self, *deliveries: Delivery) -> None:
        """Settle."""
        self._fuse.at("before ack")
        self._broker.ack(*deliveries)
        self._fuse.at("after ack")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)
