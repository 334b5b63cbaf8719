"""Streams of a running program, and the time limits on them. The same for every kind of host."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer
    from _typeshed import WriteableBuffer

KEPT_ERRORS = 64 * 1024
_CHUNK = 64 * 1024

Receive = Callable[[int, float | None], bytes]  # at most so many bytes, within so many seconds (None: no limit)


class Deadline:
    """A time limit that began when this was made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left, 0 when it has passed."""
        return max(0.0, self._until - time.monotonic())


class Incoming(io.RawIOBase):
    """What a program prints. `remaining` says how many seconds a read may take; None for no limit."""

    def __init__(self, receive: Receive, *, receive_into: Callable[[memoryview], int] | None = None) -> None:
        super().__init__()
        self._receive = receive
        self._receive_into = receive_into  # without a time limit and without a copy
        self.remaining: Callable[[], float] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there, at most a buffer full; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._receive_into is not None and self.remaining is None:
            return self._receive_into(view)
        data = self._receive(len(view), self.remaining() if self.remaining else None)
        view[: len(data)] = data
        return len(data)


class Outgoing(io.RawIOBase):
    """What a program is given."""

    def __init__(self, send: Callable[[memoryview], int], finish: Callable[[], None]) -> None:
        super().__init__()
        self._send = send
        self._finish = finish

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer) -> int:
        """Send a piece; return how much of it went."""
        return self._send(memoryview(data).cast("B"))

    def close(self) -> None:
        """Tell the program that nothing more comes."""
        if not self.closed:
            super().close()
            self._finish()


def pass_on(source: IO[bytes], size: int, sink: IO[bytes]) -> int:
    """Copy at most `size` bytes, as many as one read gives; return how many."""
    data = source.read(size)
    sink.write(data)
    return len(data)


class ErrorTail:
    """Reads a program's standard error all the time, so that it never has to wait, and keeps the last 64 KiB."""

    def __init__(self, read: Callable[[int], bytes], *, name: str) -> None:
        self._read = read
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def finish(self, timeout: float) -> bytes:
        """Wait for the end of the stream, and return what was kept."""
        self._thread.join(timeout)
        return bytes(self._kept)

    def _run(self) -> None:
        while data := self._read(_CHUNK):
            self._kept += data
            del self._kept[:-KEPT_ERRORS]


class Kept:
    """The first `limit` bytes of a stream; the rest is counted out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Take a further piece."""
        self._data += data[: self._limit - len(self._data)]

    def __bytes__(self) -> bytes:
        return bytes(self._data)


def drain(stream: io.BufferedReader[Incoming], raw: Incoming, *, limit: int, remaining: Callable[[], float]) -> bytes:
    """Read a stream to its end, within the time that `remaining` gives; return the first `limit` bytes."""
    kept = Kept(limit)
    if not stream.closed:
        raw.remaining = remaining
        while data := stream.read1(_CHUNK):
            kept.add(data)
    return bytes(kept)
