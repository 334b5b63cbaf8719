"""Files on this machine, with the promises of files over SFTP: flushed to disk, no name in any message."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat as stat_module
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from mqi_cli.errors import HostFault, HostFull, describe_os_error
from mqi_cli.hosts.base import Copying, Receiving, RemoteEntry, Sending, Sent, Space

_BLOCK = 1024 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR})
_GONE = (FileNotFoundError, NotADirectoryError)


class LocalFiles:
    """File operations on this machine."""

    copies = True

    def __init__(self, name: str) -> None:
        self._name = name

    def stat(self, path: PurePosixPath) -> RemoteEntry | None:
        """Look at a path without following a link."""
        with self._doing("looking at a file"):
            try:
                return _entry(path.name, Path(path).lstat())
            except _GONE:
                return None

    def listing(self, path: PurePosixPath) -> Iterator[RemoteEntry]:
        """List a directory. The names are all checked before the first is given."""
        entries, bad = [], 0
        with self._doing("listing a directory"), os.scandir(path) as found:
            for each in found:
                try:
                    each.name.encode("utf-8")
                except UnicodeEncodeError:
                    bad += 1
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since the directory was read
                    entries.append(_entry(each.name, each.stat(follow_symlinks=False)))
        if bad:
            raise HostFault(f"host {self._name}: {bad} names in a directory are not UTF-8", host=self._name)
        return iter(entries)

    def list_many(
        self, paths: Sequence[PurePosixPath], *, alive: Callable[[], None] | None = None
    ) -> Iterator[tuple[PurePosixPath, Iterator[RemoteEntry]]]:
        """List directories, one after the other."""
        for path in paths:
            if alive:
                alive()
            yield path, self.listing(path)

    def make_directory(
        self, path: PurePosixPath, *, mode: int = 0o750, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory."""
        with self._doing("making a directory"):
            try:
                Path(path).mkdir(mode=mode)
            except FileNotFoundError:
                if not parents or path.parent == path:
                    raise
                self.make_directory(path.parent, mode=mode, parents=True, exist_ok=True)
                self.make_directory(path, mode=mode, exist_ok=exist_ok)
            except FileExistsError:
                if not exist_ok or not Path(path).is_dir():
                    raise _Expected(FileExistsError(errno.EEXIST, "it is there already")) from None

    def make_directories(self, paths: Sequence[PurePosixPath], *, mode: int = 0o750) -> None:
        """Make directories."""
        for path in paths:
            self.make_directory(path, mode=mode)

    def write(
        self, path: PurePosixPath, source: IO[bytes], *, offset: int = 0, mode: int = 0o640, sent: Sent | None = None
    ) -> int:
        """Write `source` into a file."""
        flags = os.O_WRONLY | os.O_CLOEXEC | (0 if offset else os.O_CREAT | os.O_TRUNC)
        with self._doing("writing a file"):
            descriptor = os.open(path, flags, mode)
        written = 0
        with self._closing(descriptor):
            with self._doing("writing a file"):
                if offset:
                    self._cut(descriptor, offset)
                else:
                    os.fchmod(descriptor, mode)
            while data := source.read(_BLOCK):  # an error of the source is the caller's, and passes as it is
                with self._doing("writing a file"):
                    _write_all(descriptor, data)
                written += len(data)
                if sent is not None:
                    sent(len(data))
            with self._doing("writing a file"):
                os.fsync(descriptor)
        return written

    def read(
        self, path: PurePosixPath, sink: IO[bytes], *, offset: int = 0, size: int | None = None, got: Sent | None = None
    ) -> int:
        """Copy a file into `sink`."""
        with self._doing("reading a file"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._closing(descriptor):
            with self._doing("reading a file"):
                if size is None:
                    size = max(0, os.fstat(descriptor).st_size - offset)
                os.lseek(descriptor, offset, os.SEEK_SET)
            left = size
            while left:
                with self._doing("reading a file"):
                    data = os.read(descriptor, min(_BLOCK, left))
                if not data:
                    raise HostFault(f"host {self._name}: reading a file failed: it ends too early", host=self._name)
                sink.write(data)
                left -= len(data)
                if got is not None:
                    got(len(data))
        return size

    def write_many(
        self, place: PurePosixPath, files: Iterable[Sending], *, sent: Sent | None = None
    ) -> Iterator[Sending]:
        """Write whole new files, one after the other."""
        del place
        for each in files:
            with each.source() as source:
                self.write(each.path, source, mode=each.open_mode, sent=sent)
            self.set_times(each.path, mtime=each.mtime, mode=each.mode)
            yield each

    def copy_many(self, place: PurePosixPath, files: Iterable[Copying]) -> Iterator[Copying]:
        """Copy whole files, one after the other."""
        del place
        for each in files:
            try:
                source = Path(each.origin).open("rb")  # noqa: SIM115  closed below; an error of opening means: not copied
            except OSError:
                continue
            with source:
                size = self.write(each.path, source, mode=each.open_mode)
            if size == each.size:
                self.set_times(each.path, mtime=each.mtime, mode=each.mode)
                yield each

    def read_many(self, files: Iterable[Receiving], *, got: Sent | None = None) -> Iterator[Receiving]:
        """Copy whole files into their sinks, one after the other."""
        for each in files:
            with each.sink() as sink:
                self.read(each.path, sink, size=each.size, got=got)
            yield each

    def read_bytes(self, path: PurePosixPath, *, limit: int) -> bytes:
        """Return a small file."""
        with self._doing("reading a file"):
            try:
                with Path(path).open("rb") as file:
                    data = file.read(limit + 1)
            except _GONE:
                raise _Expected(FileNotFoundError(errno.ENOENT, "it is not there")) from None
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
            with contextlib.suppress(HostFault, HostFull):
                self.remove(draft)
            raise

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        """Rename; replaces a file that is there."""
        with self._doing("renaming a file"):
            try:
                Path(old).rename(new)
            except OSError as error:
                if error.errno in _OCCUPIED:
                    raise _Expected(FileExistsError(errno.EEXIST, "a directory is there already")) from None
                raise

    def set_times(self, path: PurePosixPath, *, mtime: float, mode: int | None = None) -> None:
        """Set the modification time and the permission bits."""
        with self._doing("setting a file's time"):
            os.utime(path, (int(mtime), int(mtime)))
            if mode is not None:
                Path(path).chmod(mode)

    def date_many(self, times: Iterable[tuple[PurePosixPath, int]]) -> None:
        """Set modification times."""
        for path, mtime in times:
            self.set_times(path, mtime=mtime)

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file or a link."""
        with self._doing("removing a file"), contextlib.suppress(*_GONE):
            Path(path).unlink()

    def remove_tree(self, path: PurePosixPath, *, alive: Callable[[], None] | None = None) -> None:
        """Remove a directory and all below it. Links are removed, never followed."""
        with self._doing("removing a directory"), contextlib.suppress(*_GONE):
            if stat_module.S_ISDIR(Path(path).lstat().st_mode):
                shutil.rmtree(path)
            else:
                Path(path).unlink()

    def space(self, path: PurePosixPath) -> Space | None:
        """Say what is left on the file system of `path`, or of the nearest directory above it that is there."""
        with self._doing("asking for the free space"):
            while True:
                try:
                    found = os.statvfs(path)
                except FileNotFoundError:
                    if path == path.parent:
                        return None
                    path = path.parent
                    continue
                unit = found.f_frsize
                return Space(found.f_bavail * unit, found.f_blocks * unit, found.f_favail if found.f_files else None)

    def _cut(self, descriptor: int, offset: int) -> None:
        size = os.fstat(descriptor).st_size
        if size < offset:
            raise HostFault(f"host {self._name}: a file has {size} of {offset} bytes", host=self._name)
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)

    @contextlib.contextmanager
    def _closing(self, descriptor: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            os.close(descriptor)
            raise
        with self._doing("closing a file"):
            os.close(descriptor)  # on a network file system a failed write may show only here

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Translate what the system raises. Files' names stay out of the message."""
        try:
            yield
        except _Expected as expected:
            raise expected.error from None
        except OSError as error:
            reason = "it is not there" if isinstance(error, _GONE) else describe_os_error(error).lower()
            message = f"host {self._name}: {what} failed: {reason}"
            if error.errno in _FULL:
                raise HostFull(message, host=self._name, hint="make room on the host") from error
            raise HostFault(message, host=self._name) from error


class _Expected(Exception):
    """Carries an error that the contract names past the translation of all others."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _entry(name: str, found: os.stat_result) -> RemoteEntry:
    return RemoteEntry(name, found.st_mode, found.st_size, int(found.st_mtime))
