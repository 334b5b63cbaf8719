"""How far a turn is, told as it goes, and the one place where it notices that it is asked to stop."""

from __future__ import annotations

from mqi_cli import StageContext
from mqi_sftp.pace import pace_of


class Stopping(Exception):
    """The worker is asked to end: leave things so that the next turn goes on from here."""


class Meter:
    """Counts moved bytes towards a total. Every call shows that the turn is alive.

    Without a context it only counts: a command that looks has no turn to tell of.
    """

    def __init__(self, ctx: StageContext | None) -> None:
        self._ctx = ctx
        self._detail = ""
        self.done = 0
        self.total = 0
        self._pace = None if ctx is None else pace_of(ctx.host.name, ctx.host.config.limits.bandwidth)
        self.moved = 0  # in this turn; `done` also counts what was there before

    def begin(self, detail: str) -> None:
        """Say what is done now; shown on the operator's terminal only."""
        self._detail = detail
        self.alive()

    def alive(self, _count: int = 0) -> None:
        """Show life without having moved anything. Raises `Stopping`."""
        if self._ctx is None:
            return
        if self._ctx.stopping():
            raise Stopping
        self._ctx.progress(self.done, self.total, "B", detail=self._detail)

    def move(self, count: int) -> None:
        """Count bytes that the other side has. Raises `Stopping`."""
        self.done += count
        self.moved += count
        self.alive()
        if self._pace is not None:
            self._pace.spend(count, self.alive)
