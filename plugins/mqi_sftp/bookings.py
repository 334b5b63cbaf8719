"""Until when a host's line is taken: one file for each host, shared by all processes of this machine.

What is in it: the boot's id, and the time on that boot's clock at which the line is free. Who wants to send books behind
that, under the file's lock, and waits afterwards, without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mqi_cli import Clock

_RECORD = struct.Struct("=36sd")
_PATIENCE = 1.0  # seconds; a booking takes microseconds, unless its process was frozen in the middle
_PAUSE = 0.001  # seconds


class Bookings:
    """Books time on the line. Without a file, or where it can't be written, it is booked for this process alone."""

    def __init__(self, place: Path | None = None, *, clock: Callable[[], float] | None = None) -> None:
        system = Clock()
        self.clock = clock or system.elapsed
        self._boot = system.boot_id().encode()[:36].ljust(36)
        self._place = place
        self._lock = threading.Lock()
        self._free = 0.0  # as far as this process knows
        self._descriptor: int | None = None

    def book(self, seconds: float) -> float:
        """Take the line for so long from when it is free, or from now on; return when that ends, on `clock`."""
        with self._lock, self._shared() as descriptor:
            free = self._free
            if descriptor is not None:
                # of all others too; an older own one would be of a time in which the file was out of reach
                free = max(free, self._read(descriptor))
            self._free = max(free, self.clock()) + seconds
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.pwrite(descriptor, _RECORD.pack(self._boot, self._free), 0)
            return self._free

    def _read(self, descriptor: int) -> float:
        try:
            boot, free = _RECORD.unpack(os.pread(descriptor, _RECORD.size, 0))
        except (OSError, struct.error):
            return 0.0
        return float(free) if boot == self._boot else 0.0

    @contextlib.contextmanager
    def _shared(self) -> Iterator[int | None]:
        descriptor = self._open()
        if descriptor is None or not _locked(descriptor):
            yield None
            return
        try:
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _open(self) -> int | None:
        if self._descriptor is None and self._place is not None:
            with contextlib.suppress(OSError):
                self._place.parent.mkdir(mode=0o700, exist_ok=True)
                self._descriptor = os.open(self._place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor


def _locked(descriptor: int) -> bool:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks
            return False
