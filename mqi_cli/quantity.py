"""Durations, sizes, numbers and times as people read them."""

from __future__ import annotations

import time


def age(seconds: float) -> str:
    """Return a duration to one figure that matters: `8 s`, `12 min`, `3 h`, `5 d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size(count: float) -> str:
    """Return bytes: `44.1 MB`."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def counted(number: int, word: str) -> str:
    """Return a number of things: `1 file`, `3 files`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def time_of_day(at: float) -> str:
    """Return a wall time as the local clock shows it: `14:03:22`."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def moment(at: float) -> str:
    """Return a wall time in local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
