"""An SFTP session over one channel: requests out, answers in, any number under way. Knows no file rules.

Written out because paramiko's own client gives up what a transfer stands on: it forgets the answers to pipelined
writes, takes an early end of a file for its end, can't send a name that is not UTF-8 and hides the server's extensions.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Protocol

from mqi_cli.hosts.sftp_protocol import (
    LIMITS,
    VERSION,
    Answer,
    Ask,
    Reply,
    SftpLost,
    pack_string,
)

PLAIN_REQUEST = 32 * 1024  # what every server takes
# A longer one is not an answer but text of a login file, read as a length. OpenSSH's own are of 256 KiB at most; what
# is asked for is shorter than this, so that all that is under way has room here.
_LARGEST_PACKET = 1 << 20
_LARGEST_REQUEST = _LARGEST_PACKET - 1024
_RECEIVE = 256 * 1024


class Channel(Protocol):
    """What carries a session: the part of paramiko's channel that is used here."""

    @property
    def ended(self) -> bool: ...
    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class SftpSession:
    """One session, for one thread at a time. `send` and `take` pipeline; `ask` does both.

    An answer that never came leaves the session `broken`: answers could be taken for others', so it is not used again.
    """

    def __init__(self, channel: Channel) -> None:
        self.broken = False
        self.extensions: dict[bytes, bytes] = {}
        self.read_size = self.write_size = PLAIN_REQUEST
        self._channel = channel
        self._received = bytearray()
        self._number = 0
        self._due: set[int] = set()
        self._early: dict[int, Reply] = {}
        self._greet()

    @property
    def idle(self) -> bool:
        """Whether every request has been answered and another may use the session."""
        return not (self.broken or self._due or self._early or self._channel.ended)

    def ask(self, kind: Ask, payload: bytes) -> Reply:
        """Send a request and wait for its answer."""
        return self.take(self.send(kind, payload))

    def ask_extended(self, name: bytes, payload: bytes = b"") -> Reply:
        """Send a request of an extension and wait for its answer."""
        return self.take(self.send_extended(name, payload))

    def send_extended(self, name: bytes, payload: bytes = b"") -> int:
        """Send a request of an extension; return its number."""
        return self.send(Ask.EXTENDED, pack_string(name) + payload)

    def send(self, kind: Ask, payload: bytes, data: bytes = b"") -> int:
        """Send a request; return its number, which `take` turns into the answer. `data` follows the payload."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        size = len(payload) + len(data) + 5
        self._send_all(b"".join((struct.pack(">IBI", size, kind, self._number), payload, data)))
        self._due.add(self._number)
        return self._number

    def take(self, number: int) -> Reply:
        """Wait for the answer to that request. Answers to others that come before it are kept for them."""
        while (reply := self._early.pop(number, None)) is None:
            if number not in self._due:
                raise SftpLost("an answer was asked for twice")
            got, reply = self._receive()
            self._due.discard(got)
            self._early[got] = reply
        return reply

    def settle(self) -> None:
        """Wait for all answers that are still due and drop them, so that the session can go on after a failure."""
        for number in list(self._due):
            self.take(number)
        self._early.clear()

    def close(self) -> None:
        """End the session and its channel; the server closes what was left open."""
        self.broken = True
        with contextlib.suppress(OSError, EOFError):  # a broken connection can't be told of the end
            self._channel.close()

    def _greet(self) -> None:
        self._send_all(struct.pack(">IBI", 5, Ask.INIT, VERSION))
        kind, body = self._packet()
        if kind != Answer.VERSION:
            raise SftpLost("no SFTP greeting")
        reply = Reply(kind, body)
        if reply.number() < VERSION:
            raise SftpLost("the server's SFTP is older than version 3")
        while reply.rest():
            name, value = reply.string(), reply.string()
            self.extensions[name] = value
        if LIMITS in self.extensions:
            limits = self.ask_extended(LIMITS).expect(Answer.EXTENDED)
            limits.large()  # the longest packet
            # 0 means no limit that the server would tell
            self.read_size = min(max(limits.large(), PLAIN_REQUEST), _LARGEST_REQUEST)
            self.write_size = min(max(limits.large(), PLAIN_REQUEST), _LARGEST_REQUEST)

    def _send_all(self, packet: bytes) -> None:
        if self.broken:
            raise SftpLost("the channel is closed")
        try:
            sent = self._channel.send(packet)
            while 0 < sent < len(packet):
                packet = packet[sent:]
                sent = self._channel.send(packet)
        except (OSError, EOFError) as error:
            self.broken = True
            raise SftpLost(_why(error)) from error
        except BaseException:
            self.broken = True  # a request of which a part went out
            raise
        if sent <= 0:
            self.broken = True
            raise SftpLost("the connection broke")

    def _receive(self) -> tuple[int, Reply]:
        kind, body = self._packet()
        if len(body) < 4:
            self.broken = True
            raise SftpLost("an answer ends too early")
        number: int = struct.unpack_from(">I", body)[0]
        if number not in self._due:
            self.broken = True
            raise SftpLost("an answer to nothing")
        return number, Reply(kind, body[4:])

    def _packet(self) -> tuple[int, bytes]:
        if self.broken:
            raise SftpLost("the channel is closed")
        try:
            size = int.from_bytes(self._read(4), "big")
            if not 0 < size <= _LARGEST_PACKET:
                raise SftpLost("the server's answer is not SFTP")
            packet = self._read(size)
        except BaseException:
            self.broken = True  # a packet of which a part was read
            raise
        return packet[0], packet[1:]

    def _read(self, size: int) -> bytes:
        # all that is there is taken at once: paramiko's buffer moves what is left behind at each read
        while len(self._received) < size:
            try:
                data = self._channel.recv(_RECEIVE)
            except (OSError, EOFError) as error:
                raise SftpLost(_why(error)) from error
            if not data:
                raise SftpLost("the connection broke")
            self._received += data
        taken = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return taken


def _why(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else "the connection broke"
