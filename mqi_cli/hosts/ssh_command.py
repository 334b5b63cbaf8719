"""Programs over SSH: how an argument list passes any login shell, and how a running one is fed, read and awaited."""

from __future__ import annotations

import contextlib
import io
import re
import selectors
import shlex
import time
from collections.abc import Sequence
from typing import IO

from mqi_cli.errors import HostFault, HostUnreachable
from mqi_cli.hosts.base import Completed
from mqi_cli.hosts.ssh_channel import SshChannel
from mqi_cli.hosts.ssh_connection import SshConnection, translated
from mqi_cli.hosts.streams import Deadline, ErrorTail, Incoming, Kept, Outgoing, drain, pass_on

# The account's login shell reads this line first, and it may be csh or fish as well as a POSIX one. So the line is
# constant but for words in which every byte that any shell could take for its own is written as an octal number; a
# POSIX shell turns them back into the real command line. The words are short because csh refuses long ones.
_WRAPPER = """exec /bin/sh -c 'eval "$(printf %b "$@")"' sh"""
_WORD = 900
_PLAIN = re.compile(rb"[A-Za-z0-9 \t._/,:;=+@%^(){}\[\]<>|&*?~#$\"`-]+")
_LONGEST = 120_000  # Linux gives a program no longer single argument than 128 KiB

_RECEIVE = 256 * 1024
_SEND = 32 * 1024
_AFTER_EXIT = 2.0  # seconds that output may still be on its way when the program has ended


def command_line(argv: Sequence[str]) -> str:
    """Return the line that makes any login shell run `argv`, each item as it is. Pure. Raises `ValueError`."""
    if not argv or any("\0" in item for item in argv):
        raise ValueError("a command needs a program, and no item may hold a NUL")
    text = b"exec " + shlex.join(argv).encode("utf-8", "surrogateescape")
    words, word = [], ""
    for piece in _pieces(text):
        if len(word) + len(piece) > _WORD:
            words.append(word)
            word = ""
        word += piece
    line = " ".join([_WRAPPER, *(f"'{each}'" for each in [*words, word])])
    if len(line) > _LONGEST:
        raise ValueError(f"a command of {len(line)} bytes is longer than a host takes ({_LONGEST})")
    return line


def _pieces(text: bytes) -> Sequence[str]:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        if found := _PLAIN.match(text, at, at + _WORD):
            pieces.append(found[0].decode("ascii"))
            at = found.end()
        else:
            pieces.append(f"\\0{text[at]:03o}")
            at += 1
    return pieces


def converse(
    connection: SshConnection, channel: SshChannel, stdin: bytes, *, deadline: Deadline, limit: int
) -> Completed:
    """Feed a program, read both its streams to the end and return what it left. Raises `HostUnreachable`."""
    out, err = Kept(limit), Kept(limit)
    with translated(connection), selectors.DefaultSelector() as selector:
        channel.watch(selector)
        left = memoryview(stdin)
        ended_at: float | None = None
        open_in = True
        while True:
            progress = False
            if channel.readable:
                out.add(channel.recv(_RECEIVE))
                progress = True
            if channel.error_readable:
                err.add(channel.recv_error(_RECEIVE))
                progress = True
            if open_in and not progress:
                left, open_in, progress = _feed(channel, left)
            if progress:
                continue
            if channel.output_ended and channel.wait_exit(0):
                break
            if not deadline.remaining():
                channel.hang_up()
                raise _late(connection, deadline)
            if channel.exit_code is not None:
                # what it left running may hold its output open for ever
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > _AFTER_EXIT:
                    break
            if channel.ended and not channel.readable and not channel.error_readable:
                break
            wait = 0.02 if open_in or channel.output_ended else 0.5  # these two are not told by the selector
            selector.select(min(wait, deadline.remaining()))
    if channel.ended and not channel.output_ended:
        raise connection.lost()  # else a cut output would pass for a whole one
    return Completed(_exit_code(connection, channel), bytes(out), bytes(err))


def _feed(channel: SshChannel, left: memoryview) -> tuple[memoryview, bool, bool]:
    """Send a piece of standard input where there is room. Returns what is left, whether it is open, whether it moved."""
    if left and not channel.writable:
        return left, True, False
    if left:
        try:
            sent = channel.send(bytes(left[:_SEND]))
        except OSError:
            sent = 0
        if sent:
            return left[sent:], True, True
    # all sent, or the program took no more: its exit code tells whether that is an error
    channel.end_input()
    return left[:0], False, True


