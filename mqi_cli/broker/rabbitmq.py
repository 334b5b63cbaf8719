"""RabbitMQ, 3.10 to 4.x: the broker contract on quorum queues.

A lane is the queue `<prefix>.<lane>`, its dead letters the queue `<prefix>.<lane>.dead`. One thread of this process
does all the I/O, over two connections: an alarm on the broker blocks the one that publishes, and acknowledgements
still pass on the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mqi_cli.broker.amqp.channel import Arrival, Channel, Letter
from mqi_cli.broker.amqp.line import DEAD, RETRY_FIRST, Line
from mqi_cli.broker.amqp.login import read_login
from mqi_cli.broker.amqp.post import Post
from mqi_cli.broker.amqp.refusals import REACH_HINT
from mqi_cli.broker.amqp.window import Window
from mqi_cli.broker.base import DELIVERY_LIMIT, DeadLetter, Delivery, LaneDepth, Outgoing
from mqi_cli.clock import Clock
from mqi_cli.config.model import BrokerSection
from mqi_cli.crash_points import crash_point
from mqi_cli.errors import BrokerError, BrokerRefused, BrokerUnreachable

BATCH = 500  # letters that are on the way before their confirmations are waited for
PUBLISH_SECONDS = 40.0  # connecting and declaring included; a process that hangs for a minute is taken for stuck
PATIENCE_SECONDS = 5.0  # a `take` waits at least so long for a connection to come up
REASON_LIMIT = 1000  # characters

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Consignment:
    """What one thread has published, and its end."""

    lanes: tuple[str, ...]
    letters: tuple[Letter, ...]
    sent: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def succeed(self) -> None:
        """Tell the thread that all is safe, unless it was told otherwise."""
        if not self.sent.done():
            self.sent.set_result(None)

    def fail(self, error: BrokerError) -> None:
        """Tell the thread why not; each gets an exception of its own."""
        if not self.sent.done():
            self.sent.set_exception(type(error)(error.message, hint=error.hint))


class RabbitBroker:
    """The five verbs on RabbitMQ. Connects when the first of them is called.

    `sole` names a lane that only one process takes from: while another has it, taking and publishing are refused.
    """

    def __init__(
        self,
        section: BrokerSection,
        *,
        sole: str = "",
        clock: Clock | None = None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._login = read_login(section)
        self._sole = sole
        self._prefix = section.prefix
        self._clock = clock or Clock()
        self._start_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        # The rest belongs to the I/O thread.
        self._publishing = Line(self._login, "publishes", spread)
        self._taking = Line(self._login, "takes", spread)
        self._posts: dict[str, Post | Window] = {}
        self._posting = asyncio.Lock()
        self._consignments: list[Consignment] = []  # to be published next
        self._sending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish and wait until the broker has every message on disk. Ids are not compared: a repeat comes twice."""
        letters = [Letter(self._queue(each.lane), each.id, each.body, at=self._clock.now()) for each in messages]
        self._run(self._publish_in_time([each.lane for each in messages], letters))

    def take(self, lane: str, *, timeout: float) -> Delivery | None:
        """Take a lane's next message, waiting for one, and for the broker, up to `timeout` seconds. None also when closed meanwhile."""
        arrival = self._run(self._take(lane, timeout))
        return _delivery(lane, arrival) if arrival else None

    def take_many(self, lane: str, *, timeout: float, most: int) -> list[Delivery]:
        """Take a lane's next message as `take` does, and with it what more is there."""
        return [_delivery(lane, each) for each in self._run(self._take_many(lane, timeout, most))]

    def ack(self, *deliveries: Delivery) -> None:
        """Tell the broker that messages are dealt with."""
        self._run(self._settle([_arrival_of(each) for each in deliveries]))

    def answer(self, deliveries: Sequence[Delivery], messages: Sequence[Outgoing]) -> None:
        """Publish messages; once they are confirmed, tell the broker that those they answer are dealt with."""
        self.publish(messages)
        crash_point("worker.accepted")
        self.ack(*deliveries)

    def reject(self, delivery: Delivery, *, reason: str, requeue: bool = False) -> None:
        """Put a message among the dead letters, with the reason in a header, or back into its lane."""
        arrival = _arrival_of(delivery)
        if not requeue:
            # The copy first: dying in between makes two of it rather than none.
            now = self._clock.now()
            headers = {
                "x-mqi-reason": reason[:REASON_LIMIT],
                "x-mqi-at-ms": round(now * 1000),
            }  # pika carries no floats
            letter = Letter(self._queue(delivery.lane) + DEAD, delivery.id, delivery.body, headers, now)
            self._run(self._publish_in_time([delivery.lane], [letter]))
        self._run(self._soon(arrival.channel.put_back if requeue else arrival.channel.ack, arrival.tag))

    def depth(self, lane: str) -> LaneDepth:
        """Count a lane's messages. The protocol doesn't tell what others have taken: `taken` is this object's own."""
        return self._run(self._depth(lane))

    def dead(self, lane: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Read a lane's dead letters, oldest first. Who looks at the same moment may see fewer."""
        letters = [_dead_letter(lane, each) for each in self._run(self._look_at_dead(lane, limit))]
        return sorted(letters, key=lambda each: each.at)

    def drop_dead(self, lane: str, message_id: str, *, at: float | None = None) -> bool:
        """Remove one dead letter."""
        return self._run(self._drop_dead(lane, message_id, at))

    def close(self) -> None:
        """End the connections, upon which the broker has back what was taken; a thread that waits in `take` gets None."""
        with self._start_lock:
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have the I/O thread do something and wait for it. Every such thing ends within limits of its own."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        except BrokerUnreachable:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()  # interrupted from the keyboard, say: the I/O thread puts back what it was given
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._start_lock:
            if self._closed:
                raise _closed()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_turn, args=(self._loop,), name="rabbitmq", daemon=True)
                self._thread.start()
            return self._loop

    async def _publish_in_time(self, lanes: Iterable[str], letters: Sequence[Letter]) -> None:
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._publish_with_others(Consignment(tuple(dict.fromkeys(lanes)), tuple(letters)))
        except TimeoutError:
            raise BrokerUnreachable(f"the broker {self._login.place} is too slow", hint=REACH_HINT) from None

    async def _publish_with_others(self, consignment: Consignment) -> None:
        """Publish in one go with what other threads publish meanwhile: all wait for one round of confirmations."""
        self._consignments.append(consignment)
        if not self._sending:
            self._sending = True
            self._later(self._send())
        await consignment.sent

    async def _send(self) -> None:
        try:
            while self._consignments:
                going, self._consignments = self._consignments, []
                try:
                    async with asyncio.timeout(PUBLISH_SECONDS):
                        await self._publish(
                            [lane for each in going for lane in each.lanes],
                            [letter for each in going for letter in each.letters],
                        )
                except BrokerRefused as error:
                    if len(going) == 1:
                        going[0].fail(error)
                    for each in going if len(going) > 1 else ():  # one lane's fault is not the others'
                        await self._publish_alone(each)
                except BrokerError as error:
                    for each in going:
                        each.fail(error)
                except TimeoutError:
                    for each in going:
                        each.fail(BrokerUnreachable(f"the broker {self._login.place} is too slow", hint=REACH_HINT))
                except asyncio.CancelledError:  # this object is closed
                    for each in going:
                        each.sent.cancel()
                    raise
                for each in going:
                    each.succeed()
        finally:
            self._sending = False

    async def _publish_alone(self, consignment: Consignment) -> None:
        try:
            await self._publish(consignment.lanes, consignment.letters)
        except BrokerError as error:
            consignment.fail(error)

    async def _publish(self, lanes: Iterable[str], letters: Sequence[Letter]) -> None:
        queues = [self._queue(lane) for lane in dict.fromkeys(lanes)]
        await self._claim()
        for start in range(0, len(letters), BATCH):
            returned = await self._publish_batch(queues, letters[start : start + BATCH])
            if returned:  # a queue was deleted since it was declared
                self._publishing.forget_queues()
                returned = await self._publish_batch(queues, returned)
            if returned:
                raise BrokerUnreachable(
                    f"the broker {self._login.place} has no queue for {len(returned)} messages, though it was just made",
                    hint="look who deletes the queues: rabbitmqctl list_queues",
                )

    async def _publish_batch(self, queues: Iterable[str], letters: Sequence[Letter]) -> list[Letter]:
        for queue in queues:
            await self._publishing.declare(queue)
        channel = await self._publishing.confirming()
        returned = await channel.publish(letters)
        return [each for each in letters if each.id in returned]

    async def _take(self, lane: str, timeout: float) -> Arrival | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not self._closing.is_set():
            try:
                post = await self._post_in_time(lane, deadline)
                arrival = await post.take(deadline, stop=self._closing)
                if arrival is not None or loop.time() >= deadline:
                    return arrival
            except BrokerUnreachable:
                # Tried again here, rather than by every caller, as long as there is time.
                self._taking.forget_queues()
                left = deadline - loop.time()
                if left <= 0:
                    raise
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), min(left, self._taking.pause() or RETRY_FIRST))
        return None

    async def _take_many(self, lane: str, timeout: float, most: int) -> list[Arrival]:
        first = await self._take(lane, timeout)
        if first is None:
            return []
        window = self._posts.get(lane)
        if isinstance(window, Window):
            return [first, *(window.more(most - 1) if window.channel is first.channel else ())]
        arrivals = [first]
        # a message that was taken already must not be lost to a broken connection: it comes again by itself
        with contextlib.suppress(BrokerUnreachable):
            while len(arrivals) < most and (following := await first.channel.get(self._queue(lane))):
                arrivals.append(following)
        return arrivals

    async def _post_in_time(self, lane: str, deadline: float) -> Post | Window:
        try:
            async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + PATIENCE_SECONDS)):
                return await self._post(lane)
        except TimeoutError:
            raise BrokerUnreachable(f"the broker {self._login.place} does not answer", hint=REACH_HINT) from None

    async def _claim(self) -> None:
        if self._sole:
            await self._taking.claim(f"{self._queue(self._sole)}.taker")

    async def _post(self, lane: str) -> Post | Window:
        queue = self._queue(lane)
        await self._claim()
        await self._taking.declare(queue)
        connection = await self._taking.connection()
        async with self._posting:
            post = self._posts.get(lane)
            if post is None or post.channel.ended or post.is_stale:
                if post is not None:
                    self._later(post.close())
                kind = Window if lane == self._sole else Post
                post = self._posts[lane] = kind(queue, await connection.channel())
            return post

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)

    async def _soon(self, settle: Callable[[int], None], tag: int) -> None:
        settle(tag)

    async def _settle(self, arrivals: Sequence[Arrival]) -> None:
        for each in arrivals:
            each.channel.ack(each.tag)

    async def _depth(self, lane: str) -> LaneDepth:
        queue = self._queue(lane)
        await self._taking.declare(queue)
        channel = await (await self._taking.connection()).channel()
        ready, dead = await channel.look(queue), await channel.look(queue + DEAD)
        await channel.close()
        post = self._posts.get(lane)
        return LaneDepth(ready=ready, taken=len(post.channel.unsettled) if post else 0, dead=dead)

    async def _look_at_dead(self, lane: str, limit: int) -> list[Arrival]:
        async def look(channel: Channel, queue: str) -> list[Arrival]:
            arrivals: list[Arrival] = []
            while len(arrivals) < limit and (arrival := await channel.get(queue)):
                arrivals.append(arrival)
            return arrivals

        return await self._with_dead(lane, look)

    async def _drop_dead(self, lane: str, message_id: str, at: float | None) -> bool:
        async def drop(channel: Channel, queue: str) -> bool:
            while arrival := await channel.get(queue):
                if _id_of(arrival) == message_id and at in (None, _dead_letter(lane, arrival).at):
                    channel.ack(arrival.tag)
                    return True
            return False

        return await self._with_dead(lane, drop)

    async def _with_dead(self, lane: str, work: Callable[[Channel, str], Coroutine[Any, Any, _T]]) -> _T:
        """Do something on a channel of its own, upon whose end all goes back that was got and not settled."""
        queue = self._queue(lane)
        await self._taking.declare(queue)
        channel = await (await self._taking.connection()).channel()
        try:
            return await work(channel, queue + DEAD)
        finally:
            given_back = sorted(channel.unsettled)
            channel.give_back(*given_back)
            # The queue has them back a moment later: who looks again shall see them.
            limit = asyncio.get_running_loop().time() + PATIENCE_SECONDS
            while await channel.look(queue + DEAD) < len(given_back) and asyncio.get_running_loop().time() < limit:
                await asyncio.sleep(0.02)
            await channel.close()

    async def _shut(self) -> None:
        self._closing.set()
        await self._publishing.close()
        await self._taking.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=1.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _queue(self, lane: str) -> str:
        return f"{self._prefix}.{lane}"


