"""Signals as flags that a loop reads, with a socket that wakes the loop: a flag alone would wait for the next turn."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def waking_signals(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[socket.socket]:
    """Call the handlers on their signals, and give a socket that becomes readable on each. Main thread only."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    def calling(handler: Callable[[], None]) -> Callable[..., None]:
        return lambda *_: handler()

    before = {number: signal.signal(number, calling(handler)) for number, handler in handlers.items()}
    descriptor_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(descriptor_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
