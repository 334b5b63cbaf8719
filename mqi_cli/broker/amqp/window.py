"""The taking end of a lane that has one taker for ever: the broker pushes ahead, so that a message costs no round trip.

What lies in the window waits for nobody else, because nobody else takes from the lane. It counts as taken until it is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from mqi_cli.broker.amqp.channel import Arrival, Channel
from mqi_cli.broker.amqp.post import LINGER_SECONDS, RENEW_SECONDS
from mqi_cli.errors import BrokerError, BrokerUnreachable

AHEAD = 200  # messages that are pushed and not settled


class Window:
    """One consumer that stays, and what it brought."""

    def __init__(self, queue: str, channel: Channel) -> None:
        self.channel = channel
        self._queue = queue
        self._arrived: deque[Arrival] = deque()
        self._news = asyncio.Event()
        self._opening = asyncio.Lock()
        self._tag = ""
        self._cancelled = False
        self._takers = 0
        self._brought_at = asyncio.get_running_loop().time()

    @property
    def is_stale(self) -> bool:
        """Whether it should be replaced: ended by the broker, or silent for long with nothing in it that is unsettled."""
        silent = asyncio.get_running_loop().time() - self._brought_at > RENEW_SECONDS
        return self._cancelled or (silent and not self.channel.unsettled)

    async def close(self) -> None:
        """Close the channel when its last taker has left it."""
        while self._takers:
            await asyncio.sleep(LINGER_SECONDS)
        with contextlib.suppress(BrokerError):
            await self.channel.close()

    async def take(self, deadline: float, *, stop: asyncio.Event) -> Arrival | None:
        """Return the next message, or None at the deadline (of the loop's clock), when `stop` is set, or earlier: ask again."""
        self._takers += 1
        try:
            await self._open()
            if not self._arrived:
                await self._wait(deadline, stop)
        finally:
            self._takers -= 1
        return self._arrived.popleft() if self._arrived else None

    def more(self, most: int) -> list[Arrival]:
        """Return what else has arrived, up to so many."""
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def _open(self) -> None:
        async with self._opening:
            if not self._tag:
                await self.channel.push_ahead(AHEAD)
                self._tag = await self.channel.consume(self._queue, arrived=self._keep, cancelled=self._end)

    async def _wait(self, deadline: float, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        self._refuse_if_ended()
        self._news.clear()
        # A look at the queue settles whether something is on its way: a push has no reply that could be waited for.
        left = deadline - loop.time()
        if left <= 0:
            await self.channel.look(self._queue)
        else:
            waits = [loop.create_task(each.wait()) for each in (self._news, stop)]
            try:
                await asyncio.wait(waits, timeout=min(left, RENEW_SECONDS), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
        if not self._arrived:
            self._refuse_if_ended()

    def _refuse_if_ended(self) -> None:
        if self.channel.ended or self._cancelled:
            raise self.channel.ended or BrokerUnreachable(
                f"the broker ended our waiting for the queue {self._queue}", hint="it is waited for again by itself"
            )

    def _keep(self, arrival: Arrival) -> None:
        self._arrived.append(arrival)
        self._brought_at = asyncio.get_running_loop().time()
        self._news.set()

    def _end(self) -> None:
        self._cancelled = True
        self._arrived.clear()  # the broker has them back when the channel is closed, or nobody has
        self._news.set()