def _delivery(lane: str, arrival: Arrival) -> Delivery:
    return Delivery(
        lane=lane, id=_id_of(arrival), body=arrival.letter.body, redelivered=arrival.redelivered, receipt=arrival
    )


def _dead_letter(lane: str, arrival: Arrival) -> DeadLetter:
    headers = arrival.letter.headers
    reason, at = headers.get("x-mqi-reason"), headers.get("x-mqi-at-ms")
    if reason is None:  # the broker's own doing
        death = (headers.get("x-death") or [{}])[0]
        why = str(death.get("reason", "unknown"))
        reason = f"taken {DELIVERY_LIMIT} times and never settled" if why == "delivery_limit" else f"RabbitMQ: {why}"
        at = death["time"].timestamp() * 1000 if "time" in death else None
    seconds = at / 1000 if isinstance(at, int | float) else float(arrival.letter.at)
    return DeadLetter(id=_id_of(arrival), lane=lane, body=arrival.letter.body, reason=str(reason), at=seconds)


def _id_of(arrival: Arrival) -> str:
    """Return the message's id; for a foreign one without an id, one that stays the same."""
    return arrival.letter.id or "unnamed-" + hashlib.sha256(arrival.letter.body).hexdigest()[:16]


def _arrival_of(delivery: Delivery) -> Arrival:
    if not isinstance(delivery.receipt, Arrival):
        raise TypeError("not a delivery of RabbitMQ")
    return delivery.receipt


def _closed() -> BrokerUnreachable:
    return BrokerUnreachable("this connection to the broker was closed", hint="open a new one")


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
