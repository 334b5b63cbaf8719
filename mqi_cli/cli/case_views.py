"""What `mqi case` shows: rows, details and the one sentence that says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mqi_cli.case import CaseState, PartState
from mqi_cli.cli.output import Column, clock_time
from mqi_cli.errors import UsageError
from mqi_cli.quantity import age, counted, size

if TYPE_CHECKING:
    from mqi_cli.cli.operator import Operator
    from mqi_cli.store.records import CaseRow, PartRow

_LONGEST_FACT = 32  # characters; what is longer is for programs
ENDED_SHOWN = 86400.0  # seconds that an ended case stays in the plain list

LIST_COLUMNS = (
    Column("key", "KEY"),
    Column("name", "NAME"),
    Column("state", "STATE"),
    Column("step", "STEP"),
    Column("age", "AGE", justify="right"),
    Column("reason", "REASON"),
)
LOG_COLUMNS = (
    Column("time", "TIME"),
    Column("step", "STEP"),
    Column("attempt", "TRY", justify="right"),
    Column("actor", "BY"),
    Column("text", "WHAT"),
)


def listing(
    operator: Operator, *, states: Sequence[str], source: str, since: str, everything: bool, limit: int
) -> list[dict[str, Any]]:
    """Return the rows of `mqi case list`."""
    now = operator.clock.now()
    wanted = []
    for text in states:
        if text not in list(CaseState):
            raise UsageError(f"there is no state {text}", hint=f"one of: {', '.join(CaseState)}")
        wanted.append(CaseState(text))
    moment = now - _within(since) if since else None
    if not operator.state_path.exists():
        return []
    ended = None if everything or wanted or since else now - ENDED_SHOWN
    rows = operator.store.cases.listing(
        states=wanted, source=source, since=moment, ended_since=ended, limit=limit or None
    )
    return [{**_row(row, now), "age": age(now - _since(operator, row))} for row in rows]


def _since(operator: Operator, row: CaseRow) -> float:
    """Return since when a case is as it is; for a running one, since its step began."""
    if row.state is not CaseState.RUNNING:
        return row.updated_at
    live = [part for part in operator.store.parts.of_step(row.id, row.step) if part.ended_at is None]
    return min((part.started_at for part in live if part.started_at is not None), default=row.updated_at)


def _within(since: str) -> float:
    from mqi_cli.config.values import parse_duration

    try:
        return parse_duration(since)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from error


def _row(row: CaseRow, now: float) -> dict[str, Any]:
    name = row.name if row.revision == 1 else f"{row.name} (revision {row.revision})"
    return {
        "key": row.key,
        "name": name,
        "revision": row.revision,
        "source": row.source,
        "workflow": row.workflow,
        "state": "paused" if row.paused and row.state is CaseState.WAITING else str(row.state),
        "step": row.step,
        "age": age(now - row.updated_at),
        "reason": row.reason,
        "hint": row.hint,
        "until": row.until,
        "priority": row.priority,
        "files": row.files,
        "size": row.size,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "ended_at": row.ended_at,
    }


def why(operator: Operator, row: CaseRow) -> tuple[str, str]:
    """Return the sentence that says why a case stands where it does, and what the operator can do."""
    now = operator.clock.now()
    running = operator.daemon_pid is not None
    hint = row.hint
    match row.state:
        case CaseState.DONE:
            since = f"done {age(now - (row.ended_at or now))} ago: all steps of {row.workflow} are finished"
            return since + _failed_again(operator, row), ""
        case CaseState.CANCELLED:
            return f"cancelled: {row.reason}", hint
        case CaseState.HELD:
            return f"held at {row.step or 'its start'}: {row.reason}", hint or f"mqi case retry {row.key}"
        case CaseState.SETTLING:
            note = row.reason or "seen, not yet complete"
            return f"settling: {note}", hint or ("" if running else "mqi daemon start, or mqi scan")
        case CaseState.READY:
            return "ready: complete, and nothing is asked of it", hint or f"mqi case show {row.key}"
        case CaseState.WAITING:
            left = f"; goes on in {age(row.until - now)}" if row.until and row.until > now else ""
            return f"waiting at {row.step}: {row.reason}{left}", hint
    return _why_running(operator, row, now, running)


def last_words(operator: Operator, row: CaseRow) -> list[str]:
    """Return the last lines that a case's failed run wrote, while it is held for it or waits for its next try."""
    if row.state not in (CaseState.HELD, CaseState.WAITING):
        return []
    for event in reversed(operator.store.events.of_case(row.id, limit=20)):
        if event.step == row.step and event.kind in ("failed", "held") and event.detail:
            return str(event.detail).splitlines()
    return []


def _failed_again(operator: Operator, row: CaseRow) -> str:
    """Say which step of a case that is done was done again by hand since, and failed."""
    newest = {(part.step, part.part): part for part in operator.store.parts.of_case(row.id) if part.current}
    failed = next((part for part in newest.values() if part.state is PartState.FAILED), None)
    return f"; {failed.title} was done again since and failed: {failed.reason}" if failed else ""


