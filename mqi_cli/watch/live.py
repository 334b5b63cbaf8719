"""The dashboard's loop: look, lay out, draw what changed, wait for a key or the next turn."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from mqi_cli.clock import Clock
from mqi_cli.daemon import DaemonFiles
from mqi_cli.errors import StateError
from mqi_cli.machine import machine_name
from mqi_cli.signals import waking_signals
from mqi_cli.store import Store, open_store
from mqi_cli.store.views import CaseDetail, Views, WatchData
from mqi_cli.watch.data import DaemonView, View, make_view
from mqi_cli.watch.detail import CaseText
from mqi_cli.watch.frame import render, render_all
from mqi_cli.watch.keys import Keys
from mqi_cli.watch.screen import Mode, Screen, press, settle

ENDED_SHOWN = 86400.0  # seconds that an ended case stays on the screen
_AGAIN_AFTER = 30.0  # seconds after which is read again though nothing changed: cases leave the screen by age


class Source:
    """Reads the state database, and only when something in it has changed."""

    def __init__(self, state_path: Path, clock: Clock) -> None:
        self._path = state_path
        self._clock = clock
        self._files = DaemonFiles(state_path.parent)
        self._store: Store | None = None
        self._data: WatchData | None = None
        self._detail: CaseDetail | None = None
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, str, str] | None = None
        self._read_at = 0.0

    def view(self, screen: Screen) -> View:
        """Return the view of now."""
        problem = hint = ""
        try:
            self._refresh(screen)
        except StateError as error:
            self.close()
            self._data = None
            problem, hint = error.message, error.hint
        daemon = DaemonView(self._files.running(), self._files.read_status())
        return make_view(self._data, daemon, machine=machine_name(), now=self._clock.now(), problem=problem, hint=hint)

    def case(self) -> CaseText | None:
        """Return the text of the open case, as of the last `view`."""
        return CaseText(self._detail, self._clock.now()) if self._detail is not None else None

    def close(self) -> None:
        """Close the database. May be called twice."""
        if self._store is not None:
            self._store.close()
        self._store = self._seen = None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _refresh(self, screen: Screen) -> None:
        file = self._identity()
        if file != self._file:  # made, deleted, or another one since a restore
            self.close()
            self._data = self._detail = None
            self._file = file
        if file is None:
            return
        if self._store is None:
            self._store = open_store(self._path, read_only=True)
        views = Views(self._store)
        open_case = screen.case if screen.mode is Mode.CASE else ""
        seen = (views.version(), screen.find, open_case)
        if seen == self._seen and self._clock.elapsed() - self._read_at < _AGAIN_AFTER:
            return
        self._data = views.snapshot(find=screen.find, ended_since=self._clock.now() - ENDED_SHOWN)
        self._detail = views.detail(open_case) if open_case else None
        self._seen, self._read_at = seen, self._clock.elapsed()


def watch_once(state_path: Path, console: Console, *, clock: Clock) -> None:
    """Print one frame with everything on it."""
    source = Source(state_path, clock)
    try:
        for line in render_all(source.view(Screen()), console.width):
            console.print(line, no_wrap=True, crop=True, highlight=False, soft_wrap=False)
    finally:
        source.close()


def watch(
    state_path: Path,
    console: Console,
    keyboard: TextIO,
    *,
    interval: float,
    clock: Clock,
    finished: Callable[[], bool] = lambda: False,
) -> None:
    """Show the dashboard until it is quit or `finished` says so. Leaves the terminal as it was, also after an error."""
    source = Source(state_path, clock)
    screen = Screen()
    drawn: list[Text] = []
    with (
        contextlib.closing(source),
        _quitting() as (wake, asked),
        Keys(keyboard.fileno()) as keys,
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        while not (asked or screen.quit or finished()):
            view = source.view(screen)
            screen = settle(screen, view)
            size = os.get_terminal_size(
                console.file.fileno()
            )  # Rich would believe $COLUMNS first, which does not follow
            console.size = ConsoleDimensions(*size)
            lines = render(view, screen, *size, case=source.case())
            if lines != drawn:
                live.update(Group(*lines), refresh=True)
                drawn = lines
            try:
                pressed = keys.read(interval, also=[wake.fileno()])
            except EOFError:
                return
            with contextlib.suppress(BlockingIOError):
                wake.recv(64)
            for key in pressed:
                screen = press(screen, key, view)


@contextlib.contextmanager
def _quitting() -> Iterator[tuple[socket.socket, list[str]]]:
    """Turn signals into a list that is no longer empty when one asked to end, and a socket that wakes a wait."""
    asked: list[str] = []

    def ask() -> None:
        asked.append("asked")

    def resized() -> None:
        """Only wake the loop: it asks for the size each time."""

    handlers = {signal.SIGTERM: ask, signal.SIGHUP: ask, signal.SIGINT: ask, signal.SIGWINCH: resized}
    with waking_signals(handlers) as wake:
        yield wake, asked
