"""What a process that the supervisor started does first: end with its supervisor, and prove from then on that it lives.

Two things end it, because each alone has a hole. The kernel's parent-death signal reaches it within a moment, but only
on Linux, and not if the parent died before it was asked for. The socket that the two share reads as closed on every
system once the supervisor is gone, and bounds how long the way out may take.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time

SOCKET_VARIABLE = "MQI_SUPERVISOR_SOCKET"
PID_VARIABLE = "MQI_SUPERVISOR_PID"
NAME_VARIABLE = "MQI_PROCESS"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_BEAT_EVERY = 3.0  # seconds; more beats than that tell nothing new, and each wakes the supervisor
_ORPHAN_GRACE = 8.0  # seconds for an orderly end after the supervisor is gone


class Beat:
    """A child's sign of life. Without a supervisor (a worker started by hand) it does nothing.

    `process` is what the supervisor calls this process, in its log and its status; empty without one.
    """

    def __init__(self, connection: socket.socket | None, process: str = "") -> None:
        self.process = process
        self._connection = connection
        self._last = 0.0

    def turn(self) -> None:
        """Tell the supervisor that the main loop has come round. Call it each turn, from that loop only; never blocks."""
        now = time.monotonic()
        if self._connection is None or (self._last and now - self._last < _BEAT_EVERY):
            return
        self._last = now
        # A full socket means that the supervisor stands still, a broken one that it is gone: the watcher sees to that.
        with contextlib.suppress(OSError):
            self._connection.send(b".", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def become_child(*, grace: float = _ORPHAN_GRACE) -> Beat:
    """Tie this process to its supervisor, if one started it; call it first in a process's main function.

    When the supervisor ends, this process gets SIGTERM, and `grace` seconds later SIGKILL with its process group.
    Raises `SystemExit` if the supervisor is gone already. SIGABRT dumps every thread's stack to stderr from now on.
    """
    faulthandler.enable()
    # taken out of the environment: what this process starts itself is no child of the supervisor
    descriptor, supervisor, process = (
        os.environ.pop(each, "") for each in (SOCKET_VARIABLE, PID_VARIABLE, NAME_VARIABLE)
    )
    if not descriptor or not supervisor:
        return Beat(None)
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)  # this process's own children must not keep it open
    signalled = _ask_for_death_signal()
    if os.getppid() != int(supervisor):  # it ended before the kernel was asked, so no signal will come
        raise SystemExit("the supervisor ended while this process started")
    watcher = threading.Thread(
        target=_outlive_briefly, args=(connection, grace, signalled), name="supervisor-watch", daemon=True
    )
    watcher.start()
    return Beat(connection, process)


def _ask_for_death_signal() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    # Done here and not between fork and exec (preexec_fn), where only async-signal-safe code may run.
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) == 0)


def _outlive_briefly(connection: socket.socket, grace: float, signalled: bool) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(64):
            pass
    if not signalled:  # where the kernel sends SIGTERM, a second one would read as "now"
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
