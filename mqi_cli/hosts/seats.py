"""The connections from this machine to one host, counted over all its processes.

A seat is a lock on a file of the state directory: the system gives it back when a process ends, however it ends. The files
stay: with one deleted, two processes could hold "the" lock.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Seat:
    """The right to one connection. `free` may be called twice."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def free(self) -> None:
        """Give it back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Seats:
    """So many seats. Where their files can't be written they aren't counted, and none is refused."""

    def __init__(self, place: Path, count: int) -> None:
        self._place = place
        self._count = count

    def any_free(self) -> bool:
        """Whether one is free at this moment."""
        seat = self.take()
        if seat is not None:
            seat.free()
        return seat is not None

    def take(self) -> Seat | None:
        """Return a free seat, at once; None when all are taken."""
        try:
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(self._count):
                path = self._place.with_name(f"{self._place.name}.{number}")
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                except OSError:
                    os.close(descriptor)
                    raise
                else:
                    return Seat(descriptor)
        except OSError:  # no room, no right to write, no locks
            return Seat(None)
        return None
