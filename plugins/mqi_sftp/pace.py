"""Holds transfers back to the bandwidth that a host is allowed: one pace for all transfers between this machine and it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mqi_cli import StageContext
from mqi_sftp.bookings import Bookings

_BETWEEN = 5.0  # seconds between two pieces; a far side that hears nothing for minutes gives up
_LEAST = 1024  # bytes
_SLICE = 1.0  # seconds; a long wait shows life in between
_PACES: dict[Path, Pace] = {}
_LOCK = threading.Lock()


class Pace:
    """Spreads bytes over time. `limit` is the host's `limits.bandwidth`. May be used from several threads."""

    def __init__(
        self,
        limit: Any,
        *,
        line: Bookings | None = None,
        minute: Callable[[], int] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limit = limit
        self.line = line or Bookings()
        self._minute = minute or _minute_of_day
        self._sleep = sleep

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
        until = self.line.book(count / rate)
        while (left := until - self.line.clock()) > 0:
            self._sleep(min(left, _SLICE))
            alive()


def pace_of(ctx: StageContext) -> Pace:
    """Return the pace that all transfers of the turn's host share. A changed limit begins a new one, on the same line."""
    limit = ctx.host.config.limits.bandwidth
    if limit is None:
        return Pace(None)
    place = ctx.data_dir / "bandwidth" / ctx.host.name
    with _LOCK:
        pace = _PACES.get(place)
        if pace is None or pace.limit != limit:
            pace = _PACES[place] = Pace(limit, line=pace.line if pace else Bookings(place))
        return pace


def _minute_of_day() -> int:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min
