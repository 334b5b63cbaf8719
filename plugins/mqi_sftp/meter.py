"""How far a turn is, told as it goes, and the one place where it notices that it is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from mqi_cli import StageContext, age, size
from mqi_sftp.pace import pace_of

Show = Callable[[float, float, str, str], None]  # done, total, unit, detail
_NOTE_EVERY = 1.0  # seconds
_NAME = 22  # characters of a file's name beside the counts, on a line of 80


def silent(_done: float, _total: float, _unit: str, _detail: str) -> None:
    """Show nothing."""


class Stopping(Exception):
    """The worker is asked to end: leave things so that the next turn goes on from here."""


class Meter:
    """Counts moved bytes and files towards a total. Every call shows that the turn is alive.

    With `show` it belongs to a command that looks: what is read counts as done, and there is no turn to tell of.
    """

    def __init__(
        self,
        ctx: StageContext | None,
        *,
        show: Show | None = None,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ctx = ctx
        self._show = show
        self._detail = ""  # may name a file: for the operator's terminal
        self._phase = ""
        self.done = 0
        self.total = 0
        self.files = 0  # begun, or there before
        self.of_files = 0
        self._pace = None if ctx is None else pace_of(ctx)
        self.moved = 0  # in this turn; `done` also counts what was there before
        self._elapsed = elapsed
        self._first_at: float | None = None
        self._noted_at = float("-inf")
        self._words = ""

    def begin(self, phase: str) -> None:
        """Say what is done now, in words without names: it is told wherever the case's reason is."""
        self._detail = self._phase = phase
        self.alive()

    def begin_file(self, path: str) -> None:
        """Say which file is moved now; counts it."""
        self.files += 1
        name = path.rpartition("/")[2]
        self._detail = f"{self.files}/{self.of_files} files, {name[-_NAME:]}" if self.of_files else name
        self._phase = ""
        self.alive()

    def expect(self, *, files: int, size: int) -> None:
        """Say how much there is to do in all."""
        self.of_files, self.total = files, size

    def keep(self, *, files: int, size: int) -> None:
        """Say how much of it is there before anything moves."""
        self.files, self.done = files, size

    def alive(self, count: int = 0) -> None:
        """Show life; `count` bytes were read for their hash, which moves nothing. Raises `Stopping`."""
        if self._show:
            self.done += count
            self._show(self.done, max(self.done, self.total), "B", self._detail)
        elif self._ctx is not None:
            if self._ctx.stopping():
                raise Stopping
            self._ctx.progress(self.done, self.total, "B", detail=self._detail, note=self._note())

    def _note(self) -> str:
        """Say which of how many files, how fast and for how long still: of what this turn moves, not of what was there."""
        if self._phase:
            return self._phase
        now = self._elapsed()
        if now - self._noted_at >= _NOTE_EVERY and self._first_at is not None:
            self._noted_at = now
            words = [f"{self.files} of {self.of_files} files"] if self.of_files else []
            speed = self.moved / max(0.5, now - self._first_at)
            words.append(f"{size(speed)}/s")
            if self.total > self.done:
                words.append(f"{age((self.total - self.done) / speed)} left")
            self._words = ", ".join(words)
        return self._words

    def move(self, count: int) -> None:
        """Count bytes that the other side has. Raises `Stopping`."""
        if count and self._first_at is None:
            self._first_at = self._elapsed()
        self.done += count
        self.moved += count
        self.alive()
        self.wait(count)

    def piece(self, most: int) -> int:
        """Return how many bytes to move at once, at most so many."""
        return most if self._pace is None else self._pace.piece(most)

    def read_back(self, count: int) -> None:
        """Show that bytes came over the line that only their hash is wanted of. Raises `Stopping`."""
        self.alive(count)
        self.wait(count)

    def wait(self, count: int) -> None:
        """Let bytes that used the line have their time."""
        if self._pace is not None:
            self._pace.spend(count, self.alive)
