"""Files of ours alone that arrive on this machine, and what it means when one can't be written."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mqi_sftp.plan import Mark

if TYPE_CHECKING:
    from typing_extensions import Buffer  # brought by pydantic; the standard library has it from 3.12 on

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class WriteFailed(Exception):
    """A file can't be written on this machine. `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class ArrivingFile(io.FileIO):
    """A new file of ours alone that is hashed as it is written, unless it is read back and hashed anyway."""

    def __init__(self, path: Path, *, hashed: bool = True) -> None:
        self.path = path
        self._hashed = hashed
        self.digest = hashlib.sha256()
        super().__init__(path, "wb", opener=lambda name, _flags: os.open(name, _NEW_FILE, 0o600))

    def write(self, data: Buffer, /) -> int:
        """Write all of it; the system may take less at a time."""
        view = memoryview(data).cast("B")
        if self._hashed:
            self.digest.update(view)
        written = 0
        try:
            while written < len(view):
                written += super().write(view[written:]) or 0
        except OSError as error:
            raise WriteFailed(error) from error  # else the host would be blamed for it
        return written


class SmallFiles:
    """Puts small files among a landing directory's results, in as few calls as that takes.

    They have their names at once: where a turn was cut, what it left is kept by its hash alone.
    """

    def __init__(self, results: Path) -> None:
        self._results = f"{results}/"

    def put(self, path: str, data: memoryview, *, mark: Mark) -> None:
        """Write a file; its directory is there. Raises `WriteFailed`."""
        try:
            handle = os.open(self._results + path, _NEW_FILE, 0o600)
            try:
                written = 0
                while written < len(data):
                    written += os.write(handle, data[written:])
                os.fchmod(handle, mark.mode)
                os.utime(handle, (mark.mtime, mark.mtime))
            finally:
                os.close(handle)
        except OSError as error:
            raise WriteFailed(error) from error  # else the host would be blamed for it
