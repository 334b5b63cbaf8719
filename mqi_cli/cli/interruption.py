"""Ctrl-C in the foreground: once means "stop where it can go on later", twice means now."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that work ends where it can go on later; the second one ends it."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> threading.Event:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._set)
        return self._flag

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: object) -> None:
        del frame
        if self._flag.is_set():
            raise KeyboardInterrupt
        self._flag.set()
