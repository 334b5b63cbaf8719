"""One AMQP connection. It belongs to one event loop that does nothing else: heartbeats go out whatever the process does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from typing import Any

import pika
import pika.exceptions as errors
from pika.adapters.asyncio_connection import AsyncioConnection

from mqi_cli.broker.amqp.channel import REPLY_SECONDS, Channel, settle_future
from mqi_cli.broker.amqp.login import Login
from mqi_cli.broker.amqp.refusals import REACH_HINT, connect_error, lost
from mqi_cli.errors import BrokerError, BrokerUnreachable

CONNECT_SECONDS = 15.0  # TCP, TLS and log-in together
BLOCKED_SECONDS = 30.0  # pika's own default is for ever

# pika logs every failed try at length, with a traceback; what matters of it comes back as our own errors.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class Connection:
    """One connection. `lost` is why it ended; `declared` are the queues that it knows to be there."""

    def __init__(self, login: Login, purpose: str) -> None:
        self.login = login
        self.lost: BrokerError | None = None
        self.blocked = ""
        self.declared: set[str] = set()
        self._purpose = purpose
        self._pika: Any = None
        self._channels: set[Channel] = set()
        self._ended = asyncio.Event()

    async def open(self) -> None:
        """Connect and log in, or raise what stands in the way."""
        login = self.login
        parameters = pika.ConnectionParameters(
            host=login.host,
            port=login.port,
            virtual_host=login.vhost,
            credentials=pika.PlainCredentials(login.user, login.password),
            heartbeat=login.heartbeat,
            blocked_connection_timeout=BLOCKED_SECONDS,
            socket_timeout=CONNECT_SECONDS,
            stack_timeout=CONNECT_SECONDS,
            connection_attempts=1,
            ssl_options=pika.SSLOptions(login.tls, login.host) if login.tls else None,
            client_properties={"connection_name": f"mqi {self._purpose}, process {os.getpid()}"},
        )
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        attempt = AsyncioConnection.create_connection(
            [parameters], on_done=partial(settle_future, done), custom_ioloop=asyncio.get_running_loop()
        )
        try:
            # pika has limits of its own, but none for looking up the host's name.
            result = await asyncio.wait_for(asyncio.shield(done), CONNECT_SECONDS + 5)
        except asyncio.CancelledError:
            attempt.abort()
            raise
        except TimeoutError:
            attempt.abort()
            raise BrokerUnreachable(f"the broker {login.place} does not answer", hint=REACH_HINT) from None
        if isinstance(result, BaseException):
            raise connect_error(result, login) from result
        self._pika = result
        self._pika.add_on_close_callback(self._on_close)
        self._pika.add_on_connection_blocked_callback(self._on_blocked)
        self._pika.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self._pika is not None and self.lost is None and bool(self._pika.is_open)

    async def channel(self) -> Channel:
        """Open a channel."""
        channel = Channel(self)
        self._channels.add(channel)
        await channel.open(self._pika)
        return channel

    async def close(self) -> None:
        """End the connection in good order: the broker has back what was not settled."""
        if self.is_open:
            self._pika.close()
            await asyncio.wait_for(self._ended.wait(), REPLY_SECONDS)

    def give_up(self, reason: BrokerError) -> None:
        """Use the connection no more. What was taken on it comes again."""
        self._end(reason)
        with contextlib.suppress(errors.AMQPError):
            self._pika.close()

    def forget(self, channel: Channel) -> None:
        """Drop a channel that ended."""
        self._channels.discard(channel)

    def _on_close(self, _: Any, reason: BaseException) -> None:
        self._end(lost(reason, self.login))
        self._ended.set()

    def _end(self, reason: BrokerError) -> None:
        if self.lost is None:
            self.lost = reason
            for channel in list(self._channels):
                channel.end(reason)

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason or "an alarm")
        for channel in self._channels:
            channel.fail(self.blocked_error())

    def _on_unblocked(self, *_: Any) -> None:
        self.blocked = ""

    def blocked_error(self) -> BrokerUnreachable:
        """Say that the broker takes no messages now."""
        return BrokerUnreachable(
            f"the broker {self.login.place} takes no messages now: {self.blocked}",
            hint="make space on its disk or memory (rabbitmq-diagnostics alarms); the work goes on by itself then",
        )
