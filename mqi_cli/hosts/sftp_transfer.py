"""Bulk data over SFTP: many requests under way, each answer taken and looked at. Short is an error."""

from __future__ import annotations

import struct
from collections import deque
from typing import IO

from mqi_cli.hosts.base import Sent
from mqi_cli.hosts.sftp_protocol import Answer, Ask, SftpLost, SftpRefused, Status
from mqi_cli.hosts.sftp_session import SftpSession

_UNDER_WAY = 4 * 1024 * 1024  # bytes that may be under way, of one file
_REQUESTS = 64  # requests that may be under way; as many as OpenSSH's own client


def write_blocks(session: SftpSession, handle: bytes, source: IO[bytes], offset: int, sent: Sent | None) -> int:
    block, most = _window(session.write_size)
    pending: deque[tuple[int, int]] = deque()
    while True:
        data = source.read(block)
        if data:
            where = handle + struct.pack(">QI", offset, len(data))
            pending.append((session.send(Ask.WRITE, where, data), len(data)))
            offset += len(data)
        while pending and (len(pending) >= most or not data):
            number, size = pending.popleft()
            session.take(number).expect(Answer.STATUS)
            if sent is not None:
                sent(size)
        if not data:
            return offset


def read_blocks(session: SftpSession, handle: bytes, sink: IO[bytes], offset: int, size: int, got: Sent | None) -> None:
    block, most = _window(session.read_size)
    pending: deque[tuple[int, int, int]] = deque()
    asked, end = offset, offset + size
    while asked < end or pending:
        while asked < end and len(pending) < most:
            wanted = min(block, end - asked)
            number = session.send(Ask.READ, handle + struct.pack(">QI", asked, wanted))
            pending.append((number, asked, wanted))
            asked += wanted
        number, start, wanted = pending.popleft()
        data = session.take(number).expect(Answer.DATA).string()
        if len(data) > wanted:
            raise SftpLost("more data than was asked for")
        if len(data) < wanted:
            data += _read_rest(session, handle, start + len(data), wanted - len(data))
        sink.write(data)
        if got is not None:
            got(len(data))


def _read_rest(session: SftpSession, handle: bytes, offset: int, size: int) -> bytes:
    """Read what a server left out of its answer, as it may. The end of the file is an error here."""
    data = b""
    while len(data) < size:
        block = read_block(session, handle, offset + len(data), size - len(data))
        if not block:
            raise SftpRefused(Status.EOF)
        data += block
    return data


def read_block(session: SftpSession, handle: bytes, offset: int, size: int) -> bytes:
    where = handle + struct.pack(">QI", offset, min(size, session.read_size))
    try:
        return session.ask(Ask.READ, where).expect(Answer.DATA).string()
    except SftpRefused as refused:
        if refused.status == Status.EOF:
            return b""
        raise


def _window(limit: int) -> tuple[int, int]:
    block = min(limit, _UNDER_WAY // 8)
    return block, min(_REQUESTS, _UNDER_WAY // block)
