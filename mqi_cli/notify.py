"""Tells systemd how the daemon is: the datagrams of sd_notify(3), which do nothing where no systemd listens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_SOCKET = "NOTIFY_SOCKET"
_INTERVAL = "WATCHDOG_USEC"
_PID = "WATCHDOG_PID"


class Notifier:
    """The way to the service manager. Takes its variables out of the environment: children must not speak for us."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = _address(environment.pop(_SOCKET, ""))
        self.manager = "systemd" if self._address else ""
        interval, pid = environment.pop(_INTERVAL, ""), environment.pop(_PID, "")
        ours = interval.isdigit() and pid in ("", str(os.getpid()))
        self.watchdog_every = int(interval) / 2e6 if ours else None  # seconds: half of what systemd allows

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is complete."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Give the line that `systemctl status` shows."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the config is read again; `ready` ends it."""
        # systemd 253 and later want the time of the request (Type=notify-reload); older ones ignore it
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the daemon is on its way out."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # systemd going away or being busy is no reason for the pipeline to stop
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)


def _address(text: str) -> str:
    if text.startswith("@"):  # Linux's abstract namespace: no file, spelled with a leading NUL
        return "\0" + text[1:]
    return text if text.startswith("/") else ""
