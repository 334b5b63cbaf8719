"""When a process that ended is started again. Pure: times are passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

FIRST_DELAY = 1.0  # seconds
LONGEST_DELAY = 60.0
JITTER = 0.2  # so that processes which fail together don't come back together
HEALTHY_AFTER = 60.0
WINDOW = 600.0
MOST_EXITS = 10  # in the window; one more, and it is fatal
FATAL_DELAY = 600.0


@dataclass(frozen=True)
class Restart:
    """How long to wait before the next start, in seconds, and whether this child counts as broken."""

    delay: float
    fatal: bool


class Restarts:
    """The history of one child's exits.

    A fatal child is still tried now and then, because its cause may go away by itself (a disk that was full); it stays
    fatal until it has run well for `HEALTHY_AFTER`.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._exits: deque[float] = deque()
        self._in_a_row = 0
        self._fatal = False

    def ended(self, now: float, *, lived: float) -> Restart:
        """Record an exit and say what follows from it."""
        if lived >= HEALTHY_AFTER:
            self._in_a_row = 0
            self._fatal = False
        self._exits.append(now)
        while self._exits[0] <= now - WINDOW:
            self._exits.popleft()
        self._fatal = self._fatal or len(self._exits) > MOST_EXITS
        delay = FATAL_DELAY if self._fatal else min(LONGEST_DELAY, FIRST_DELAY * 2.0**self._in_a_row)
        self._in_a_row = min(self._in_a_row + 1, 16)  # 2 ** 16 is far beyond the longest delay
        return Restart(delay * self._random.uniform(1 - JITTER, 1 + JITTER), self._fatal)

    def forgive(self) -> None:
        """Forget everything: a person has changed something."""
        self._exits.clear()
        self._in_a_row = 0
        self._fatal = False
