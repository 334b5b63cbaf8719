"""`mqi status`: one screen that says whether all is well, and what is not. Exit code 0 when it is, 1 when not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from mqi_cli.case import CaseState
from mqi_cli.cli.group import single_command
from mqi_cli.cli.parameters import Json
from mqi_cli.errors import EXIT_CASE

if TYPE_CHECKING:
    from mqi_cli.cli.operator import Operator

app = single_command()


@dataclass(frozen=True)
class Trouble:
    """One thing that is not as it should be, and what mends it."""

    text: str
    hint: str


@app.command()
def status(json: Json = False) -> None:
    """Show whether all is well, and what is not; exit code 1 when a person should look."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import dump, say

    operator = Operator.open(light=True)
    data = overview(operator)
    dump(data) if json else say(overview_text(data))
    if data["troubles"]:
        raise typer.Exit(EXIT_CASE)


def overview(operator: Operator) -> dict[str, Any]:
    """Return what `mqi status` shows.

    `health` is down (no daemon), live (it runs, and not each of its processes has come up yet), ready (all is well) or
    degraded (it works as far as it can, and something is wrong).
    """
    from mqi_cli.daemon import DaemonFiles

    files = DaemonFiles(operator.config.state_dir)
    pid = files.running()
    daemon = files.read_status() if pid is not None else None
    exists = operator.config.state_path.exists()
    counts = operator.store.cases.counts() if exists else dict.fromkeys(CaseState, 0)
    further = list(_further(operator, daemon)) if exists else []
    troubles = [*_troubles(operator, pid, daemon, counts, exists=exists), *_silent(further)]
    if pid is None:
        health = "down"
    elif daemon is None or not daemon.ready:
        health = "live"
    else:
        health = "degraded" if troubles else "ready"
    return {
        "health": health,
        "daemon": None if daemon is None else {"pid": pid, "started_at": daemon.started_at, "state": daemon.state},
        "processes": [] if daemon is None else [dataclasses.asdict(child) for child in daemon.children],
        "further_workers": further,
        "broker": "rabbitmq" if operator.config.broker else "embedded",
        "unsent": operator.store.messages.unsent_count() if exists else 0,
        "lanes": {lane: load._asdict() for lane, load in operator.store.switches.loads().items()} if exists else {},
        "cases": {str(state): count for state, count in counts.items()},
        "hosts": operator.hosts() if exists else [],
        "drain": operator.store.switches.drain() if exists else "",
        "troubles": [dataclasses.asdict(trouble) for trouble in troubles],
        "state": str(operator.config.state_path),
        "config": str(operator.config.file) if operator.config.file else None,
    }


def _troubles(
    operator: Operator, pid: int | None, daemon: Any, counts: dict[CaseState, int], *, exists: bool
) -> Iterator[Trouble]:
    if pid is None:
        yield Trouble("no daemon is running", "mqi daemon start")
    for child in daemon.broken if daemon else ():
        yield Trouble(f"{child.name} does not run: {child.state}, {child.last_exit}", f"mqi daemon logs {child.name}")
    if not exists:
        return
    store = operator.store
    if drain := store.switches.drain():
        yield Trouble(f"no new work is begun: {drain}", "mqi daemon undrain")
    said = {f"process:{child.name}" for child in daemon.broken} if daemon else set()
    for alert in store.switches.alerts():
        if alert["topic"] not in said:
            yield Trouble(alert["text"], alert["hint"])
    if counts[CaseState.HELD]:
        held = store.cases.listing(states=[CaseState.HELD], limit=1)[0]
        one = f"{held.name}: {held.reason}"
        many = f"{counts[CaseState.HELD]} cases are held, the newest: {one}"
        yield Trouble(
            many if counts[CaseState.HELD] > 1 else f"a case is held: {one}", held.hint or "mqi case list -s held"
        )


def _further(operator: Operator, daemon: Any) -> Iterator[dict[str, Any]]:
    import time

    from mqi_cli.further_workers import further_workers, is_silent
    from mqi_cli.machine import machine_name

    now = time.time()
    own = {child.pid for child in daemon.children if child.pid} if daemon else set()
    for each in further_workers(operator.store.workers.all(), own, machine=machine_name(), now=now):
        silent_for = max(0.0, now - each.seen_at)
        row = {"name": each.name, "lane": each.lane, "machine": each.machine}
        yield row | {"silent_for": silent_for, "silent": is_silent(each, now)}


def _silent(further: list[dict[str, Any]]) -> Iterator[Trouble]:
    from mqi_cli.quantity import age

    for each in further:
        if each["silent"]:
            yield Trouble(
                f"worker {each['name']} has given no sign for {age(each['silent_for'])}; what it had goes to others",
                f"look at {each['machine']}; it is forgotten an hour after its last sign",
            )


def overview_text(data: dict[str, Any]) -> str:
    """Lay the overview out for a person."""
    import time

    from mqi_cli.quantity import age

    now = time.time()
    daemon = data["daemon"]
    since = (
        f"daemon {daemon['pid']} for {age(now - daemon['started_at'])}, {data['broker']} queue"
        if daemon
        else "no daemon"
    )
    lines = [f"{data['health'].upper()}  {since}"]
    cases = data["cases"]
    lines.append("cases  " + ("  ".join(f"{count} {state}" for state, count in cases.items() if count) or "none yet"))
    if data["unsent"]:
        lines.append(f"queue  {data['unsent']} commands wait to be sent")
    if held := [f"{lane} {load['held']}" for lane, load in data["lanes"].items() if load["held"]]:
        lines.append(f"queue  messages in the broker: {', '.join(held)}")
    for host in data["hosts"]:
        load = f", load {host['load']:.1f}" if host["load"] is not None else ""
        reason = f": {host['reason']}" if host["reason"] else ""
        lines.append(
            f"host   {host['name']} {host['state']}, {host['jobs']} of {host['jobs_limit']} jobs{load}{reason}"
        )
    if data["processes"]:
        up = [child["name"] for child in data["processes"] if child["state"] == "running"]
        lines.append(f"procs  {len(up)} of {len(data['processes'])} running: {', '.join(up)}")
    if data["further_workers"]:
        names = [each["name"] for each in data["further_workers"] if not each["silent"]]
        lines.append(f"more   {len(names)} workers besides the daemon's: {', '.join(names) or 'none'}")
    for trouble in data["troubles"]:
        lines.append(f"!  {trouble['text']}")
        if trouble["hint"]:
            lines.append(f"   -> {trouble['hint']}")
    if not data["troubles"]:
        lines.append("all is well" if data["health"] == "ready" else "not all of its processes have come up yet")
    return "\n".join(lines)
