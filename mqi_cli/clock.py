"""The time, passed in wherever it is needed so that tests can turn it.

Wall time (seconds since the epoch, UTC) is what is stored and shown; boot time never jumps, and is the same for all
processes of one boot, so it measures how long something has lasted.
"""

from __future__ import annotations

import time
from pathlib import Path


class Clock:
    """The system's clocks. `FakeClock` in `mqi_cli.testing` has the same three methods."""

    def now(self) -> float:
        """Return wall time in seconds since the epoch."""
        return time.time()

    def elapsed(self) -> float:
        """Return seconds since boot, suspend included where the system offers it; never jumps with the wall clock."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def boot_id(self) -> str:
        """Name this boot: readings of `elapsed` compare only where this is equal."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
