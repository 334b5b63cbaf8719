"""A session with programs that stay loaded on a host: one Python process there answers request after request.

A command of its own costs the host a channel, a log-in shell and a process for each tool that it calls; a request
costs little more than what it does. One session is for one thread at a time; the pool keeps it for the next.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Protocol, TypeVar

from mqi_cli.hosts.base import Resident
from mqi_cli.hosts.far_resident import GREETING
from mqi_cli.hosts.streams import Deadline

# reads what follows to the byte and runs it: a program's text on a command line would show in the process list
_BOOT = """\
import os
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
exec(compile(take(int(take(9))).decode(), "mqi", "exec"), {"__name__": "__main__"})
"""
COMMAND = ("python3", "-I", "-S", "-c", _BOOT, "mqi-resident")
KEPT = 20.0  # seconds that an unused session is used again; the far end goes after far longer
_RECEIVE = 256 * 1024
_MOST_GREETING = 64 * 1024
MOST_ANSWER = 32 << 20  # bytes; the largest that is asked for are small cases' results
_SIGN_EVERY = 1.0  # seconds
_ANSWER = re.compile(rb"(done|fail) (\d{10})\n")

_T = TypeVar("_T")


class Unusable(Exception):
    """No resident program runs there, or the one that was asked failed. Nothing more is known."""


class ResidentLost(Exception):
    """The far end ended before its answer, or gave none that is one: what was asked may have been done."""

    def __init__(self, why: str = "a program ended before its answer") -> None:
        super().__init__(why)


class Channel(Protocol):
    """What carries a session: the part of an SSH channel that is used here."""

    @property
    def ended(self) -> bool: ...
    def set_timeout(self, seconds: float | None) -> None: ...
    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def hang_up(self) -> None: ...
    def close(self) -> None: ...


@cache
def _loop() -> bytes:
    text = (resources.files("mqi_cli.hosts") / "far_resident.py").read_bytes()
    return b"%09d" % len(text) + text


class ResidentSession:
    """One session, begun over a channel that runs `COMMAND`. An answer that never came leaves it `broken`."""

    def __init__(self, channel: Channel, *, within: float) -> None:
        self.broken = False
        self._channel = channel
        self._received = bytearray()
        self._alive: Callable[[], None] | None = None
        self._signed = 0.0
        self._loaded: set[str] = set()
        self._used = time.monotonic()
        deadline = Deadline(within)
        try:
            self._send(_loop(), deadline)
            while GREETING not in self._received:  # a login file may have printed something before
                if len(self._received) > _MOST_GREETING:
                    raise Unusable("it answers otherwise than Python does")
                self._receive(deadline)
        except (ResidentLost, TimeoutError, OSError) as error:
            raise Unusable("no Python 3.6 or later") from error
        del self._received[: self._received.index(GREETING) + len(GREETING)]

    @property
    def idle(self) -> bool:
        """Whether it can be used again."""
        return not (self.broken or self._channel.ended) and time.monotonic() - self._used < KEPT

    def ask(
        self, program: Resident, request: bytes, deadline: Deadline, *, alive: Callable[[], None] | None = None
    ) -> bytes:
        """Have a program answer. Raises `Unusable` when it failed there, `ResidentLost`, `TimeoutError`, `OSError`."""
        if alive:
            alive()
        self.broken = True
        self._alive = alive
        name = program.digest
        data = b"" if name in self._loaded else _frame("load", name, program.text)
        self._send(data + _frame("make", name, request), deadline)
        head = _ANSWER.fullmatch(self._take(16, deadline))
        if head is None or int(head[2]) > MOST_ANSWER:
            raise ResidentLost("a program gives an answer that makes no sense")
        word, answer = head[1], self._take(int(head[2]), deadline)
        self._loaded.add(name)
        self._used = time.monotonic()
        if word != b"done":
            raise Unusable(f"{program.name} failed: {answer.decode('ascii', 'replace')[:100]}")
        self.broken = False
        return answer

    def close(self) -> None:
        """End the far end."""
        if self.broken:
            self._channel.hang_up()  # it may be at work, and reads no end of its input
        self._channel.close()

    def _take(self, size: int, deadline: Deadline) -> bytes:
        while len(self._received) < size:
            self._receive(deadline)
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _receive(self, deadline: Deadline) -> None:
        data = self._patiently(deadline, lambda: self._channel.recv(_RECEIVE))
        if not data:
            raise ResidentLost
        self._received += data

    def _send(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            piece = bytes(view[:_RECEIVE])
            sent = self._patiently(deadline, partial(self._channel.send, piece))
            if not sent:
                raise ResidentLost
            view = view[sent:]

    def _patiently(self, deadline: Deadline, act: Callable[[], _T]) -> _T:
        while True:
            left = deadline.remaining()
            self._channel.set_timeout(max(min(left, _SIGN_EVERY), 0.01))
            try:
                done = act()
            except TimeoutError:
                if left <= _SIGN_EVERY:
                    raise
                done = None
            if self._alive and time.monotonic() - self._signed >= _SIGN_EVERY:
                self._signed = time.monotonic()
                self._alive()
            if done is not None:
                return done


def _frame(verb: str, name: str, body: bytes) -> bytes:
    return f"{verb} {name} {len(body):010d}\n".encode() + body
