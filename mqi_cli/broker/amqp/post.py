"""A lane's taking end on RabbitMQ: each taker has a consumer of its own, and only while it waits.

The broker pushes to every consumer it knows. A message pushed to a process that is busy for an hour would wait that
hour beside an idle one, and RabbitMQ ends the channel of whoever keeps a message longer than 30 minutes. So a consumer
gets one message and is then cancelled, before the message is handed out and could be acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from mqi_cli.broker.amqp.channel import Arrival, Channel
from mqi_cli.errors import BrokerError, BrokerUnreachable

LINGER_SECONDS = 2.0  # a consumer whose taker got nothing waits so long for it to come back
# A channel that brought nothing for so long is replaced. When a queue is deleted and made again at once, RabbitMQ (seen
# with 3.10.8) tells the consumers nothing, and counts what it then pushes to them as taken without delivering it.
RENEW_SECONDS = 30.0


@dataclass(eq=False)
class _Seat:
    """One consumer. It gets one message, or None: the broker ended it, or the channel ended."""

    served: asyncio.Future[Arrival | None]
    tag: str = ""


class Post:
    """The takers of one lane, on one channel."""

    def __init__(self, queue: str, channel: Channel) -> None:
        self.channel = channel
        self._queue = queue
        self._parked: list[_Seat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._takers = 0
        self._brought_at = asyncio.get_running_loop().time()

    @property
    def is_stale(self) -> bool:
        """Whether it brought nothing for so long that it should be replaced; not while something of it is unsettled."""
        return asyncio.get_running_loop().time() - self._brought_at > RENEW_SECONDS and not self.channel.unsettled

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
            if deadline <= asyncio.get_running_loop().time():
                arrival = await self._take_at_once()
            else:
                arrival = await self._wait(deadline, stop)
        finally:
            self._takers -= 1
        if arrival is not None:
            self._brought_at = asyncio.get_running_loop().time()
        return arrival

    async def _wait(self, deadline: float, stop: asyncio.Event) -> Arrival | None:
        loop = asyncio.get_running_loop()
        seat = self._parked.pop(0) if self._parked else await self._sit_down()
        stopping = loop.create_task(stop.wait())
        try:
            left = max(0.0, min(deadline - loop.time(), RENEW_SECONDS))
            waited: set[asyncio.Future[Any]] = {seat.served, stopping}
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._park(seat)
            raise
        finally:
            stopping.cancel()
        if not seat.served.done():
            self._park(seat)
            return None
        arrival = seat.served.result()
        if arrival is None:
            raise self.channel.ended or BrokerUnreachable(
                f"the broker ended our waiting for the queue {self._queue}", hint="it is waited for again by itself"
            )
        try:
            await self.channel.cancel(seat.tag)
        except BaseException:
            self.channel.give_back(arrival.tag)  # nobody will get it
            raise
        return arrival

    async def _take_at_once(self) -> Arrival | None:
        while self._parked:
            # What was pushed to a consumer is in no queue to be got from.
            if arrival := await self._stand_up(self._parked.pop(0)):
                return arrival
        return await self.channel.get(self._queue)

    async def _sit_down(self) -> _Seat:
        seat = _Seat(asyncio.get_running_loop().create_future())

        def serve(arrival: Arrival | None = None) -> None:
            if not seat.served.done():
                seat.served.set_result(arrival)

        seat.tag = await self.channel.consume(self._queue, arrived=serve, cancelled=serve)
        return seat

    async def _stand_up(self, seat: _Seat) -> Arrival | None:
        await self.channel.cancel(seat.tag)
        return seat.served.result() if seat.served.done() else None

    def _park(self, seat: _Seat) -> None:
        self._parked.append(seat)
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._clear_away, seat)

    def _clear_away(self, seat: _Seat) -> None:
        if seat in self._parked:
            self._parked.remove(seat)
            task = asyncio.get_running_loop().create_task(self._retire(seat))
            self._tasks.add(task)  # the loop itself would forget it
            task.add_done_callback(self._tasks.discard)

    async def _retire(self, seat: _Seat) -> None:
        with contextlib.suppress(BrokerError):
            if arrival := await self._stand_up(seat):
                self.channel.give_back(arrival.tag)
