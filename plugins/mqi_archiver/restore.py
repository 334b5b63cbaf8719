"""Unpacking an archive: complete and proven, or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mqi_archiver.place import sync
from mqi_archiver.tarball import Damaged, Proven, prove
from mqi_cli import CaseError, UsageError, describe_os_error


def restore(
    archive: Path, target: Path, *, sha256: str = "", read: Callable[[int], None] = lambda count: None
) -> Proven:
    """Unpack an archive into `target`, which must not exist or be empty; it appears once every file is proven.

    Raises `CaseError` for an archive that doesn't prove, or isn't the one whose SHA-256 was recorded.
    """
    target = target.absolute()
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError("the directory to restore into is there and not empty", hint="name a new one with --to")
    partial = target.with_name(f".{target.name}.{os.getpid()}.restoring")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o750)
        unpacking = Unpacking(partial)
        proven = prove(archive, read=read, take=unpacking.take)
        if sha256 and proven.sha256 != sha256:
            raise Damaged("its files prove, but it is not the file that mqi wrote")
        unpacking.settle()
        partial.rename(target)
        sync(target.parent)
    except Damaged as error:
        raise CaseError(
            f"the archive can't be trusted: {error}", hint="nothing was restored; take another copy of it"
        ) from error
    except FileNotFoundError as error:
        raise CaseError("the archive is not where it was put", hint="mqi archive list") from error
    except OSError as error:
        raise CaseError(f"the archive can't be restored: {describe_os_error(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return proven


class Unpacking:
    """Writes an archive's members below a directory of its own. Nothing that is there is followed or replaced."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: set[Path] = set()

    def take(self, path: PurePosixPath, member: tarfile.TarInfo, chunks: Iterator[bytes]) -> None:
        """Write one member, whose name `prove` has found to stay below its place."""
        place = self._directory / path
        if member.isdir():
            self._make(place)
            return
        self._make(place.parent)
        free = shutil.disk_usage(self._directory).free
        if member.size > free:
            raise CaseError(f"the disk has {(member.size - free) / 1e6:.1f} MB too little room", hint="make room")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(place, flags, 0o640), "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        os.utime(place, (member.mtime, member.mtime))

    def settle(self) -> None:
        """Make the names of everything durable."""
        for directory in sorted(self._made, reverse=True):
            sync(directory)

    def _make(self, directory: Path) -> None:
        if directory not in self._made:
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            while directory not in self._made:
                self._made.add(directory)
                if directory == self._directory:
                    break
                directory = directory.parent
