"""Files over SFTP: every write acknowledged, every short read an error, no name in any message."""

from __future__ import annotations

import contextlib
import errno
import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, NoReturn

from mqi_cli.errors import HostFault, HostFull, HostUnreachable
from mqi_cli.hosts import sftp_calls as calls
from mqi_cli.hosts import sftp_many
from mqi_cli.hosts import sftp_protocol as wire
from mqi_cli.hosts import sftp_trees as trees
from mqi_cli.hosts.base import Copying, Receiving, RemoteEntry, Sending, Sent, Space
from mqi_cli.hosts.sftp_protocol import (
    Answer,
    Ask,
    Attributes,
    SftpLost,
    SftpOverflow,
    SftpRefused,
    Status,
    pack_string,
)
from mqi_cli.hosts.sftp_session import SftpSession
from mqi_cli.hosts.sftp_transfer import read_block, read_blocks, write_blocks
from mqi_cli.hosts.ssh_lent import LentSession

_FULL = 1024 * 1024  # a write that failed with less room than this failed for want of room
_REASONS: dict[int, str] = {
    Status.NO_SUCH_FILE: "it is not there",
    Status.PERMISSION_DENIED: "permission denied",
    Status.UNSUPPORTED: "the server can't do that",
    Status.EOF: "it ends too early",
}


