"""How far long work is: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from mqi_cli.cli.output import complain
from mqi_cli.quantity import age, size

PLAIN_EVERY = 10.0
_BAR = 10  # columns
_BETWEEN = 10  # the percentage, and blanks
_LEAP = 8 << 20  # bytes; nothing moves as many between two looks
_FASTEST = 200e6  # bytes a second, for what looks seldom

Show = Callable[[float, float, str, str], None]


@contextlib.contextmanager
def progress(title: str) -> Iterator[Show]:
    """Give a function that takes (done, total, unit, detail) and shows it on stderr."""
    if sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _plain(title)


def _bar(title: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    from mqi_cli.printable import printable

    console = Console(stderr=True)
    whole = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=_BAR),
        TextColumn("{task.percentage:>3.0f} %", table_column=whole),
        TextColumn("{task.fields[amount]}", table_column=whole),
        TextColumn("{task.fields[detail]}", style="dim", markup=False, table_column=whole),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, amount="", detail="")
        rate = _Rate(time.monotonic())

        def show(done: float, total: float, unit: str, detail: str) -> None:
            speed = rate.take(done, time.monotonic())
            amount = _amount(done, total, unit, speed)
            if speed and total > done:
                amount += f", {age((total - done) / speed)} left"
            left = max(0, console.width - len(title) - _BAR - len(amount) - _BETWEEN)
            short = printable(detail)[-40:][:left]  # else all columns would be cut
            bar.update(task, completed=done, total=total or None, amount=amount, detail=short)

        yield show


def _plain(title: str) -> Show:
    began = last = time.monotonic()
    rate = _Rate(began)

    def show(done: float, total: float, unit: str, detail: str) -> None:
        nonlocal last
        del detail
        now = time.monotonic()
        speed = rate.take(done, now)
        if now - last >= PLAIN_EVERY:
            last = now
            complain(f"{title}: {_amount(done, total, unit, speed)}, {age(now - began)}")

    return show


class _Rate:
    """How fast the present pass moves: neither what came before its first byte nor an earlier pass counts.

    What was there already is counted as done at one leap, which is no work of this pass.
    """

    def __init__(self, now: float) -> None:
        self._since = self._at = now
        self._from = self._done = 0.0

    def take(self, done: float, now: float) -> float:
        """Take in how much is done by now; return how much a second, 0 while that can't be said."""
        step = done - self._done
        if not done or step < 0:  # nothing yet (the source is read), or from the start again (to prove it)
            self._since, self._from = now, 0.0
        elif step > _LEAP and step > _FASTEST * (now - self._at):
            self._since, self._from = now, done
        self._done, self._at = done, now
        moved, seconds = done - self._from, now - self._since
        return moved / seconds if seconds > 0.5 and moved > 0 else 0.0


def _amount(done: float, total: float, unit: str, speed: float) -> str:
    if unit in ("B", "bytes", "byte"):
        rate = f", {size(speed)}/s" if speed else ""
        of = f" of {size(total)}" if total else ""
        return f"{size(done)}{of}{rate}"
    return (f"{done:g} of {total:g} {unit}" if total else f"{done:g} {unit}" if done else unit).rstrip()
