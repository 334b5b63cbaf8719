"""Wakes the processes that wait for a lane of the embedded queue, and tells which of them still live.

A bell is a FIFO whose reading end its owner keeps open. A byte in it wakes the owner within a millisecond; and since
the system closes that end however a process ends, opening a bell for writing fails (ENXIO) when its owner is dead.
FIFOs rather than sockets: a socket's path may have 107 bytes, and state directories are longer than that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
import uuid
from functools import cache
from pathlib import Path
from urllib.parse import quote

UNBORN_LIMIT = 60.0  # seconds; between making a FIFO and opening it lie microseconds, unless its maker died there


class Bell:
    """One owner's bell on one lane. `name` is unique for ever."""

    def __init__(self, directory: Path, lane: str) -> None:
        """Hang the bell. Raises `OSError` where the directory can't be written to."""
        at = lane_directory(directory, lane)
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._waiting = 0
        self._down = False
        self._path = at / self.name
        unborn = at / f".{self.name}"
        os.mkfifo(unborn, 0o600)
        try:
            # Also open for writing: a FIFO without a writer reports its end again and again to whoever polls it.
            self._pipe = os.open(unborn, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            # It gets its name when it already rings: under that name it is never taken for a dead one's.
            unborn.rename(self._path)
        except OSError:
            unborn.unlink(missing_ok=True)
            raise

    def ring(self) -> None:
        """Wake whoever waits on this very bell."""
        with self._lock:
            if not self._down:
                _write(self._pipe)

    def wait(self, timeout: float) -> bool:
        """Wait for a ring, at most `timeout` seconds. Rings that came before count; several count once."""
        with self._lock:
            if self._down:
                return True
            self._waiting += 1
        try:
            poll = select.poll()
            poll.register(self._pipe, select.POLLIN)
            if not poll.poll(max(0.0, timeout) * 1000):
                return False
            if not self._down:  # the last ring is left in: every thread that waits shall hear it
                with contextlib.suppress(BlockingIOError):  # another thread of this process took the same ring
                    os.read(self._pipe, 4096)
            return True
        finally:
            with self._lock:
                self._waiting -= 1
                self._close_if_unused()

    def take_down(self) -> None:
        """Remove the bell and wake its waiters; its owner is from now on taken for dead."""
        with self._lock:
            if self._down:
                return
            self._path.unlink(missing_ok=True)
            self._down = True
            _write(self._pipe)
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        # Not while a thread waits on it: the system would give the same number to another file.
        if self._down and not self._waiting:
            os.close(self._pipe)


def lane_directory(directory: Path, lane: str) -> Path:
    """Return where a lane's bells hang."""
    return directory / quote(lane, safe="")


def ring_all(directory: Path, lane: str) -> None:
    """Wake everybody who waits for the lane, and take down the bells of the dead."""
    at = _place(directory, lane)
    for name in _names(at):
        _lives(f"{at}/{name}", ring=True)


def lives(directory: Path, lane: str, name: str) -> bool:
    """Whether the owner of a bell lives. A bell that is gone, or that nobody listens to, belongs to a dead one."""
    return _lives(f"{_place(directory, lane)}/{name}")


@cache
def _place(directory: Path, lane: str) -> str:  # a text: these are looked at for every message
    return str(lane_directory(directory, lane))


def _lives(path: str, *, ring: bool = False) -> bool:
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.ENXIO:
            return True  # another user's, or no descriptors left: when in doubt its messages stay its own
        with contextlib.suppress(OSError):
            Path(path).unlink()
        return False
    try:
        if ring:
            _write(pipe)
    finally:
        os.close(pipe)
    return True


def sweep(directory: Path, lane: str) -> None:
    """Take down what dead processes left on a lane."""
    at = lane_directory(directory, lane)
    for name in _names(str(at)):
        lives(directory, lane, name)
    for unborn in at.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - unborn.stat().st_mtime > UNBORN_LIMIT:
                unborn.unlink()


def _names(at: str) -> list[str]:
    try:
        with os.scandir(at) as entries:
            return [each.name for each in entries if not each.name.startswith(".")]
    except FileNotFoundError:
        return []


def _write(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it rings already; broken: it just died
        os.write(pipe, b"!")