class SshFiles:
    """File operations over one session, as long as it is lent."""

    def __init__(self, name: str, lent: LentSession) -> None:
        self._name = name
        self._lent = lent

    @property
    def _session(self) -> SftpSession:
        return self._lent.session

    def stat(self, path: PurePosixPath) -> RemoteEntry | None:
        """Look at a path without following a link."""
        with self._doing("looking at a file"):
            found = calls.look(self._session, path)
            return _entry(path.name, found) if found is not None else None

    def listing(self, path: PurePosixPath) -> Iterator[RemoteEntry]:
        """List a directory. The names are all checked before the first is given."""
        return iter([each for _, entries in self.list_many([path]) for each in entries])

    def list_many(
        self, paths: Sequence[PurePosixPath], *, alive: Callable[[], None] | None = None
    ) -> Iterator[tuple[PurePosixPath, Iterator[RemoteEntry]]]:
        """List directories, up to 64 at once."""
        with self._doing("listing a directory"):
            raw = trees.raw_paths(paths)
            for position, found in trees.list_many(self._session, raw, trees.bounds(), alive):
                yield paths[position], self._named(found)

    def _named(self, found: trees.Found) -> Iterator[RemoteEntry]:
        if bad := sum(1 for name, _ in found if not wire.is_utf8(name)):
            raise HostFault(f"host {self._name}: {bad} names in a directory are not UTF-8", host=self._name)
        return (_entry(name.decode("utf-8"), attributes) for name, attributes in found)

    def make_directory(
        self, path: PurePosixPath, *, mode: int = 0o750, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory."""
        with self._doing("making a directory", fills=path):
            try:
                calls.make_directory(self._session, path, mode)
            except SftpRefused as refused:
                if refused.status == Status.NO_SUCH_FILE and parents and path.parent != path:
                    self.make_directory(path.parent, mode=mode, parents=True, exist_ok=True)
                    self.make_directory(path, mode=mode, exist_ok=exist_ok)
                    return
                # the protocol has no word for "exists"
                if calls.look(self._session, path) is None:
                    raise
                if not exist_ok or not calls.is_directory(self._session, path):
                    raise FileExistsError(errno.EEXIST, "it is there already") from refused

    def make_directories(self, paths: Sequence[PurePosixPath], *, mode: int = 0o750) -> None:
        """Make directories, parents first, many at once."""
        with self._doing("making a directory", fills=paths[0] if paths else None):
            refused = trees.make_many(self._session, trees.raw_paths(paths), mode)
        if refused is not None:
            self.make_directory(paths[refused], mode=mode)  # says why
            for path in paths[refused + 1 :]:
                self.make_directory(path, mode=mode, exist_ok=True)

    def write(
        self, path: PurePosixPath, source: IO[bytes], *, offset: int = 0, mode: int = 0o640, sent: Sent | None = None
    ) -> int:
        """Write `source` into a file."""
        with self._doing("writing a file", fills=path):
            handle = self._open_to_write(path, offset, mode)
            with calls.closing(self._session, handle):
                end = write_blocks(self._session, handle, source, offset, sent)
            # All at once, because each answer waits for a round trip. What they do is done in this order.
            steps = [self._session.send(Ask.FSETSTAT, handle + wire.pack_attributes(mode=mode))] if not offset else []
            flush = self._session.send_extended(wire.FSYNC, handle) if wire.FSYNC in self._session.extensions else None
            look = self._session.send(Ask.FSTAT, handle)
            steps.append(self._session.send(Ask.CLOSE, handle))
            if flush is not None:
                with calls.unless_unsupported():
                    self._session.take(flush).expect(Answer.STATUS)
            size = self._session.take(look).expect(Answer.ATTRS).attributes().size
            for step in steps:
                self._session.take(step).expect(Answer.STATUS)
        if size is not None and size != end:
            raise HostFault(f"host {self._name}: a file of {end} bytes was written and has {size}", host=self._name)
        return end - offset

    def read(
        self, path: PurePosixPath, sink: IO[bytes], *, offset: int = 0, size: int | None = None, got: Sent | None = None
    ) -> int:
        """Copy a file into `sink`."""
        with self._doing("reading a file"):
            handle = calls.open_file(self._session, path, wire.OpenFlag.READ)
            with calls.closing(self._session, handle):
                if size is None:
                    there = self._session.ask(Ask.FSTAT, handle).expect(Answer.ATTRS).attributes().size or 0
                    size = max(0, there - offset)
                read_blocks(self._session, handle, sink, offset, size, got)
            self._session.ask(Ask.CLOSE, handle).expect(Answer.STATUS)
        return size

    def write_many(
        self, place: PurePosixPath, files: Iterable[Sending], *, sent: Sent | None = None
    ) -> Iterator[Sending]:
        """Write whole new files, up to 64 under way."""
        with self._doing("writing a file", fills=place):
            yield from sftp_many.write_many(self._session, files, sent)

    @property
    def copies(self) -> bool:
        """Whether the server copies files by itself."""
        return wire.COPY_DATA in self._session.extensions

    def copy_many(self, place: PurePosixPath, files: Iterable[Copying]) -> Iterator[Copying]:
        """Have whole new files copied by the server, up to 64 under way."""
        if self.copies:
            with self._doing("copying a file", fills=place):
                yield from sftp_many.copy_many(self._session, files)

    def read_many(self, files: Iterable[Receiving], *, got: Sent | None = None) -> Iterator[Receiving]:
        """Copy whole files into their sinks, up to 64 under way."""
        with self._doing("reading a file"):
            yield from sftp_many.read_many(self._session, files, got)

    def read_bytes(self, path: PurePosixPath, *, limit: int) -> bytes:
        """Return a small file."""
        data = b""
        with self._doing("reading a file"):
            try:
                handle = calls.open_file(self._session, path, wire.OpenFlag.READ)
            except SftpRefused as refused:
                if refused.status == Status.NO_SUCH_FILE:
                    raise FileNotFoundError(errno.ENOENT, "it is not there") from None
                raise
            with calls.closing(self._session, handle):
                while len(data) <= limit and (
                    block := read_block(self._session, handle, len(data), limit + 1 - len(data))
                ):
                    data += block
            self._session.ask(Ask.CLOSE, handle).expect(Answer.STATUS)
        if len(data) > limit:
            raise HostFault(f"host {self._name}: a small file has more than {limit} bytes", host=self._name)
        return data

    def write_bytes(self, path: PurePosixPath, data: bytes, *, mode: int = 0o640) -> None:
        """Make a small file appear complete or not at all."""
        draft = path.with_name(f".{secrets.token_hex(6)}.mqi-draft")
        try:
            self.write(draft, io.BytesIO(data), mode=mode)
            self.rename(draft, path)
        except BaseException:
            with contextlib.suppress(HostFault, HostFull, HostUnreachable):
                self.remove(draft)
            raise

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        """Rename; replaces a file that is there."""
        with self._doing("renaming a file", fills=new):
            try:
                if wire.POSIX_RENAME in self._session.extensions:
                    both = calls.pack_path(old) + calls.pack_path(new)
                    self._session.ask_extended(wire.POSIX_RENAME, both).expect(Answer.STATUS)
                else:
                    calls.rename_plainly(self._session, old, new)
            except SftpRefused as refused:
                there = calls.look(self._session, new) if refused.status == Status.FAILURE else None
                if there is not None and there.is_dir:
                    raise FileExistsError(errno.EEXIST, "a directory is there already") from refused
                raise

    def set_times(self, path: PurePosixPath, *, mtime: float, mode: int | None = None) -> None:
        """Set the modification time and the permission bits."""
        with self._doing("setting a file's time"):
            attributes = wire.pack_attributes(mtime=int(mtime), mode=mode)
            self._session.ask(Ask.SETSTAT, calls.pack_path(path) + attributes).expect(Answer.STATUS)

    def date_many(self, times: Iterable[tuple[PurePosixPath, int]]) -> None:
        """Set modification times, up to 64 under way."""
        with self._doing("setting a file's time"):
            sftp_many.date_many(self._session, times)

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file or a link."""
        with self._doing("removing a file"), calls.unless_gone():
            self._session.ask(Ask.REMOVE, calls.pack_path(path)).expect(Answer.STATUS)

    def remove_tree(self, path: PurePosixPath, *, alive: Callable[[], None] | None = None) -> None:
        """Remove a directory and all below it. Links are removed, never followed."""
        with self._doing("removing a directory"):
            found = calls.look(self._session, path)
            if found is None:
                return
            if not found.is_dir:
                with calls.unless_gone():
                    self._session.ask(Ask.REMOVE, calls.pack_path(path)).expect(Answer.STATUS)
                return
            trees.remove_tree(self._session, calls.raw_path(path), alive)

    def space(self, path: PurePosixPath) -> Space | None:
        """Say what is left on the file system of `path`, or of the nearest directory above it that is there."""
        with self._doing("asking for the free space"):
            return calls.space(self._session, path)

    def real_path(self, path: str) -> PurePosixPath:
        """Return a path as the server writes it: absolute; `.` is where a session begins, the account's home."""
        with self._doing("asking for the home directory"):
            reply = self._session.ask(Ask.REALPATH, pack_string(path.encode())).expect(Answer.NAME)
            reply.number()
            return PurePosixPath(reply.string().decode("utf-8", "surrogateescape"))

    def _open_to_write(self, path: PurePosixPath, offset: int, mode: int) -> bytes:
        if not offset:
            flags = wire.OpenFlag.WRITE | wire.OpenFlag.CREATE | wire.OpenFlag.TRUNCATE
            return calls.open_file(self._session, path, flags, wire.pack_attributes(mode=mode))
        handle = calls.open_file(self._session, path, wire.OpenFlag.WRITE)
        with calls.closing(self._session, handle):
            size = self._session.ask(Ask.FSTAT, handle).expect(Answer.ATTRS).attributes().size or 0
            if size < offset:
                raise HostFault(f"host {self._name}: a file has {size} of {offset} bytes", host=self._name)
            self._session.ask(Ask.FSETSTAT, handle + wire.pack_attributes(size=offset)).expect(Answer.STATUS)
        return handle

    @contextlib.contextmanager
    def _doing(self, what: str, *, fills: PurePosixPath | None = None) -> Iterator[None]:
        """Translate what the session raises. `fills` is where it takes up room, and can fail for want of it."""
        try:
            with self._lent.in_use():
                yield
        except SftpLost as lost:
            self._session.close()
            raise self._lent.lost(str(lost)) from lost
        except SftpOverflow as overflow:
            with contextlib.suppress(SftpLost):
                self._session.settle()
            raise HostFault(f"host {self._name}: {what} failed: {overflow}", host=self._name) from overflow
        except SftpRefused as refused:
            self._refuse(what, fills, refused)

    def _refuse(self, what: str, fills: PurePosixPath | None, refused: SftpRefused) -> NoReturn:
        try:
            self._session.settle()
            # "disk full" has no code of its own in this protocol, so look
            space = calls.space(self._session, fills) if refused.status == Status.FAILURE and fills else None
        except SftpLost as lost:
            self._session.close()
            raise self._lent.lost(str(lost)) from lost
        if space is not None and (space.free_bytes < _FULL or space.free_inodes == 0):
            left = f"{space.free_bytes} bytes" if space.free_bytes < _FULL else "no inode"
            raise HostFull(
                f"host {self._name}: {what} failed: {left} left", host=self._name, hint="make room on the host"
            ) from refused
        reason = _REASONS.get(refused.status)
        raise HostFault(
            f"host {self._name}: {what} failed: {reason or 'the server gives no reason'}",
            host=self._name,
            hint="" if reason else "a quota, a read-only file system or a failing disk on the host, perhaps",
        ) from refused


def _entry(name: str, found: Attributes) -> RemoteEntry:
    return RemoteEntry(name, found.mode or 0, found.size or 0, found.mtime or 0)
