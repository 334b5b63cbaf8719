"""Many files over one SFTP session at a time: each file is a job that says which answer it waits for next.

A small file is three round trips (open; write, flush, look, close; time and mode), whatever its size allows. With up to
64 of them under way, a round trip is paid once for 64 files. Large files are held to one window of bytes for all.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from mqi_cli.hosts import sftp_calls as calls
from mqi_cli.hosts import sftp_protocol as wire
from mqi_cli.hosts.base import Copying, Receiving, Sending, Sent
from mqi_cli.hosts.sftp_protocol import Answer, Ask, Reply, SftpLost, SftpRefused, Status
from mqi_cli.hosts.sftp_session import SftpSession

AT_ONCE = 64  # files
UNDER_WAY = 4 * 1024 * 1024  # bytes of all files
_REQUESTS = 64  # of one file
_COPY = 256 * 1024 * 1024  # bytes that a host copies between two answers

Job = Generator[int, Reply, None]  # gives the number of the request it waits for, takes the answer


def run_jobs(session: SftpSession, jobs: Iterable[tuple[int, Job]]) -> Iterator[int]:
    """Run jobs side by side, each with the bytes it may have under way; give the position of each that has ended."""
    return (position for position in run_steps(session, jobs) if position is not None)


def run_steps(session: SftpSession, jobs: Iterable[tuple[int, Job]]) -> Iterator[int | None]:
    """Do the same, and give None after each step that ended no job."""
    waiting = iter(enumerate(jobs))
    active: deque[tuple[int, int, Job, int]] = deque()
    weights = 0
    more = True
    try:
        while more or active:
            while more and len(active) < AT_ONCE and (weights < UNDER_WAY or not active):
                try:
                    position, (weight, job) = next(waiting)
                except StopIteration:
                    more = False
                    break
                active.append((position, weight, job, next(job)))
                weights += weight
            if not active:
                break
            position, weight, job, number = active.popleft()
            try:
                active.append((position, weight, job, job.send(session.take(number))))
                ended = None
            except StopIteration:
                weights -= weight
                ended = position
            yield ended
    finally:
        for _, _, job, _ in active:
            job.close()


def write_many(session: SftpSession, files: Iterable[Sending], sent: Sent | None) -> Iterator[Sending]:
    """Write whole new files; give each when it is closed and has its time and mode."""
    begun: dict[int, Sending] = {}

    def jobs() -> Iterator[tuple[int, Job]]:
        for position, each in enumerate(files):
            begun[position] = each
            yield min(each.size, UNDER_WAY), _write(session, each, sent)

    for position in run_jobs(session, jobs()):
        yield begun.pop(position)


def copy_many(session: SftpSession, files: Iterable[Copying]) -> Iterator[Copying]:
    """Have whole files copied there; give each when it is closed and has its time and mode."""
    copied: dict[int, Copying] = {}

    def jobs() -> Iterator[tuple[int, Job]]:
        for position, each in enumerate(files):
            yield min(each.size, UNDER_WAY), _copy(session, each, partial(copied.__setitem__, position, each))

    for position in run_jobs(session, jobs()):
        if position in copied:
            yield copied.pop(position)


def date_many(session: SftpSession, times: Iterable[tuple[PurePosixPath, int]]) -> None:
    """Set modification times."""
    for _ in run_jobs(session, ((0, _date(session, path, mtime)) for path, mtime in times)):
        pass


def read_many(session: SftpSession, files: Iterable[Receiving], got: Sent | None) -> Iterator[Receiving]:
    """Read whole files of known size; give each when its sink has all of it."""
    begun: dict[int, Receiving] = {}

    def jobs() -> Iterator[tuple[int, Job]]:
        for position, each in enumerate(files):
            begun[position] = each
            yield min(each.size, UNDER_WAY), _read(session, each, got)

    for position in run_jobs(session, jobs()):
        yield begun.pop(position)


def _write(session: SftpSession, file: Sending, sent: Sent | None) -> Job:
    flags = wire.OpenFlag.WRITE | wire.OpenFlag.CREATE | wire.OpenFlag.TRUNCATE
    mode = wire.pack_attributes(mode=file.open_mode)
    opening = session.send(Ask.OPEN, calls.pack_path(file.path) + struct.pack(">I", flags) + mode)
    handle = wire.pack_string((yield opening).expect(Answer.HANDLE).string())
    block = min(session.write_size, UNDER_WAY // 8)
    offset = 0
    pending: deque[tuple[int, int]] = deque()
    with calls.handle_of(session, handle) as close, file.source() as source:
        while data := source.read(block):
            where = handle + struct.pack(">QI", offset, len(data))
            pending.append((session.send(Ask.WRITE, where, data), len(data)))
            offset += len(data)
            if len(pending) >= max(1, min(_REQUESTS, UNDER_WAY // block)):
                yield from _acknowledged(pending, sent)
        steps = [session.send(Ask.FSETSTAT, handle + mode)]
        flush = session.send_extended(wire.FSYNC, handle) if wire.FSYNC in session.extensions else None
        look = session.send(Ask.FSTAT, handle)
        steps.append(close())
        while pending:
            yield from _acknowledged(pending, sent)
        if flush is not None:
            reply = yield flush
            with calls.unless_unsupported():
                reply.expect(Answer.STATUS)
        size = (yield look).expect(Answer.ATTRS).attributes().size
        for step in steps:
            (yield step).expect(Answer.STATUS)
    if size is not None and size != offset:
        raise SftpRefused(Status.FAILURE)
    marks = wire.pack_attributes(mtime=file.mtime, mode=file.mode)
    (yield session.send(Ask.SETSTAT, calls.pack_path(file.path) + marks)).expect(Answer.STATUS)


def _date(session: SftpSession, path: PurePosixPath, mtime: int) -> Job:
    mark = wire.pack_attributes(mtime=mtime)
    reply = yield session.send(Ask.SETSTAT, calls.pack_path(path) + mark)
    with contextlib.suppress(SftpRefused):  # some servers have no times for directories
        reply.expect(Answer.STATUS)


def _copy(session: SftpSession, file: Copying, done: Callable[[], None]) -> Job:
    """Copy one file; what the server refuses is passed over, for whoever asked can send it instead."""
    flags = wire.OpenFlag.WRITE | wire.OpenFlag.CREATE | wire.OpenFlag.TRUNCATE
    mode = wire.pack_attributes(mode=file.open_mode)
    opening = [
        session.send(Ask.OPEN, calls.pack_path(file.origin) + struct.pack(">II", wire.OpenFlag.READ, 0)),
        session.send(Ask.OPEN, calls.pack_path(file.path) + struct.pack(">I", flags) + mode),
    ]
    handles = []
    for number in opening:
        reply = yield number
        with contextlib.suppress(SftpRefused):
            handles.append(wire.pack_string(reply.expect(Answer.HANDLE).string()))
    whole = False
    with contextlib.ExitStack() as stack:
        closes = [stack.enter_context(calls.handle_of(session, each)) for each in handles]
        with contextlib.suppress(SftpRefused):
            if len(handles) == len(opening):
                whole = yield from _copy_bytes(session, handles[0], handles[1], file.size, mode)
        for number in [close() for close in closes]:
            reply = yield number
            try:
                reply.expect(Answer.STATUS)
            except SftpRefused:
                whole = False
    if whole:
        marks = wire.pack_attributes(mtime=file.mtime, mode=file.mode)
        reply = yield session.send(Ask.SETSTAT, calls.pack_path(file.path) + marks)
        with contextlib.suppress(SftpRefused):
            reply.expect(Answer.STATUS)
            done()


def _copy_bytes(
    session: SftpSession, origin: bytes, target: bytes, size: int, mode: bytes
) -> Generator[int, Reply, bool]:
    """Copy from one open file into another, and flush it. Gives True when all of it is there."""
    for start in range(0, size, _COPY):
        where = origin + struct.pack(">QQ", start, min(_COPY, size - start)) + target + struct.pack(">Q", start)
        (yield session.send_extended(wire.COPY_DATA, where)).expect(Answer.STATUS)
    (yield session.send(Ask.FSETSTAT, target + mode)).expect(Answer.STATUS)
    if wire.FSYNC in session.extensions:
        reply = yield session.send_extended(wire.FSYNC, target)
        with calls.unless_unsupported():
            reply.expect(Answer.STATUS)
    return (yield session.send(Ask.FSTAT, target)).expect(Answer.ATTRS).attributes().size == size


def _acknowledged(pending: deque[tuple[int, int]], sent: Sent | None) -> Job:
    number, size = pending.popleft()
    (yield number).expect(Answer.STATUS)
    if sent is not None:
        sent(size)


def _read(session: SftpSession, file: Receiving, got: Sent | None) -> Job:
    opening = session.send(Ask.OPEN, calls.pack_path(file.path) + struct.pack(">II", wire.OpenFlag.READ, 0))
    handle = wire.pack_string((yield opening).expect(Answer.HANDLE).string())
    block = min(session.read_size, UNDER_WAY // 8)
    most = max(1, min(_REQUESTS, UNDER_WAY // block))
    pending: deque[tuple[int, int, int]] = deque()
    asked = 0

    def ask(start: int, size: int) -> int:
        return session.send(Ask.READ, handle + struct.pack(">QI", start, size))

    with calls.handle_of(session, handle) as close, file.sink() as sink:
        while asked < file.size or pending:
            while asked < file.size and len(pending) < most:
                wanted = min(block, file.size - asked)
                pending.append((ask(asked, wanted), asked, wanted))
                asked += wanted
            number, start, wanted = pending.popleft()
            data = (yield number).expect(Answer.DATA).string()
            if not data or len(data) > wanted:
                raise SftpLost("data of a length that was not asked for")
            yield from _rest(sink, data, start, wanted, ask)
            if got is not None:
                got(wanted)
        (yield close()).expect(Answer.STATUS)


def _rest(sink: IO[bytes], data: bytes, start: int, wanted: int, ask: Callable[[int, int], int]) -> Job:
    """Write a block, and ask for what a server left out of its answer, as it may."""
    sink.write(data)
    while len(data) < wanted:
        start, wanted = start + len(data), wanted - len(data)
        data = (yield ask(start, wanted)).expect(Answer.DATA).string()
        if not data or len(data) > wanted:
            raise SftpLost("data of a length that was not asked for")
        sink.write(data)
