"""Reads a large file back and hashes it while the rest of it still arrives: nothing has to wait for that at the end."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mqi_cli import Entry
from mqi_sftp.arriving import WriteFailed
from mqi_sftp.source import CHUNK

if TYPE_CHECKING:
    from typing import Self

LARGE = 64 << 20  # bytes from which on it pays
_FLUSH_EVERY = 128 << 20  # bytes


class ReadBack:
    """A thread that follows a file that is being written. It hashes what the file system gives, not what was sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._written = 0
        self._ended = False
        self._digest = hashlib.sha256()
        self._read = 0
        self._failed: WriteFailed | None = None
        self._thread = threading.Thread(target=self._follow, name="read-back", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._tell_end()
        self._thread.join()

    def arrived(self, size: int) -> None:
        """Tell how many bytes of it have been written."""
        with self._changed:
            self._written = size
            self._changed.notify()

    def sha256(self, alive: Callable[[], None]) -> str:
        """Wait for the end, and return the hash of all that was written; empty where it could not be read.

        Raises `WriteFailed` where the disk could not take it. `alive` is called meanwhile.
        """
        self._tell_end()
        while self._thread.is_alive():
            self._thread.join(1.0)
            alive()
        if self._failed is not None:
            raise self._failed
        return self._digest.hexdigest() if self._read == self._written else ""

    def _tell_end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _follow(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        try:
            with self._path.open("rb", buffering=0) as stream:
                while (most := self._wait()) and (count := stream.readinto(buffer[: min(CHUNK, most)])):
                    self._digest.update(buffer[:count])
                    self._read += count
                    if self._read % _FLUSH_EVERY < count:
                        self._flush(stream.fileno())
        except OSError:
            return  # it is read once more then, by whom it may concern

    def _flush(self, descriptor: int) -> None:
        """Have the disk take what is there, so that it has little left to write at the end."""
        try:
            os.fdatasync(descriptor)
        except OSError as error:  # told once: a later flush may say that all is well
            self._failed = WriteFailed(error)
            raise

    def _wait(self) -> int:
        """Return how many bytes more may be read; 0 at the end."""
        with self._changed:
            while self._written <= self._read and not self._ended:
                self._changed.wait()
            return self._written - self._read


@dataclass(frozen=True)
class _Seen:
    size: int
    mtime_ns: int
    inode: int
    sha256: str


class KnownHashes:
    """Hashes of files that were read back already, as long as they are what they were then."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def add(self, path: str, place: Path, sha256: str, *, mtime: int) -> None:
        """Note a file that was read back, and has its name and its time in seconds: who writes into it takes that away."""
        info = place.lstat()
        if sha256 and info.st_mtime_ns == mtime * 1_000_000_000:
            self._seen[path] = _Seen(info.st_size, info.st_mtime_ns, info.st_ino, sha256)

    def get(self, entry: Entry) -> str:
        """Return a file's hash; empty for one that has to be read."""
        seen = self._seen.get(entry.path)
        same = seen and (seen.size, seen.mtime_ns, seen.inode) == (entry.size, entry.mtime_ns, entry.inode)
        return seen.sha256 if seen and same else ""
