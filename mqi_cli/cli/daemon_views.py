"""What `mqi daemon status` and `mqi daemon logs` show. Pure, but for reading the logs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mqi_cli.cli.output import Column
from mqi_cli.crew import BROKEN, ChildState
from mqi_cli.daemon import ChildStatus, DaemonFiles, DaemonStatus
from mqi_cli.errors import UsageError
from mqi_cli.logfile import Tail, last_lines
from mqi_cli.quantity import age, size

COLUMNS = (
    Column("name", "PROCESS"),
    Column("state", "STATE"),
    Column("pid", "PID", justify="right"),
    Column("since", "FOR", justify="right"),
    Column("restarts", "RESTARTS", justify="right"),
    Column("memory", "MEMORY", justify="right"),
    Column("note", ""),
)
_POLL = 0.25
_TIME = re.compile(r'(?:\{"at": ")?(\d{4}-\d\d-\d\dT[\d:.]+Z)')


def as_json(pid: int | None, status: DaemonStatus | None) -> dict[str, Any]:
    """Return all that is known."""
    return {"running": pid is not None, "pid": pid} | (asdict(status) if status is not None else {})


def headline(pid: int | None, status: DaemonStatus | None, now: float) -> str:
    """Say in one line how the daemon is."""
    if pid is None:
        return "the daemon is not running: mqi daemon start"
    if status is None:
        return f"the daemon (process {pid}) is starting"
    text = f"the daemon is {status.state} (process {pid}) for {age(now - status.started_at)}"
    if status.managed_by:
        text += f", by {status.managed_by}"
    if status.broken:
        text += f"; NOT RUNNING: {', '.join(each.name for each in status.broken)}"
    if status.reload_problem:
        text += f"; its config is older than the file: {status.reload_problem}"
    return text


def rows(status: DaemonStatus, now: float) -> list[dict[str, Any]]:
    """Return a row for each process."""
    return [
        {
            "name": each.name,
            "state": each.state,
            "pid": each.pid,
            "since": age(now - each.since),
            "restarts": each.restarts,
            "memory": size(each.memory) if each.memory is not None else None,
            "note": _note(each, now),
        }
        for each in status.children
    ]


def _note(child: ChildStatus, now: float) -> str:
    note = f"last: {child.last_exit}" if child.last_exit else ""
    if child.state is ChildState.REFUSED:
        return "its config is refused; mend it, then: mqi daemon reload"
    if child.state in BROKEN and child.next_start is not None:
        note += f"; next try in {age(child.next_start - now)}"
    return note


def log_lines(files: DaemonFiles, name: str, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield the last lines of one log or of all, by time; with `follow`, then what is written, until interrupted.

    Raises `UsageError` for a name that has no log.
    """
    if name and name not in files.log_names():
        known = ", ".join(files.log_names()) or "none yet"
        raise UsageError(f"there is no log of {name}", hint=f"there are: {known}")
    tails = {each: Tail(files.log(each)) for each in files.log_names()} if follow else {}
    yield from _merged([last_lines(files.log(each), lines) for each in ([name] if name else files.log_names())], lines)
    while follow:
        if not name:
            for new in files.log_names():
                if new not in tails:  # a process that has been added meanwhile
                    tails[new] = Tail(files.log(new), whole=True)
        yield from _merged([tail.read() for each, tail in tails.items() if name in ("", each)])
        time.sleep(_POLL)


def _merged(logs: list[list[str]], most: int | None = None) -> list[str]:
    """Sort the lines of several logs by their times; a line without one stays behind the line before it."""
    stamped: list[tuple[str, str]] = []
    for log in logs:
        last = ""
        for line in log:
            found = _TIME.match(line)
            last = found[1] if found else last
            stamped.append((last, line))
    stamped.sort(key=lambda each: each[0])
    ordered = [line for _, line in stamped]
    return ordered if most is None else ordered[-most:] if most else []
