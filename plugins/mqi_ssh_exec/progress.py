"""How far a run is, as its own log tells. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r+\n")  # `$` would not see it


@dataclass(frozen=True)
class Progress:
    """So much is done of so much."""

    done: float
    total: float


def check_progress(pattern: str) -> str:
    """Say what is wrong with a pattern; empty when nothing is."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    return "" if expression.groups == 2 else r"two groups are wanted, as in 'batch (\d+) of (\d+)'"


def read_progress(pattern: str, text: str) -> Progress | None:
    """Return what the newest match in a text says; None where there is none that makes sense."""
    newest = None
    for found in re.finditer(pattern, _LINE_END.sub("\n", text)):
        try:
            done, total = (float(value) for value in found.groups())
        except (TypeError, ValueError):  # a group that took no part, or no number
            continue
        if 0 <= done <= total and 0 < total < float("inf"):
            newest = Progress(done, total)
    return newest
