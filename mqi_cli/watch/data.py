"""What the state database and the daemon say, turned into what the dashboard shows: texts and styles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mqi_cli.case import ENDED, CaseState, PartState
from mqi_cli.crew import BROKEN, ChildState
from mqi_cli.daemon import DaemonStatus
from mqi_cli.further_workers import further_workers, is_silent
from mqi_cli.printable import printable
from mqi_cli.quantity import age, size, time_of_day
from mqi_cli.store.records import CaseRow, GpuRow, HostRow, LaneLoad, PartRow, WorkerRow
from mqi_cli.store.views import STATE_ORDER, LaneCount, NamedEvent, PartCount, WatchData
from mqi_cli.watch.grid import Column, Row

BAD, WARN, GOOD, QUIET = "bold red", "yellow", "green", "dim"

STATE_STYLES = {
    CaseState.HELD: BAD,
    CaseState.RUNNING: GOOD,
    CaseState.WAITING: WARN,
    CaseState.READY: "cyan",
    CaseState.SETTLING: "cyan",
    CaseState.DONE: QUIET,
    CaseState.CANCELLED: QUIET,
}
_EVENT_STYLES = {"held": BAD, "bug": BAD, "failed": WARN, "lost": WARN, "alert": WARN, "host": WARN, "case-done": GOOD}
_LAST_EXIT_SHOWN = 900.0  # seconds that a process which runs well again keeps saying why it was started anew

CASE_COLUMNS = (
    Column("state", "STATE", 8, 0),
    Column("name", "CASE", 20, 1, grow=2, middle=True),
    Column("step", "STEP", 9, 3),
    Column("progress", "DONE", 5, 4, right=True),
    Column("of", "OF", 9, 8, right=True, wide=130),
    Column("for", "FOR", 6, 5, right=True),
    Column("why", "WHY", 22, 2, grow=3),
    Column("try", "TRY", 3, 7, right=True, wide=110),
    Column("key", "KEY", 11, 6, wide=100),
    Column("source", "SOURCE", 8, 9, wide=170),
    Column("size", "SIZE", 8, 10, right=True, wide=190),
)
HOST_COLUMNS = (
    Column("name", "HOST / GPU", 14, 0),
    Column("state", "STATE", 8, 1),
    Column("load", "LOAD", 6, 2, right=True),
    Column("space", "FREE / MEMORY", 12, 4, right=True),
    Column("heat", "°C", 3, 6, right=True),
    Column("note", "NOTE", 14, 3, grow=1),
    Column("seen", "SEEN", 6, 5, right=True),
)
WORKER_COLUMNS = (
    Column("name", "PROCESS", 12, 0),
    Column("state", "STATE", 10, 1),
    Column("busy", "BUSY", 4, 3, right=True),
    Column("for", "FOR", 6, 5, right=True),
    Column("restarts", "RESTARTS", 8, 6, right=True),
    Column("memory", "MEMORY", 9, 4, right=True),
    Column("note", "NOTE", 14, 2, grow=1),
)
EVENT_COLUMNS = (
    Column("time", "TIME", 8, 0),
    Column("name", "CASE", 16, 2, grow=1, middle=True),
    Column("step", "STEP", 8, 3),
    Column("text", "WHAT", 20, 1, grow=2),
)


@dataclass(frozen=True)
class Banner:
    """Something that everybody who looks should see, and what to do about it."""

    text: str
    hint: str
    style: str


@dataclass(frozen=True)
class View:
    """All that a frame shows, but for what is selected."""

    time: str
    counts: tuple[tuple[str, str], ...]  # text and style
    daemon: tuple[str, str]
    banners: tuple[Banner, ...]
    cases: tuple[Row, ...]
    hosts: tuple[Row, ...]
    workers: tuple[Row, ...]
    events: tuple[Row, ...]

    def rows(self, pane: str) -> tuple[Row, ...]:
        """Return the rows of a pane by its name."""
        found: tuple[Row, ...] = getattr(self, pane)
        return found


@dataclass(frozen=True)
class DaemonView:
    """The daemon, asked at the same moment. `pid` is None when none runs."""

    pid: int | None
    status: DaemonStatus | None


def make_view(
    data: WatchData | None, daemon: DaemonView, *, machine: str, now: float, problem: str = "", hint: str = ""
) -> View:
    """Turn one moment into a view. `data` is None where there is no state database yet, or none that can be read.

    `machine` is the name of the machine that the daemon runs on.
    """
    parts: dict[int, list[PartRow]] = {}
    for part in data.parts if data else ():
        parts.setdefault(part.case, []).append(part)
    return View(
        time=time_of_day(now),
        counts=_counts(data.counts) if data else (),
        daemon=_daemon(daemon),
        banners=tuple(_banners(data, daemon, problem, hint)),
        cases=tuple(_case(row, parts.get(row.id, []), data.fanned.get(row.id), now) for row in data.cases)
        if data
        else (),
        hosts=tuple(_hosts(data, now)) if data else (),
        workers=tuple(_workers(data, daemon, machine, now)),
        events=tuple(_event(each) for each in data.events) if data else (),
    )


def _counts(counts: dict[CaseState, int]) -> tuple[tuple[str, str], ...]:
    texts = tuple((f"{counts[state]} {state}", STATE_STYLES[state]) for state in STATE_ORDER if counts.get(state))
    return texts or (("no cases yet", QUIET),)


def _daemon(daemon: DaemonView) -> tuple[str, str]:
    if daemon.pid is None:
        return "no daemon", BAD
    if daemon.status is None:
        return "daemon starting", WARN
    if daemon.status.broken:
        return f"daemon: {len(daemon.status.broken)} down", BAD
    return ("daemon ok", GOOD) if daemon.status.state == "running" else (f"daemon {daemon.status.state}", WARN)


def _banners(data: WatchData | None, daemon: DaemonView, problem: str, hint: str) -> Iterable[Banner]:
    if problem:
        yield Banner(printable(problem), printable(hint), BAD)
    if daemon.pid is None:
        yield Banner("no daemon is running", "mqi daemon start", BAD)
    for child in daemon.status.broken if daemon.status else ():
        yield Banner(f"{child.name} does not run: {child.last_exit}", f"mqi daemon logs {child.name}", BAD)
    if data is None:
        return
    if data.drain:
        yield Banner(f"no new work is begun: {printable(data.drain)}", "mqi daemon undrain", WARN)
    said = {f"process:{child.name}" for child in daemon.status.broken} if daemon.status else set()
    for alert in data.alerts:
        if alert.topic in said:
            continue
        yield Banner(printable(alert.text), printable(alert.hint), WARN)


def _case(row: CaseRow, parts: Sequence[PartRow], fanned: PartCount | None, now: float) -> Row:
    state = "paused" if row.paused and row.state is CaseState.WAITING else str(row.state)
    style = STATE_STYLES[row.state]
    since = row.ended_at if row.ended_at is not None else row.updated_at
    if row.state is CaseState.RUNNING:  # each look at a run gives it another reason
        since = min((part.started_at for part in parts if part.started_at is not None), default=since)
    return Row(
        key=row.key,
        cells={
            "state": state,
            "name": printable(row.name) + (f" (revision {row.revision})" if row.revision > 1 else ""),
            "step": row.step if row.state not in ENDED else "",
            "progress": share_of_parts(fanned, parts) if fanned else share(parts),
            "of": f"{fanned.parts} parts" if fanned else total(parts),
            "for": age(now - since),
            "why": why(row, now),
            "try": str(max(part.attempt for part in parts)) if parts else "",
            "key": row.key,
            "size": size(row.size) if row.size else "",
            "source": printable(row.source),
        },
        styles={"state": style} if row.state not in ENDED else {"": QUIET},
    )


def why(row: CaseRow, now: float) -> str:
    """Return why a case stands where it does, and what a person can do."""
    text = printable(row.reason)
    if row.state is CaseState.WAITING and row.until is not None and row.until > now:
        text += f"; goes on in {age(row.until - now)}"
    hint = printable(row.hint)
    if row.state is CaseState.HELD and not hint:
        hint = f"mqi case retry {row.key}"
    return f"{text} -> {hint}" if hint else text


def share(parts: Sequence[PartRow]) -> str:
    """Return how far the attempts of a step are, together, in percent."""
    done, whole = sum(part.progress_done for part in parts), sum(part.progress_total for part in parts)
    return f"{min(100, int(100 * done / whole))} %" if whole > 0 else ""


def share_of_parts(fanned: PartCount, live: Sequence[PartRow]) -> str:
    """Return how far a step that fans out is, in percent: each part weighs the same, and counts by what it tells."""
    begun = sum(
        min(1.0, each.progress_done / each.progress_total) for each in live if each.part and each.progress_total
    )
    return f"{min(100, int(100 * (fanned.done + begun) / fanned.parts))} %"


def total(parts: Sequence[PartRow]) -> str:
    """Return what the attempts of a step have to do, together, where they count in one unit."""
    known = [part for part in parts if part.progress_total > 0]
    if not known or len({part.progress_unit for part in known}) > 1:
        return ""
    whole, unit = sum(part.progress_total for part in known), known[0].progress_unit
    return size(whole) if unit == "B" else f"{whole:g} {printable(unit)}".rstrip()


def _hosts(data: WatchData, now: float) -> Iterable[Row]:
    names = sorted({row.name for row in data.hosts} | {gpu.host for gpu in data.gpus})
    known = {row.name: row for row in data.hosts}
    parts = {part.id: part for part in data.parts}
    cases = {case.id: case for case in data.cases}
    for name in names:
        if name in known:
            yield _host(known[name], sum(part.job and part.turn > 0 and part.host == name for part in data.parts), now)
        else:
            yield Row(key=name, cells={"name": printable(name)})
        for gpu in data.gpus:
            if gpu.host == name:
                part = parts.get(gpu.lease) if gpu.lease is not None else None
                case = cases.get(part.case) if part else None
                yield _gpu(gpu, f"{case.key}/{part.title}" if part and case else "", now)


def _host(row: HostRow, jobs: int, now: float) -> Row:
    state = "held" if row.held else row.state
    note = printable(row.reason)
    if row.until is not None and row.until > now and not row.held:
        note += f"; tried again in {age(row.until - now)}"
    if not note and jobs:
        note = f"{jobs} run{'s' if jobs > 1 else ''}"
    cores = f"/{row.cores}" if row.cores is not None else ""
    return Row(
        key=row.name,
        cells={
            "name": printable(row.name),
            "state": state,
            "load": f"{row.load:.1f}{cores}" if row.load is not None else "",
            "space": f"{size(row.free_bytes)}" if row.free_bytes is not None else "",
            "note": note,
            "seen": age(now - row.seen_at) if row.seen_at is not None else "",
        },
        styles={"state": GOOD if state == "up" else BAD, "name": "bold", "note": "" if state == "up" else WARN},
    )


def _gpu(row: GpuRow, lease: str, now: float) -> Row:
    if not row.present:
        state, style = "missing", BAD
    elif row.held:
        state, style = "held", WARN
    elif row.lease is not None:
        state, style = "leased", GOOD
    elif row.processes:
        state, style = "foreign", WARN  # somebody else computes on it
    else:
        state, style = "free", QUIET
    memory = ""
    if row.memory_total:
        memory = f"{(row.memory_used or 0) / 1024:.1f}/{row.memory_total / 1024:.0f} GiB"
    return Row(
        key=row.uuid,
        cells={
            "name": f"  gpu {row.number}",
            "state": state,
            "load": f"{row.utilization} %" if row.utilization is not None else "",
            "space": memory,
            "heat": str(row.temperature) if row.temperature is not None else "",
            "note": lease or printable(row.name),
            "seen": age(now - row.seen_at),
        },
        styles={"state": style, "note": "" if lease else QUIET},
    )


def _workers(data: WatchData | None, daemon: DaemonView, machine: str, now: float) -> Iterable[Row]:
    workers = {worker.pid: worker for worker in data.workers if worker.machine == machine} if data else {}
    own: set[int] = set()
    for child in daemon.status.children if daemon.status else ():
        worker = workers.get(child.pid) if child.pid is not None else None
        if worker is not None and child.name.rpartition("-")[0] == worker.lane:
            own.add(worker.pid)
        recent = child.state in BROKEN or now - child.since < _LAST_EXIT_SHOWN
        note = f"last: {child.last_exit}" if child.last_exit and recent else ""
        if child.state in BROKEN and child.next_start is not None:
            note += f"; next try in {age(child.next_start - now)}"
        healthy = child.state is ChildState.RUNNING
        yield Row(
            key=child.name,
            cells={
                "name": printable(child.name),
                "state": str(child.state),
                "busy": str(worker.busy) if worker and worker.pid in own else "",
                "for": age(now - child.since),
                "restarts": str(child.restarts) if child.restarts else "",
                "memory": size(child.memory) if child.memory is not None else "",
                "note": printable(note),
            },
            styles={"state": GOOD if healthy else BAD if child.state in BROKEN else WARN},
        )
    if data is None:
        return
    yield from (_further(worker, now) for worker in further_workers(data.workers, own, machine=machine, now=now))
    counts = {lane.lane: lane for lane in data.lanes}
    loaded = {name for name, load in data.loads.items() if load.held or load.dead}
    for name in sorted(counts.keys() | loaded):
        yield _lane(counts.get(name, LaneCount(name, 0, 0, 0)), data.loads.get(name, LaneLoad(0, 0)))
    if data.unsent:
        cells = {"name": "outbox", "state": f"{data.unsent} unsent", "note": "the broker does not have them yet"}
        yield Row(key="outbox", cells=cells, styles={"state": WARN})


def _further(worker: WorkerRow, now: float) -> Row:
    silent = is_silent(worker, now)
    return Row(
        key=worker.name,
        cells={
            "name": printable(worker.name),
            "state": "silent" if silent else "running",
            "busy": str(worker.busy),
            "for": age(now - (worker.seen_at if silent else worker.started_at)),
            "note": f"on {printable(worker.machine)}",
        },
        styles={"": QUIET} if silent else {"state": GOOD},
    )


def _lane(lane: LaneCount, load: LaneLoad) -> Row:
    counts = (
        (lane.queued, "queued"),
        (lane.working, "at work"),
        (lane.waiting, "waiting"),
        (load.held, "in the broker"),
        (load.dead, "dead letters"),
    )
    note = ", ".join(f"{count} {what}" for count, what in counts if count)
    cells = {"name": f"lane {printable(lane.lane)}", "state": "", "note": note}
    return Row(
        key=f"lane {lane.lane}",
        cells=cells,
        styles={"note": BAD} if load.dead else {"": QUIET} if not lane.queued else {},
    )


def _event(each: NamedEvent) -> Row:
    event = each.event
    return Row(
        key=str(event.id),
        cells={
            "time": time_of_day(event.at),
            "name": printable(each.name),
            "step": printable(event.step),
            "text": printable(event.text),
        },
        styles={"time": QUIET, "text": _EVENT_STYLES.get(event.kind, "")},
    )


def part_style(state: PartState) -> str:
    """Return how an attempt's state is shown."""
    return {PartState.DONE: GOOD, PartState.FAILED: BAD, PartState.WORKING: GOOD, PartState.WAITING: WARN}.get(
        state, ""
    )
