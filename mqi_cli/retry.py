"""How long to wait before the next try. Pure; randomness is passed in."""

from __future__ import annotations

from random import Random

JITTER = 0.2  # so that what failed together does not come back together


def backoff(failures: int, random: Random, *, first: float, most: float) -> float:
    """Return seconds before the next try after `failures` in a row: doubling, capped, ±20 %."""
    plain = min(most, first * 2.0 ** min(max(failures, 1) - 1, 30))
    return plain * random.uniform(1 - JITTER, 1 + JITTER)
