"""A TCP proxy on loopback that breaks connections on purpose: cut, reset, swallow, delay, count."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Self

_CHUNK = 32 * 1024


class TcpProxy:
    """Forward connections to a port of this machine. `up` is towards the server, `down` towards the client.

    Its switches work on running connections at once and may be set from any thread.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.up = 0  # bytes that were forwarded, of all connections
        self.down = 0
        self.connections = 0  # accepted so far
        self._cut_up: int | None = None
        self._cut_down: int | None = None
        self._delay = 0.0
        self._swallowing = False
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Reset all connections once so many more bytes have gone that way. Cuts once."""
        self._cut_up = None if up is None else self.up + up
        self._cut_down = None if down is None else self.down + down

    def blackhole(self) -> None:
        """Keep connections open and forward nothing, as a firewall that forgot them does."""
        self._swallowing = True

    def delay(self, seconds: float) -> None:
        """Hold each piece back for so long."""
        self._delay = seconds

    def refuse(self) -> None:
        """Close new connections as soon as they are made."""
        self._refusing = True

    def heal(self) -> None:
        """Forward again as if nothing had been. What was swallowed is lost with its connection."""
        if self._swallowing:
            self.reset()
        self._swallowing = self._refusing = False
        self._delay = 0.0
        self._cut_up = self._cut_down = None

    def reset(self) -> None:
        """Break all connections with a reset."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._reset, done)
        assert done.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._reset(None)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _reset(self, done: threading.Event | None) -> None:
        for writer in list(self._links):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._links.clear()
        if done is not None:
            done.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        self._links.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            self._links.discard(writer)
            return
        self._links.add(far_writer)
        try:
            # a task that ends cancelled makes asyncio's server complain in the log
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False))
        finally:
            for each in (writer, far_writer):
                self._links.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._swallowing:
                    continue
                data, cut = self._count(data, up=up)
                writer.write(data)
                await writer.drain()
                if cut:
                    self._reset(None)
                    return
            if not self._swallowing and writer.can_write_eof():
                writer.write_eof()

    def _count(self, data: bytes, *, up: bool) -> tuple[bytes, bool]:
        limit, sent = (self._cut_up, self.up) if up else (self._cut_down, self.down)
        cut = limit is not None and sent + len(data) >= limit
        if cut:
            assert limit is not None
            data = data[: max(0, limit - sent)]
            self._cut_up = self._cut_down = None
        if up:
            self.up += len(data)
        else:
            self.down += len(data)
        return data, cut
