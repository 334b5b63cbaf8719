"""Real servers for the tests: each fixture starts one of its own on loopback, when first asked for, and ends it."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from typing import NoReturn

import pytest

MISSING = "missing server: "  # begins the reason of every skip for this cause; the summary counts them


def missing(what: str, *, package: str) -> NoReturn:
    """Skip the test at a desk, fail it in CI, because a server is not installed."""
    reason = f"{MISSING}{what} (tests/servers/install, or install the package {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on at this moment.

    Below the range that the system draws outgoing connections from, so that a server can come back to its port.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