def _exit_code(connection: SshConnection, channel: SshChannel) -> int | None:
    if channel.exit_code is not None:
        return channel.exit_code
    # paramiko says -1 for an end by signal and for a cut connection alike; the stream's own end tells them apart
    if channel.output_ended and connection.alive:
        return None
    raise connection.lost("the connection broke before the command's end was known")


def _late(connection: SshConnection, deadline: Deadline) -> HostUnreachable:
    return HostUnreachable(
        f"host {connection.name}: a command gave no end within {deadline.seconds:g} s", host=connection.name
    )


class SshProcess:
    """A running program with open streams. `bulk`: it has the best way that this host allows."""

    way = "the shared connection"

    def __init__(self, connection: SshConnection, channel: SshChannel, *, bulk: bool, limit: int = 1 << 20) -> None:
        self.bulk = bulk
        self._connection = connection
        self._channel = channel
        self._limit = limit
        self._aborted = False
        channel.set_timeout(None)  # bulk data may pause; a dead peer is noticed by the connection's watch
        self._raw = Incoming(self._receive)
        self._reader = io.BufferedReader(self._raw, _RECEIVE)
        self._writer = io.BufferedWriter(Outgoing(self._send, self._finish), _RECEIVE)
        self.stdout: IO[bytes] = self._reader
        self.stdin: IO[bytes] = self._writer
        self._errors = ErrorTail(self._receive_error, name=f"ssh-stderr-{connection.name}")

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Write bytes of an open file."""
        return pass_on(source, size, self.stdin)

    def wait(self, timeout: float) -> Completed:
        """Close standard input, read what is left of the output, and return the end. Raises `HostUnreachable`."""
        deadline = Deadline(timeout)
        with contextlib.suppress(HostFault):
            self._writer.close()
        kept = drain(self._reader, self._raw, limit=self._limit, remaining=deadline.remaining)
        if not self._channel.wait_exit(deadline.remaining()):
            raise _late(self._connection, deadline)
        return Completed(_exit_code(self._connection, self._channel), kept, self._errors.finish(deadline.remaining()))

    def abort(self) -> None:
        """Break it off, from any thread."""
        self._aborted = True
        self._channel.hang_up()
        self._channel.close()

    def close(self) -> None:
        """End the channel."""
        self._aborted = True  # flushing could wait for a far side that takes nothing any more
        with contextlib.suppress(HostFault, HostUnreachable):
            self._writer.close()
        if not self._channel.wait_exit(0):
            self._channel.hang_up()
        self._channel.close()
        self._errors.finish(2.0)

    def _receive(self, size: int, within: float | None) -> bytes:
        # not by the channel's own time limit: it would count for the reader of standard error too
        with translated(self._connection):
            if within is not None and not self._readable(within):
                raise TimeoutError
            data: bytes = self._channel.recv(size)
        if not data and not self._channel.output_ended:
            raise self._connection.lost()  # else a cut stream would pass for a whole one
        return data

    def _readable(self, within: float) -> bool:
        deadline = Deadline(within)
        with selectors.DefaultSelector() as selector:
            self._channel.watch(selector)
            while not (self._channel.readable or self._channel.output_ended or self._channel.ended):
                if not deadline.remaining():
                    return False
                selector.select(min(0.05, deadline.remaining()))
        return True

    def _receive_error(self, size: int) -> bytes:
        try:
            data: bytes = self._channel.recv_error(size)
        except (OSError, EOFError):
            return b""
        return data

    def _send(self, data: memoryview) -> int:
        if self._aborted:
            raise HostFault(f"host {self._connection.name}: the program was broken off", host=self._connection.name)
        try:
            with translated(self._connection):
                sent = self._channel.send(bytes(data[:_SEND]))
        except HostUnreachable:
            sent = 0
        if not sent:
            if self._connection.alive:
                raise HostFault(
                    f"host {self._connection.name}: the program reads no further", host=self._connection.name
                )
            raise self._connection.lost()
        return sent

    def _finish(self) -> None:
        self._channel.end_input()
