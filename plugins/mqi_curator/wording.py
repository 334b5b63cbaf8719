"""How the curator's tables write times and sizes."""

from __future__ import annotations


def ago(at: float | None, now: float) -> str:
    """Return how long ago a wall time was."""
    if at is None:
        return "never"
    seconds = max(0.0, now - at)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def gigabytes(count: int | None) -> str:
    """Return bytes in GB."""
    return "" if count is None else f"{count / 1e9:.1f} GB"


def directories(count: int) -> str:
    """Return a number of case directories."""
    return "1 case directory" if count == 1 else f"{count} case directories"
