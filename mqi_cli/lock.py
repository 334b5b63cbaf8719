"""One process at a time: a lock on a file, held for as long as the process lives, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from mqi_cli.errors import AlreadyRunning, StateError, describe_os_error

_TRY_FOR = 1.0  # seconds; longer than `holder` ever keeps the file locked
_TRY_EVERY = 0.05


class Lock:
    """An exclusive `flock` on a file that is never deleted: deleting it would let two processes hold "the" lock.

    The process id inside is for people and for signals; only the lock itself says that somebody runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, what: str = "the daemon") -> None:
        """Take the lock. Raises `AlreadyRunning`, which names the holder, and `StateError` where the file can't be made."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"cannot open the lock file {self.path}: {describe_os_error(error)}",
                hint="check who owns the state directory and whether its disk is full",
            ) from error
        deadline = time.monotonic() + _TRY_FOR
        while not _try(descriptor):
            if time.monotonic() > deadline:
                holder = _read(descriptor)
                os.close(descriptor)
                raise AlreadyRunning(
                    f"{what} is running already{f' (process {holder})' if holder else ''}",
                    hint="see: mqi daemon status",
                )
            time.sleep(_TRY_EVERY)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def still_counts(self) -> bool:
        """Whether the file that is locked is still the one that others would ask: nobody has removed or replaced it."""
        if self._descriptor is None:
            return False
        try:
            found, ours = self.path.stat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Give the lock back; the end of the process does the same."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def holder(path: Path) -> int | None:
    """Return the process id of the lock's holder: None when nobody holds it, 0 when its id isn't written yet.

    Takes the lock for a moment where it is free, which is why `acquire` tries for longer than a moment.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _read(descriptor)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else 0
