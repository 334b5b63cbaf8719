"""Reading a case from end to end in slices, so that one huge case doesn't keep the others waiting."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from mqi_cli import Entry, Manifest, ManifestFile, empty_directories
from mqi_scanner.gate import Look

CHUNK = 1 << 20
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # gone, or something else is in its place


class Changed(Exception):
    """A file is no longer what the look found."""


class Proof:
    """The hashes of one look at a case, taken a slice at a time. What is read is exactly what the look saw, or `Changed`."""

    def __init__(self, directory: Path, look: Look) -> None:
        self.snapshot = look.snapshot
        self._directory = directory
        self._entries = look.entries
        self._left = [each for each in reversed(look.entries) if not each.is_dir]
        self._files: list[ManifestFile] = []
        self._digest = hashlib.sha256()
        self._offset = 0

    @property
    def finished(self) -> bool:
        """Whether every file is read."""
        return not self._left

    @property
    def note(self) -> str:
        """Say how far it is."""
        return f"being read: {len(self._files)} of {len(self._files) + len(self._left)} files"

    def advance(self, pause: Callable[[], bool]) -> None:
        """Read on, a chunk at least, until every file is read or `pause` says so. Raises `Changed` and `OSError`."""
        while self._left and self._read_on(self._left[-1], pause):
            self._left.pop()
            if pause():
                return

    def manifest(self) -> Manifest:
        """Return the manifest of the finished proof."""
        return Manifest(tuple(self._files), empty_directories(list(self._entries)))

    def _read_on(self, entry: Entry, pause: Callable[[], bool]) -> bool:
        # NONBLOCK and NOFOLLOW: a FIFO or a link put in the file's place since the look must neither hang us nor lead out
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._directory / entry.path, flags)
        except OSError as error:
            if error.errno in _REPLACED:
                raise Changed from error
            raise
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            _must_match(os.fstat(descriptor), entry)
            stream.seek(self._offset)
            while chunk := stream.read(CHUNK):
                self._digest.update(chunk)
                self._offset += len(chunk)
                if self._offset < entry.size and pause():
                    return False
            _must_match(os.fstat(descriptor), entry)
        if self._offset != entry.size:
            raise Changed
        self._files.append(ManifestFile(entry.path, entry.size, self._digest.hexdigest()))
        self._digest, self._offset = hashlib.sha256(), 0
        return True


def _must_match(info: os.stat_result, entry: Entry) -> None:
    same = (info.st_size, info.st_mtime_ns, info.st_ino) == (entry.size, entry.mtime_ns, entry.inode)
    if not (same and stat.S_ISREG(info.st_mode)):
        raise Changed
