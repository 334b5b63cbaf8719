"""Holds transfers back to the bandwidth that a host is allowed: one pace for all of a process's transfers of a host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

_BETWEEN = 5.0  # seconds between two pieces; a far side that hears nothing for minutes gives up
_LEAST = 1024  # bytes
_SLICE = 1.0  # seconds; a long wait shows life in between
_PACES: dict[str, Pace] = {}
_LOCK = threading.Lock()


class Pace:
    """Spreads bytes over time. `limit` is the host's `limits.bandwidth`. May be used from several threads."""

    def __init__(
        self,
        limit: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        minute: Callable[[], int] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limit = limit
        self._clock = clock
        self._minute = minute or _minute_of_day
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free = 0.0  # when the bytes that were spent have had their time

    def rate(self) -> int | None:
        """Return the bytes a second that are allowed now; None for any number."""
        if self.limit is None or isinstance(self.limit, int):
            return self.limit
        now = self._minute()
        for each in self.limit:
            inside = each.start <= now < each.to if each.start <= each.to else now >= each.start or now < each.to
            if inside:
                return int(each.rate)
        return None

    def piece(self, most: int) -> int:
        """Return how many bytes to move at once: at a low rate few, so that the far side hears something every while."""
        rate = self.rate()
        return most if rate is None else min(most, max(_LEAST, int(rate * _BETWEEN)))

    def spend(self, count: int, alive: Callable[[], None]) -> None:
        """Wait until so many bytes more have had their time; `alive` is called at least once a second meanwhile."""
        rate = self.rate()
        if rate is None or not count:
            return
        with self._lock:
            self._free = max(self._free, self._clock()) + count / rate
            until = self._free
        while (left := until - self._clock()) > 0:
            self._sleep(min(left, _SLICE))
            alive()


def pace_of(host: str, limit: Any) -> Pace:
    """Return the pace that this process's transfers of a host share. A changed limit begins a new one."""
    with _LOCK:
        pace = _PACES.get(host)
        if pace is None or pace.limit != limit:
            pace = _PACES[host] = Pace(limit)
        return pace


def _minute_of_day() -> int:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min
