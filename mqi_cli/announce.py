"""Tells others how the daemon is: the status file, and systemd."""

from __future__ import annotations

import contextlib

from mqi_cli.clock import Clock
from mqi_cli.daemon import DaemonFiles, DaemonStatus
from mqi_cli.notify import Notifier

_WRITE_EVERY = 5.0  # seconds, when nothing but memory and expected times have changed


class Announcer:
    """Keeps what was told last, so that only news are told."""

    def __init__(self, files: DaemonFiles, notifier: Notifier, clock: Clock) -> None:
        self._files = files
        self._notifier = notifier
        self._clock = clock
        self._told: DaemonStatus | None = None
        self._unwritten = False
        self._written_at = self._fed_at = clock.elapsed()

    def tell(self, status: DaemonStatus) -> None:
        """Take the status of now, once a turn of the loop. A status file that can't be written is tried again."""
        now, before = self._clock.elapsed(), self._told
        every = self._notifier.watchdog_every
        if every is not None and now - self._fed_at >= every:
            # Says that the loop goes round. A child that does not is the loop's business: systemd would stop them all.
            self._fed_at = now
            self._notifier.alive()
        news = before is None or status.differs(before)
        due = (status != before or self._unwritten) and now - self._written_at >= _WRITE_EVERY
        if not news and not due:
            return
        self._told, self._written_at = status, now
        try:
            self._files.write_status(status)
            self._unwritten = False
        except OSError:  # a full disk
            self._unwritten = True
        if not news:
            return
        if status.state == "stopping":
            if before is None or before.state != "stopping":
                self._notifier.stopping(status.headline)
        elif status.ready and (before is None or not before.ready):
            self._notifier.ready(status.headline)
        elif status.ready:
            self._notifier.status(status.headline)

    def reloading(self) -> None:
        """Say that the config is being read again."""
        self._notifier.reloading()

    def reloaded(self, status: DaemonStatus) -> None:
        """Say that this is over, whatever came of it."""
        self._notifier.ready(status.headline)

    def end(self) -> None:
        """Take the status file away: nobody is there any more."""
        with contextlib.suppress(OSError):
            self._files.status.unlink(missing_ok=True)
