"""Keeps one connection to RabbitMQ up and the queues in place: reconnects with growing pauses, declares anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mqi_cli.broker.amqp.channel import Channel
from mqi_cli.broker.amqp.connection import Connection
from mqi_cli.broker.amqp.login import Login
from mqi_cli.broker.amqp.refusals import QueueMissing
from mqi_cli.broker.base import DELIVERY_LIMIT
from mqi_cli.errors import BrokerError, BrokerRefused

DEAD = ".dead"  # ends the name of the queue that holds a lane's dead letters
RETRY_FIRST = 0.2  # seconds between two tries to connect; doubles, and is spread at random
RETRY_MOST = 10.0
CLOSE_SECONDS = 10.0

_DEAD_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "quorum",
    # Looking at dead letters takes them and puts them back, which counts. From RabbitMQ 4.0 on, 20 would be the limit.
    "x-delivery-limit": 1_000_000_000,
}


def _lane_arguments(queue: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue + DEAD,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # which at-least-once demands
    }


class Line:
    """Keeps one connection up: opens it when it is needed, and after a failure not before a pause."""

    def __init__(self, login: Login, purpose: str, spread: Callable[[], float]) -> None:
        self._login = login
        self._purpose = purpose
        self._spread = spread
        self._connection: Connection | None = None
        self._confirming: Channel | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._preparing = asyncio.Lock()
        self._failure: BrokerError | None = None
        self._failures = 0
        self._not_before = 0.0

    async def connection(self) -> Connection:
        """Return the open connection. Within the pause after a failure it raises that failure again."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None:
            if self._failure is not None and self.pause() > 0:
                raise type(self._failure)(self._failure.message, hint=self._failure.hint)
            self._opening = asyncio.get_running_loop().create_task(self._open())
        # A caller whose time is up goes; the opening goes on, or a slow network would never be connected.
        return await asyncio.shield(self._opening)

    async def _open(self) -> Connection:
        connection = Connection(self._login, self._purpose)
        try:
            await connection.open()
        except BrokerError as error:
            self._failure = error
            delay = min(RETRY_MOST, RETRY_FIRST * 2 ** min(self._failures, 10))
            self._failures += 1
            self._not_before = asyncio.get_running_loop().time() + delay * (0.5 + self._spread() / 2)
            raise
        else:
            self._failure, self._failures = None, 0
            self._connection = connection
            return connection
        finally:
            self._opening = None

    async def confirming(self) -> Channel:
        """Return the channel that publishes."""
        connection = await self.connection()
        async with self._preparing:
            channel = self._confirming
            if channel is None or channel.ended or channel.connection is not connection:
                channel = await connection.channel()
                await channel.confirm()
                self._confirming = channel
            return channel

    async def declare(self, queue: str) -> None:
        """Make sure of a lane's queue and of the companion for its dead letters, once for each connection."""
        connection = await self.connection()
        async with self._preparing:
            if queue not in connection.declared:
                await _declare(connection, queue + DEAD, _DEAD_ARGUMENTS)
                await _declare(connection, queue, _lane_arguments(queue))
                connection.declared.add(queue)

    async def claim(self, name: str) -> None:
        """Make sure that no other connection claims the name; it is free again when this connection has ended.

        Raises `BrokerRefused` while another has it. Who may make no queues can't claim, and is not held up by that.
        """
        connection = await self.connection()
        async with self._preparing:
            if name not in connection.declared:
                channel = await connection.channel()
                try:
                    await channel.claim(name)
                except BrokerRefused as refusal:
                    if "ACCESS_REFUSED" not in refusal.message:
                        raise
                else:
                    await channel.close()
                connection.declared.add(name)

    def pause(self) -> float:
        """Return how long it is until the next try to connect."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    def forget_queues(self) -> None:
        """Declare the queues again before they are next used."""
        if self._connection is not None:
            self._connection.declared.clear()

    async def close(self) -> None:
        """End the connection, in good order where that takes no time."""
        if self._connection is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._connection.close()
            except (BrokerError, TimeoutError):
                pass  # the broker finds out by the heartbeats


async def _declare(connection: Connection, queue: str, arguments: dict[str, Any]) -> None:
    channel = await connection.channel()  # of its own: a refusal ends the channel
    try:
        await channel.declare(queue, arguments)
    except BrokerRefused as refusal:
        # Whoever may not make queues may still use those that are there.
        if "ACCESS_REFUSED" not in refusal.message:
            raise
        channel = await connection.channel()
        try:
            await channel.look(queue)
        except QueueMissing:
            raise refusal from None
    await channel.close()
