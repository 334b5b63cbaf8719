"""`mqi gpu …`: what GPUs there are, what they do, who has them; holding one back from new runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mqi_cli import Column, Operator, UsageError, say, show
from mqi_curator.wording import ago

_COLUMNS = (
    Column("host", "host"),
    Column("index", "index", "right"),
    Column("name", "name"),
    Column("memory", "memory MiB", "right"),
    Column("utilization", "use %", "right"),
    Column("temperature", "°C", "right"),
    Column("processes", "processes"),
    Column("had", "had by"),
    Column("seen", "seen"),
    Column("uuid", "UUID"),
)


def list_gpus(operator: Operator, *, look: bool, now: float, json: bool, format: str) -> None:
    """Print every GPU that is known, after a look at all hosts where one is asked for."""
    if look:
        operator.patrol("hosts")
    rows = operator.gpus()
    shown = rows if json else [_cells(row, now) for row in rows]
    show(shown, _COLUMNS, json=json, format=format, empty="No GPU was seen. To look now: mqi gpu list --look")


def hold_gpu(operator: Operator, text: str, *, hold: bool) -> None:
    """Hold a GPU back from new runs, or give it free again."""
    gpu = find_gpu(text, operator.gpus())
    name = (
        f"GPU {gpu['index']} of {gpu['host']}"
        if gpu["present"]
        else f"{gpu['uuid']}, which is gone from {gpu['host']},"
    )
    if bool(gpu["held"]) == hold:
        say(f"{name} is {'held already' if hold else 'not held'}")
        return
    operator.hold_gpu(gpu["uuid"], hold)
    if not hold:
        say(f"{name} is given to runs again")
    elif gpu["lease"]:
        say(f"{name} goes to no further run; {gpu['lease']} has it and goes on to its end")
    else:
        named = f"{gpu['host']}:{gpu['index']}" if gpu["present"] else gpu["uuid"]
        say(f"{name} goes to no run until: mqi gpu release {named}")


def find_gpu(text: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the GPU that is meant: `host:index`, a UUID, or a beginning of one.

    An index is that of a GPU that is there: one that is gone, a card that was replaced say, is named by its UUID alone.
    Raises `UsageError` that lists the candidates, or says where to look.
    """
    host, colon, index = text.rpartition(":")
    if colon:
        had = [row for row in rows if row["host"] == host and str(row["index"]) == index]
        found = [row for row in had if row["present"]]
        if had and not found:
            gone = ", ".join(row["uuid"] for row in had)
            raise UsageError(f"GPU {text} is gone: {gone}", hint="mqi gpu list; one that is gone is named by its UUID")
    else:
        wanted = text.removeprefix("GPU-").casefold()
        found = [row for row in rows if wanted and row["uuid"].removeprefix("GPU-").casefold().startswith(wanted)]
    if not found:
        raise UsageError(f"there is no GPU {text}", hint="mqi gpu list; a GPU is named by its UUID or as host:index")
    if len(found) > 1:
        names = ", ".join(f"{row['host']}:{row['index']} ({row['uuid']})" for row in found)
        raise UsageError(f"{text} may be {names}", hint="write more of it")
    return found[0]


def _cells(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    used, total = ("?" if row[key] is None else row[key] for key in ("memory_used", "memory_total"))
    held = ["held"] if row["held"] else []
    return {
        **row,
        "memory": f"{used}/{total}",
        "processes": [f"{process or '?'}{_mark(row, process)}" for process in row["processes"]],
        "had": ", ".join([*([row["lease"]] if row["lease"] else []), *held]),
        "seen": ago(row["seen_at"], now) if row["present"] else "gone",
    }


def _mark(row: Mapping[str, Any], process: int) -> str:
    """Say of a process on a GPU that a run has that it is not the run's."""
    return " (foreign)" if row["lease"] and process in row["foreign"] else ""
