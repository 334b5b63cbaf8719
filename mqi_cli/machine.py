"""This machine: the name by which its workers are known, and whether a process of it runs."""

from __future__ import annotations

import os
import socket


def machine_name() -> str:
    """Return the host name without its domain."""
    return socket.gethostname().split(".")[0]


def runs(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
