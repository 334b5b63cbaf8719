"""How far long work is: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from mqi_cli.cli.output import complain
from mqi_cli.quantity import age, size

PLAIN_EVERY = 10.0

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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mqi_cli.printable import printable

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, amount="", detail="")
        rate = _Rate(time.monotonic())

        def show(done: float, total: float, unit: str, detail: str) -> None:
            amount = _amount(done, total, unit, rate.seconds(done, time.monotonic()))
            bar.update(task, completed=done, total=total or None, amount=amount, detail=printable(detail)[-40:])

        yield show


def _plain(title: str) -> Show:
    began = last = time.monotonic()
    rate = _Rate(began)

    def show(done: float, total: float, unit: str, detail: str) -> None:
        nonlocal last
        del detail
        now = time.monotonic()
        seconds = rate.seconds(done, now)
        if now - last >= PLAIN_EVERY:
            last = now
            complain(f"{title}: {_amount(done, total, unit, seconds)}, {age(now - began)}")

    return show


class _Rate:
    """How long the present pass has been moving: neither what came before its first byte nor an earlier pass counts."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._done = 0.0

    def seconds(self, done: float, now: float) -> float:
        """Take in how much is done by now; return the seconds that it took."""
        if not done or done < self._done:  # nothing yet (the source is read), or from the start again (to prove it)
            self._since = now
        self._done = done
        return now - self._since


def _amount(done: float, total: float, unit: str, seconds: float) -> str:
    if unit in ("B", "bytes", "byte"):
        rate = f", {size(done / seconds)}/s" if seconds > 0.5 and done else ""
        return f"{size(done)} of {size(total)}{rate}"
    return (f"{done:g} of {total:g} {unit}" if total else f"{done:g} {unit}" if done else unit).rstrip()
