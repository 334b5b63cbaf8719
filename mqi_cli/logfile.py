"""A log file of the daemon, written and rotated by the supervisor alone, and read by `mqi daemon logs`."""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO, TextIO

from mqi_cli.logs import LineFormatter

LONGEST_LINE = 64 * 1024  # bytes; the rest of a longer one is dropped
_BLOCK = 64 * 1024


class LogFile:
    """Appends lines to a file: `NAME.log`, then `NAME.log.1` and so on, the newest first.

    A disk that is full costs lines, which are counted and told of when there is room again; it never costs the daemon.
    """

    def __init__(self, path: Path, *, max_size: int, keep: int, echo: TextIO | None = None) -> None:
        self.path = path
        self._max_size = max_size
        self._keep = keep
        self._echo = echo
        self._descriptor: int | None = None
        self._size = 0
        self.lost = 0

    def resize(self, *, max_size: int, keep: int) -> None:
        """Take other limits, from the next line on."""
        self._max_size, self._keep = max_size, keep

    def write(self, line: str) -> None:
        """Append a line. Never raises."""
        if self._echo is not None:
            try:
                self._echo.write(line + "\n")
                self._echo.flush()
            except (OSError, ValueError):
                self._echo = None  # the terminal is gone; the file stays
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._append(data)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, data: bytes) -> None:
        descriptor = self._open() if self._descriptor is None else self._descriptor
        if self._size and self._size + len(data) > self._max_size:
            descriptor = self._rotate()
        if self.lost:
            told = f"[{self.lost} lines were lost: the log could not be written]\n".encode()
            self._write(descriptor, told + data)
            self.lost = 0
        else:
            self._write(descriptor, data)

    def _write(self, descriptor: int, data: bytes) -> None:
        written = os.write(descriptor, data)
        self._size += written
        if written < len(data):
            raise OSError("a short write: the disk is full")

    def _open(self) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _rotate(self) -> int:
        self.close()
        self.rotated(self._keep).unlink(missing_ok=True)
        for number in range(self._keep, 0, -1):
            source = self.rotated(number - 1)
            if source.exists():
                source.replace(self.rotated(number))
        return self._open()

    def rotated(self, number: int) -> Path:
        """Return the path of the `number`-th older file; 0 is the one that is written."""
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


class Lines:
    """Cuts what comes out of a pipe into lines. Bounded: an endless line is cut short."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[str]:
        """Take some bytes, return the lines that they complete."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            whole.append(self._rest)
            self._rest = b""
            lines = self._cut(whole)
            self._skipping = True
            return lines
        return self._cut(whole)

    def end(self) -> list[str]:
        """Return what is left when nothing more will come."""
        rest, self._rest = self._rest, b""
        return self._cut([rest]) if rest else []

    def _cut(self, whole: list[bytes]) -> list[str]:
        if self._skipping and whole:  # the tail of a line whose beginning was written already
            whole, self._skipping = whole[1:], False
        return [each[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r") for each in whole]


class LogFileHandler(logging.Handler):
    """Writes this process's own log records into a log file."""

    def __init__(self, file: LogFile, formatter: LineFormatter) -> None:
        super().__init__()
        self._file = file
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._file.write(self.format(record))


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last `count` lines of a file; none where there is no file."""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            data = b""
            while position > 0 and data.count(b"\n") <= count:
                step = min(_BLOCK, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except FileNotFoundError:
        return []
    return [each.decode("utf-8", "replace") for each in deque(data.splitlines(), maxlen=count)] if count else []


class Tail:
    """Reads what is appended to a log from now on, across rotations. `whole`: from the beginning instead."""

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self._path = path
        self._lines = Lines()
        self._file = _open(path)
        if self._file is not None and not whole:
            self._file.seek(0, os.SEEK_END)

    def read(self) -> list[str]:
        """Return the lines that have come since the last call; never waits."""
        if self._file is None:
            self._file = _open(self._path)
        if self._file is None:
            return []
        lines = self._lines.feed(self._file.read())
        if not _replaced(self._path, os.fstat(self._file.fileno())):
            return lines
        lines += self._lines.feed(self._file.read())  # what came between the look and the renaming
        self._file.close()
        self._file = _open(self._path)
        return lines + (self._lines.feed(self._file.read()) if self._file is not None else [])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _replaced(path: Path, opened: os.stat_result) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False  # between the two renames of a rotation
    return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino)
