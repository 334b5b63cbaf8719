"""What a turn notes of the files that come in, for a later turn to know again what came and has not changed there.

Where no program hashes on the host, reading a file back proves no more than fetching it does and costs as much. So each
whole file's hash, and every so often that of a large file's beginning, is noted as the bytes arrive: what lies here is
kept when it still has that hash and the host still shows the size and time that it had.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mqi_cli import Entry
from mqi_sftp.arriving import ArrivingFile, WriteFailed
from mqi_sftp.landing import Landing
from mqi_sftp.results import Origin
from mqi_sftp.tree import position

if TYPE_CHECKING:
    from typing_extensions import Buffer  # brought by pydantic; the standard library has it from 3.12 on


_STEP = 128 * 1024  # bytes of a large file between two notes at least: each block is noted, or nearly
_NOTES = 2000  # at most of one file


class Received:
    """The notes of one landing directory, a line each. Those of another run's results say nothing."""

    def __init__(self, landing: Landing, origin: Origin) -> None:
        self._file = landing.path / "received"
        self._origin = [str(each) for each in origin.places.values()]
        self._stream = -1

    def hashes(self, files: Sequence[Entry]) -> dict[str, str]:
        """Return the hashes of those files that came in whole and have not changed on the host since."""
        found = {}
        for path, size, mtime, length, digest in self._notes():
            at = position(files, path)
            if at is not None and length == size and (size, mtime) == (files[at].size, files[at].mtime_ns):
                found[files[at].path] = digest  # no text is held twice
        return found

    def beginnings(self, file: Entry) -> list[tuple[int, str]]:
        """Return lengths and hashes of a file's beginning as it came in last, where it has not changed since."""
        found: list[tuple[int, str]] = []
        for path, size, mtime, length, digest in self._notes():
            if path != file.path or (size, mtime) != (file.size, file.mtime_ns):
                continue
            if found and length <= found[-1][0]:
                found.clear()  # it was begun anew
            found.append((length, digest))
        return found

    def note(self, file: Entry, length: int, digest: str) -> None:
        """Note that so many bytes of a file have come in, with this hash."""
        if self._stream < 0:
            fresh = not any(True for _ in self._notes())
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
            self._stream = os.open(self._file, flags, 0o600)
            if fresh:
                self._write(self._origin)
        self._write([file.path, file.size, file.mtime_ns, length, digest])

    def close(self) -> None:
        """Stop noting."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def _write(self, line: list[object] | list[str]) -> None:
        os.write(self._stream, b"\n" + json.dumps(line).encode())  # behind the half line that a crash may leave

    def _notes(self) -> Iterator[tuple[str, int, int, int, str]]:
        try:
            with self._file.open("rb") as lines:
                next(lines, b"")
                if _parsed(next(lines, b"")) != self._origin:
                    return
                for line in lines:
                    match _parsed(line):
                        case [str(path), int(size), int(mtime), int(length), str(digest)]:
                            yield path, size, mtime, length, digest
        except FileNotFoundError:
            return


class NotedFile(ArrivingFile):
    """A large file whose beginning is noted again and again as it comes in."""

    def __init__(self, path: Path, file: Entry, received: Received) -> None:
        super().__init__(path)
        self._file = file
        self._received = received
        self._step = max(_STEP, file.size // _NOTES)
        self._due = self._step
        self._length = 0

    def write(self, data: Buffer, /) -> int:
        """Write all of it."""
        written = super().write(data)
        self._length += written
        if self._due <= self._length < self._file.size:
            try:
                self._received.note(self._file, self._length, self.digest.hexdigest())
            except OSError as error:
                raise WriteFailed(error) from error  # else the host would be blamed for it
            self._due = self._length + self._step
        return written

    def take_over(self, place: Path, beginnings: Sequence[tuple[int, str]]) -> int:
        """Copy as much of an earlier turn's file as is what came in then; return its length.

        Copied, because that turn may hold it open still.
        """
        with place.open("rb") as earlier:
            for length, wanted in beginnings:
                data = earlier.read(length - self._length)
                digest = self.digest.copy()
                digest.update(data)
                if digest.hexdigest() != wanted:
                    break
                self.write(data)
        return self._length


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
