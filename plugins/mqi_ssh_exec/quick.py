"""Starts plain runs through a program that stays loaded on the host, where it can: `far_runner`. The rest is `mqi-job`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources

from mqi_cli import Host, Resident, ResidentHost
from mqi_ssh_exec.far_runner import BEGUN, DEFERRED
from mqi_ssh_exec.helper_calls import Order, Place

LARGEST_SCRIPT = 1 << 20


@cache
def runner() -> Resident:
    """Return the program as it ships."""
    return Resident("far_runner", (resources.files("mqi_ssh_exec") / "far_runner.py").read_bytes())


def submit(host: Host, place: Place, order: Order, *, wait: int, outputs: Sequence[str]) -> tuple[bytes, bool]:
    """Start a run. Return the report of its end, empty where there is none, and whether it was started here."""
    if not isinstance(host, ResidentHost) or len(order.script) > LARGEST_SCRIPT:
        return b"", False
    answer = host.ask(runner(), request(place, order, wait=wait, outputs=outputs), timeout=90.0 + wait)
    if answer is None or answer == DEFERRED:
        return b"", False
    return (b"", True) if answer == BEGUN else (answer, True)


def request(place: Place, order: Order, *, wait: int, outputs: Sequence[str]) -> bytes:
    """Return what the program is asked. Pure."""
    facts = {
        "part": str(place.part),
        "attempt": place.attempt,
        "input": str(order.input_dir or "-"),
        "limit": order.time_limit,
        "grace": order.kill_after,
        "log_limit": order.log_limit,
        "script": order.script.decode("utf-8", "surrogateescape"),
        "wait": wait,
        "outputs": list(outputs),
    }
    return json.dumps(facts).encode()