def _why_running(operator: Operator, row: CaseRow, now: float, running: bool) -> tuple[str, str]:
    parts = [part for part in operator.store.parts.of_step(row.id, row.step) if part.ended_at is None]
    if not parts:
        return f"running {row.step}: {row.reason}", ""
    part = min(parts, key=lambda each: (each.state is PartState.WAITING, each.id))
    if part.part:
        return f"running {row.step}: {row.reason}", "" if running else "mqi daemon start"
    since = age(now - (part.started_at or part.created_at))
    done = _progress(part)
    if part.state is PartState.QUEUED:
        if not running:
            return f"queued at {row.step}, and no daemon is running", "mqi daemon start, or run the step by hand"
        return (
            f"queued at {row.step} for {since}: every worker of {part.lane} is busy, or none runs",
            "mqi daemon status",
        )
    if not running and not part.worker.startswith("hand:"):
        return f"{row.step} has begun ({row.reason}), and no daemon is running to look after it", "mqi daemon start"
    return f"running {row.step} for {since}, attempt {part.attempt}: {row.reason}{done}", ""


def _progress(part: PartRow) -> str:
    if not part.progress_total:
        return ""
    share = 100 * part.progress_done / part.progress_total
    if part.progress_unit in ("B", "bytes", "byte"):
        return f" ({size(part.progress_done)} of {size(part.progress_total)}, {share:.0f} %)"
    unit = f" {part.progress_unit}" if part.progress_unit else ""
    return f" ({part.progress_done:g} of {part.progress_total:g}{unit}, {share:.0f} %)"


def details(operator: Operator, row: CaseRow) -> dict[str, Any]:
    """Return all that is known of a case."""
    from mqi_cli.standing import is_at_work

    now = operator.clock.now()
    sentence, hint = why(operator, row)
    steps = []
    for part in _in_order(operator.store.parts.of_case(row.id)):
        end = part.ended_at if part.ended_at is not None else now
        steps.append(
            {
                "step": part.step,
                "part": part.part,
                "plan": part.plan,
                "attempt": part.attempt,
                "turn": part.turn,
                "state": str(part.state),
                "at_work": is_at_work(part),
                "current": part.current,
                "host": part.host,
                "worker": part.worker,
                "seconds": round(end - part.started_at, 1) if part.started_at else None,
                "reason": part.reason if part.state != PartState.DONE else "",
                "facts": dict(part.facts),
                "progress": _progress(part).strip(),
            }
        )
    return {
        **_row(row, now),
        "directory": row.directory,
        "fingerprint": row.fingerprint,
        "why": sentence,
        "hint": hint,
        "cleared": list(row.cleared),
        "steps": steps,
    }


def _in_order(parts: Sequence[PartRow]) -> list[PartRow]:
    """Return attempts by steps, as these began, then by parts."""
    steps = list(dict.fromkeys(part.step for part in parts))
    return sorted(parts, key=lambda part: (steps.index(part.step), len(part.part), part.part, part.id))


def details_text(data: dict[str, Any]) -> str:
    """Lay the details out for a person."""
    lines = [
        f"{data['name']}  ({data['key']})",
        f"  {data['why']}",
        *([f"  -> {data['hint']}"] if data["hint"] else []),
        "",
        f"  directory    {data['directory']}",
        f"  source       {data['source'] or 'none: worked on by hand'}",
        f"  workflow     {data['workflow'] or 'none'}",
        f"  content      {counted(data['files'], 'file')}, {size(data['size'])}"
        + (f", SHA-256 {data['fingerprint'][:16]}…" if data["fingerprint"] else ", not read yet"),
        f"  seen         {clock_time(data['created_at'])}",
        f"  last change  {clock_time(data['updated_at'])}",
    ]
    if data["priority"]:
        lines.append(f"  priority     {data['priority']}")
    if data["cleared"]:
        lines.append(f"  cleared on   {', '.join(data['cleared'])}")
    if data["steps"]:
        lines.append("")
    for step in data["steps"]:
        took = f"{step['seconds']:.1f} s" if step["seconds"] is not None else ""
        name = step["step"] + (f"/{step['part']}" if step["part"] else " (plan)" if step["plan"] else "")
        left = "(before the rerun)" if not step["current"] else ""
        # between two looks at what runs on its host it waits, and is no less at work
        looked_after = step["at_work"] and step["state"] == PartState.WAITING
        state = PartState.WORKING if looked_after else step["state"]
        said = " ".join(each for each in (step["reason"], step["progress"], left) if each)
        lines.append(f"  {name:<14} attempt {step['attempt']}  {state:<9} {took:>9}  {said}".rstrip())
        if facts := ", ".join(_facts(step["facts"])):
            lines.append(f"  {'':<14} {facts}")
    return "\n".join(lines)


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts that say something to a person; hashes, lists and the like are in --json."""
    for name, value in facts.items():
        words = name.replace("_", " ")
        if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > _LONGEST_FACT:
            continue
        if name.endswith("bytes"):
            words = words.removesuffix("bytes").strip() or "content"
            yield f"{words} {size(float(value))}"
        elif name.endswith("seconds"):
            yield f"{words.removesuffix('seconds').strip() or 'took'} {value:.1f} s"
        else:
            yield f"{words} {value}"


def log_rows(operator: Operator, row: CaseRow, *, limit: int) -> list[dict[str, Any]]:
    """Return the rows of `mqi case log`."""
    return [
        {
            "at": event.at,
            "time": clock_time(event.at),
            "step": event.step + (f"/{event.part}" if event.part else ""),
            "attempt": event.attempt or None,
            "kind": event.kind,
            "actor": event.actor,
            "text": event.text,
            "detail": event.detail,
        }
        for event in operator.store.events.of_case(row.id, limit=limit)
    ]
