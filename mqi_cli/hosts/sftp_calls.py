"""The single file requests of SFTP, as functions of a session: each asks and takes the answer.

They raise `SftpRefused` with the server's status and `SftpLost`; what that means for a host is said in `ssh_files`.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from mqi_cli.hosts.base import Space
from mqi_cli.hosts.sftp_protocol import (
    STATVFS,
    Answer,
    Ask,
    Attributes,
    SftpLost,
    SftpRefused,
    Status,
    pack_attributes,
    pack_string,
)
from mqi_cli.hosts.sftp_session import SftpSession

AT_ONCE = 64  # requests that may be under way; as many as OpenSSH's own client


def look(session: SftpSession, path: PurePosixPath) -> Attributes | None:
    """Look at a path without following a link. None when nothing is there."""
    with unless_gone():
        return session.ask(Ask.LSTAT, pack_path(path)).expect(Answer.ATTRS).attributes()
    return None


def is_directory(session: SftpSession, path: PurePosixPath) -> bool:
    """Tell whether a path leads to a directory, links followed."""
    with unless_gone():
        return session.ask(Ask.STAT, pack_path(path)).expect(Answer.ATTRS).attributes().is_dir
    return False


def make_directory(session: SftpSession, path: PurePosixPath, mode: int) -> None:
    """Make one directory."""
    session.ask(Ask.MKDIR, pack_path(path) + pack_attributes(mode=mode)).expect(Answer.STATUS)


def open_file(session: SftpSession, path: PurePosixPath, flags: int, attributes: bytes = b"\0\0\0\0") -> bytes:
    """Open a file; return its packed handle."""
    reply = session.ask(Ask.OPEN, pack_path(path) + struct.pack(">I", flags) + attributes)
    return pack_string(reply.expect(Answer.HANDLE).string())


def rename_plainly(session: SftpSession, old: PurePosixPath, new: PurePosixPath) -> None:
    """Rename with the protocol's own request, and replace a file as well as that can."""
    try:
        session.ask(Ask.RENAME, pack_path(old) + pack_path(new)).expect(Answer.STATUS)
    except SftpRefused:
        there = look(session, new)
        if there is None or there.is_dir:
            raise
        # a server without posix-rename doesn't replace a file: for a moment there is none
        session.ask(Ask.REMOVE, pack_path(new)).expect(Answer.STATUS)
        session.ask(Ask.RENAME, pack_path(old) + pack_path(new)).expect(Answer.STATUS)


def ask_all(session: SftpSession, kind: Ask, paths: list[bytes]) -> None:
    """Make one request of each path, many under way at once. What is not there is no error."""
    for start in range(0, len(paths), AT_ONCE):
        numbers = [session.send(kind, pack_string(each)) for each in paths[start : start + AT_ONCE]]
        for number in numbers:
            with unless_gone():
                session.take(number).expect(Answer.STATUS)


def space(session: SftpSession, path: PurePosixPath) -> Space | None:
    """Say what is left on the file system of a path, or of the nearest directory above it that is there."""
    if STATVFS not in session.extensions:
        return None
    while True:
        try:
            reply = session.ask_extended(STATVFS, pack_path(path)).expect(Answer.EXTENDED)
        except SftpRefused as refused:
            if refused.status == Status.NO_SUCH_FILE and path != path.parent:
                path = path.parent
                continue
            return None
        _, unit, blocks, _, available, inodes, _, inodes_available = (reply.large() for _ in range(8))
        return Space(available * unit, blocks * unit, inodes_available if inodes else None)


@contextlib.contextmanager
def closing(session: SftpSession, handle: bytes) -> Iterator[None]:
    """Close the handle when anything goes wrong; where all goes well the caller does, and hears how it went."""
    try:
        yield
    except BaseException:
        # answers that are under way would be taken for those to later requests
        with contextlib.suppress(SftpLost, SftpRefused):
            session.settle()
            session.ask(Ask.CLOSE, handle)
        raise


@contextlib.contextmanager
def handle_of(session: SftpSession, handle: bytes) -> Iterator[Callable[[], int]]:
    """Give the request that closes a handle; where it was not made, make it, so that the server does not keep it."""
    closed = False

    def close() -> int:
        nonlocal closed
        closed = True
        return session.send(Ask.CLOSE, handle)

    try:
        yield close
    finally:
        if not closed:
            with contextlib.suppress(SftpLost):
                close()


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """Pass over the status that says that nothing is there."""
    try:
        yield
    except SftpRefused as refused:
        if refused.status != Status.NO_SUCH_FILE:
            raise


@contextlib.contextmanager
def unless_unsupported() -> Iterator[None]:
    """Pass over the status that says that the server has no such request."""
    try:
        yield
    except SftpRefused as refused:
        if refused.status != Status.UNSUPPORTED:
            raise


def raw_path(path: PurePosixPath) -> bytes:
    """Return a path as the server takes it."""
    return str(path).encode("utf-8", "surrogateescape")


def pack_path(path: PurePosixPath) -> bytes:
    """Return a path packed as a field of a request."""
    return pack_string(raw_path(path))
