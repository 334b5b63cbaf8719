"""Scanning by hand: the patrol's own rounds, repeated until everything was looked at, and printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mqi_cli import Column, show
from mqi_scanner.gate import Stand
from mqi_scanner.plugin import the_scan
from mqi_scanner.scan import Round, Scan

BETWEEN = 2.0  # s at most between two rounds of --wait


def rounds(
    operator: Any,
    *,
    source: str = "",
    wait: bool = False,
    scan: Scan | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Round:
    """Do one round, or as many as it takes to have looked at and read everything; with `wait` until nothing settles.

    Returns the last round, with all cases that the rounds found complete. Ctrl-C during a round ends it early.
    """
    scan = scan or the_scan()
    interval = operator.section("scanner").interval
    complete = {}
    while True:
        operator.patrol("scan", only=source)
        for seen in scan.round.complete:
            complete[seen.source, seen.name] = seen
        settling = any(each.stand is not Stand.PROBLEM for each in scan.round.open.values())
        if scan.round.stopped or not (scan.round.left or (wait and settling)):
            break
        if not scan.round.left:
            pause(min(interval, BETWEEN) if interval else BETWEEN)
    scan.round.complete = list(complete.values())
    return scan.round


def print_round(last: Round, *, watched: Sequence[str], json: bool, format: str) -> None:
    """Print what is complete, what settles and why, and what can't be a case; say how many are as they were."""
    rows: list[dict[str, Any]] = [
        {
            "source": seen.source,
            "name": seen.name,
            "stand": "complete",
            "files": seen.files,
            "size": seen.size,
            "note": "",
        }
        for seen in last.complete
    ]
    rows += [
        {"source": source, "name": name, "stand": str(each.stand), "files": None, "size": None, "note": each.note}
        for (source, name), each in sorted(last.open.items())
    ]
    columns = [
        Column("source", "Source"), Column("name", "Case"), Column("stand", "Stands"),
        Column("files", "Files", justify="right"), Column("size", "Bytes", justify="right"), Column("note", "Why"),
    ]  # fmt: skip
    were = "1 case is as it was" if last.unchanged == 1 else f"{last.unchanged} cases are as they were"
    none = f"no case directory in source {', '.join(watched)}" if watched else "the config names no source to look at"
    unchanged = f"nothing new; {were}" if last.unchanged else none
    show(rows, columns, json=json, format=format, empty=unchanged)
