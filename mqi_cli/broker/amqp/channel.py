"""One AMQP channel. Its calls go one after the other: pika would give one `basic.cancel`'s reply to all that wait."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions as errors

from mqi_cli.broker.amqp.refusals import REACH_HINT, lost
from mqi_cli.errors import BrokerError, BrokerUnreachable

if TYPE_CHECKING:
    from mqi_cli.broker.amqp.connection import Connection

REPLY_SECONDS = 10.0  # a broker under load takes seconds; one that takes longer is as good as away
CONFIRM_SECONDS = 20.0

# RabbitMQ that was killed within seconds of making a queue comes up with that queue leaderless, and it stays so:
# https://github.com/rabbitmq/rabbitmq-server/issues/10070 and 15725. Seen with 3.10.8 on one node.
_QUEUE_HINT = (
    "where it answers otherwise, look at the queue: rabbitmq-queues quorum_status QUEUE; if it has no leader and this lasts, "
    "rabbitmqctl delete_queue QUEUE (it is made again, and no case is lost: what is due is sent again)"
)


@dataclass(frozen=True)
class Letter:
    """A message as AMQP carries it."""

    queue: str
    id: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True)
class Arrival:
    """A message as it came in, to be settled by its tag on the channel that it came on."""

    channel: Channel
    tag: int
    letter: Letter
    redelivered: bool


class Channel:
    """One channel. `ended` is why it can't be used any more."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ended: BrokerError | None = None
        self.unsettled: set[int] = set()
        self._pika: Any = None
        self._calls = asyncio.Lock()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._got: asyncio.Future[Any] | None = None
        self._cancelled: dict[str, Callable[[], None]] = {}
        self._published = 0
        self._unconfirmed: set[int] = set()
        self._refused = 0
        self._returned: set[str] = set()
        self._confirmed: asyncio.Future[Any] | None = None

    async def open(self, connection: Any) -> None:
        """Open it on a pika connection."""
        opened = self._future()
        try:
            self._pika = connection.channel(on_open_callback=partial(settle_future, opened))
        except errors.AMQPError as error:
            raise lost(error, self.connection.login) from error
        self._pika.add_on_close_callback(self._on_close)
        await self._reply(opened)
        self._pika.add_on_cancel_callback(self._on_cancel)
        self._pika.add_callback(self._on_get_empty, [pika.spec.Basic.GetEmpty], one_shot=False)
        await self._call(self._pika.basic_qos, prefetch_count=1)

    async def push_ahead(self, count: int) -> None:
        """Have so many messages delivered before the first of them is settled, to the consumers that begin from now on."""
        await self._call(self._pika.basic_qos, prefetch_count=count)

    async def declare(self, queue: str, arguments: Mapping[str, Any]) -> int:
        """Make sure of a durable queue and return how many of its messages wait to be taken.

        Raises `BrokerRefused` where it exists with other arguments, or where we may neither make nor see it. The
        channel has then ended, as after every refusal.
        """
        frame = await self._call(self._pika.queue_declare, queue=queue, durable=True, arguments=dict(arguments))
        return int(frame.method.message_count)

    async def claim(self, queue: str) -> None:
        """Make a queue that belongs to this connection alone; `BrokerRefused` while it is another's."""
        await self._call(self._pika.queue_declare, queue=queue, exclusive=True, auto_delete=True)

    async def look(self, queue: str) -> int:
        """Return how many messages a queue holds; `QueueMissing` when there is none of that name."""
        frame = await self._call(self._pika.queue_declare, queue=queue, passive=True)
        return int(frame.method.message_count)

    async def consume(self, queue: str, *, arrived: Callable[[Arrival], None], cancelled: Callable[[], None]) -> str:
        """Have one message at a time delivered to `arrived`; return the consumer's tag.

        `cancelled` is called when the broker ends it: the queue was deleted, or a delivery was kept too long.
        """

        def on_message(_: Any, method: Any, properties: Any, body: bytes) -> None:
            arrived(self._arrival(queue, method, properties, body))

        tag = uuid.uuid4().hex
        self._cancelled[tag] = cancelled
        try:
            await self._call(
                self._pika.basic_consume,
                queue=queue,
                on_message_callback=on_message,
                consumer_tag=tag,
                hint=_QUEUE_HINT,
            )
        except BrokerError:
            self._cancelled.pop(tag, None)
            raise
        return tag

    async def cancel(self, tag: str) -> None:
        """End a consumer. What it was given already stays to be settled."""
        if self._cancelled.pop(tag, None) is not None and tag in self._pika.consumer_tags:
            await self._call(self._pika.basic_cancel, consumer_tag=tag)

    async def get(self, queue: str) -> Arrival | None:
        """Take one message if there is one at this moment."""
        async with self._calls:
            self._refuse_if_ended()
            self._got = self._future()
            try:
                self._pika.basic_get(queue=queue, callback=self._on_get)
                found = await self._reply(self._got, hint=_QUEUE_HINT)
            except (errors.AMQPError, errors.ChannelError) as error:
                raise lost(error, self.connection.login) from error
            finally:
                self._got = None
        return self._arrival(queue, *found) if found else None

    async def publish(self, letters: Iterable[Letter]) -> set[str]:
        """Send letters and wait until all are confirmed as safe; return the ids of those that found no queue.

        One batch at a time. Raises `BrokerUnreachable` where the broker refuses, is blocked or breaks off.
        """
        async with self._calls:
            self._refuse_if_ended()
            if self.connection.blocked:
                raise self.connection.blocked_error()
            self._confirmed = self._future()
            self._returned, self._refused = set(), 0
            self._unconfirmed.clear()
            try:
                for letter in letters:
                    self._pika.basic_publish("", letter.queue, letter.body, self._properties(letter), mandatory=True)
                    self._published += 1  # as the broker counts, from 1
                    self._unconfirmed.add(self._published)
                if self._unconfirmed:
                    await self._reply(self._confirmed, CONFIRM_SECONDS, hint=_QUEUE_HINT)
            except errors.AMQPError as error:
                raise lost(error, self.connection.login) from error
            finally:
                self._confirmed = None
        if self._refused:
            raise BrokerUnreachable(
                f"the broker {self.connection.login.place} did not take {self._refused} messages",
                hint="look at its log and at its queues' leaders",
            )
        return self._returned

    async def confirm(self) -> None:
        """Have what is published on this channel confirmed."""
        self._pika.add_on_return_callback(self._on_return)
        await self._call(self._pika.confirm_delivery, ack_nack_callback=self._on_confirm)

    def ack(self, tag: int) -> None:
        """Settle a message for good. On a channel that ended it does nothing: the message comes again."""
        if self._forgets(tag):
            self._pika.basic_ack(tag)

    def put_back(self, tag: int) -> None:
        """Put a message back, counted against its delivery limit."""
        if self._forgets(tag):
            self._pika.basic_reject(tag, requeue=True)

    def give_back(self, *tags: int) -> None:
        """Give messages back that nobody tried; from RabbitMQ 4.3 on this doesn't count."""
        for tag in tags:
            if self._forgets(tag):
                self._pika.basic_nack(tag, requeue=True)

    def _forgets(self, tag: int) -> bool:
        if tag not in self.unsettled or self.ended is not None or not self._pika.is_open:
            return False
        self.unsettled.discard(tag)
        return True

    async def close(self) -> None:
        """Close the channel; on return the broker has dealt with all that was sent on it."""
        if self.ended is None and self._pika.is_open:
            closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()  # any end will do
            self._pika.add_on_close_callback(lambda *_: settle_future(closed))
            self._pika.close()
            await self._reply(closed)

    def end(self, reason: BrokerError) -> None:
        """Take note that the channel ended, and fail whoever waits on it."""
        if self.ended is None:
            self.ended = reason
            self.unsettled.clear()
            self.fail(reason)
            for cancelled in self._cancelled.values():
                cancelled()
            self._cancelled.clear()
            self.connection.forget(self)

    def fail(self, reason: BrokerError) -> None:
        """Fail whoever waits for a reply."""
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_exception(type(reason)(reason.message, hint=reason.hint))

    async def _call(self, method: Callable[..., Any], *, hint: str = REACH_HINT, **arguments: Any) -> Any:
        async with self._calls:
            self._refuse_if_ended()
            reply = self._future()
            try:
                method(callback=partial(settle_future, reply), **arguments)
            except errors.AMQPError as error:
                raise lost(error, self.connection.login) from error
            return await self._reply(reply, hint=hint)

    async def _reply(self, reply: asyncio.Future[Any], limit: float = REPLY_SECONDS, *, hint: str = REACH_HINT) -> Any:
        try:
            async with asyncio.timeout(limit):
                return await reply
        except TimeoutError:
            place = self.connection.login.place
            silent = BrokerUnreachable(f"the broker {place} gave no answer for {limit:.0f} s", hint=hint)
            self.connection.give_up(silent)  # nobody knows what became of what was asked: begin anew
            raise silent from None
        finally:
            self._waiting.discard(reply)

    def _future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        return future

    def _refuse_if_ended(self) -> None:
        if self.ended is not None:
            raise type(self.ended)(self.ended.message, hint=self.ended.hint)

    def _properties(self, letter: Letter) -> Any:
        return pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,  # on disk before it is confirmed
            message_id=letter.id,
            timestamp=int(letter.at) or None,
            user_id=self.connection.login.user,  # which the broker compares with who logged in
            app_id="mqi",
            headers=dict(letter.headers) or None,
        )

    def _arrival(self, queue: str, method: Any, properties: Any, body: bytes) -> Arrival:
        self.unsettled.add(method.delivery_tag)
        letter = Letter(queue, properties.message_id or "", body, properties.headers or {}, properties.timestamp or 0.0)
        return Arrival(self, method.delivery_tag, letter, bool(method.redelivered))

    def _on_get(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._got is not None:
            settle_future(self._got, (method, properties, body))
        else:  # who asked has gone
            self._pika.basic_nack(method.delivery_tag, requeue=True)

    def _on_get_empty(self, _: Any) -> None:
        if self._got is not None:
            settle_future(self._got)

    def _on_cancel(self, frame: Any) -> None:
        cancelled = self._cancelled.pop(frame.method.consumer_tag, None)
        if cancelled is not None:
            cancelled()

    def _on_return(self, _: Any, __: Any, properties: Any, ___: bytes) -> None:
        self._returned.add(properties.message_id or "")

    def _on_confirm(self, frame: Any) -> None:
        last, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = {tag for tag in self._unconfirmed if tag <= last} if multiple else self._unconfirmed & {last}
        self._unconfirmed -= tags
        if isinstance(frame.method, pika.spec.Basic.Nack):
            self._refused += len(tags)
        if not self._unconfirmed and self._confirmed is not None:
            settle_future(self._confirmed)

    def _on_close(self, _: Any, reason: BaseException) -> None:
        self.end(lost(reason, self.connection.login))


def settle_future(future: asyncio.Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)
