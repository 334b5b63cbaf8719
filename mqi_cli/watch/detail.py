"""The text of one open case: where it stands, every attempt, what happened. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from mqi_cli.case import ENDED, PartState
from mqi_cli.printable import printable
from mqi_cli.quantity import age, counted, moment, size, time_of_day
from mqi_cli.store.records import EventRow, PartRow
from mqi_cli.store.views import CaseDetail
from mqi_cli.watch.data import QUIET, STATE_STYLES, part_style, share, total, why
from mqi_cli.watch.grid import Column, Row, cut, lay_out

_PART_COLUMNS = (
    Column("step", "STEP", 12, 0),
    Column("attempt", "TRY", 3, 3, right=True),
    Column("state", "STATE", 9, 1),
    Column("took", "TOOK", 6, 4, right=True),
    Column("done", "DONE", 5, 5),
    Column("host", "HOST", 8, 6),
    Column("worker", "WORKER", 14, 7),
    Column("reason", "REASON", 16, 2, grow=1),
)
_EVENT_COLUMNS = (
    Column("time", "TIME", 8, 0),
    Column("step", "STEP", 8, 2),
    Column("attempt", "TRY", 3, 3, right=True),
    Column("actor", "BY", 10, 4),
    Column("text", "WHAT", 20, 1, grow=1),
)


@dataclass(frozen=True)
class CaseText:
    """One case, ready to be laid out."""

    detail: CaseDetail
    now: float

    def lines(self, width: int, height: int, *, scroll: int) -> list[Text]:
        """Return the visible lines: the head stays, the rest scrolls."""
        head = self._head(width)
        rest = [*self._parts(width), Text(), *self._events(width)]
        room = max(1, height - len(head))
        first = max(0, min(scroll, len(rest) - room))
        return [*head, *rest[first : first + room]]

    def _head(self, width: int) -> list[Text]:
        case = self.detail.case
        name = printable(case.name) + (f" (revision {case.revision})" if case.revision > 1 else "")
        line = Text()
        line.append(f" {case.state} ", style=f"{STATE_STYLES[case.state]} reverse")
        line.append(f" {cut(name, max(10, width - 28), middle=True)}  ", style="bold")
        line.append(case.key, style=QUIET)
        end = case.ended_at if case.ended_at is not None and case.state in ENDED else None
        facts = [
            f"ended {moment(end)}" if end is not None else f"unchanged for {age(self.now - case.updated_at)}",
            f"{counted(case.files, 'file')}, {size(case.size)}" if case.files else "",
            f"workflow {printable(case.workflow)}" if case.workflow else "",
            f"source {printable(case.source)}" if case.source else "",
            f"priority {case.priority}" if case.priority else "",
            f"seen {moment(case.created_at)}",
        ]
        lines = [line]
        if reason := why(case, self.now):
            sentence, _, hint = reason.partition(" -> ")
            step = f"{printable(case.step)}: " if case.step and case.state not in ENDED else ""
            lines.append(Text(cut(f" {step}{sentence}", width)))
            if hint:
                lines.append(Text(cut(f" -> {hint}", width), style="bold"))
        lines.append(Text(cut(" " + " · ".join(each for each in facts if each), width), style=QUIET))
        lines.append(Text("─" * width, style=QUIET))
        return lines

    def _parts(self, width: int) -> list[Text]:
        rows = [self._part(part) for part in self.detail.parts]
        if not rows:
            return [Text("nothing was begun yet", style=QUIET)]
        return lay_out(_PART_COLUMNS, rows, width, first=0, count=len(rows), selected=None)

    def _part(self, part: PartRow) -> Row:
        end = part.ended_at if part.ended_at is not None else self.now
        done = " of ".join(each for each in (share([part]), total([part])) if each)
        return Row(
            key=str(part.id),
            cells={
                "step": printable(part.title),
                "attempt": str(part.attempt),
                "state": str(part.state),
                "took": age(end - part.started_at) if part.started_at is not None else "",
                "done": done if part.state is not PartState.DONE else "",
                "host": printable(part.host),
                "worker": printable(part.worker),
                "reason": printable(part.reason) if part.state is not PartState.DONE else "",
            },
            styles={"state": part_style(part.state)} if part.current else {"": QUIET},
        )

    def _events(self, width: int) -> list[Text]:
        rows = [self._event(event) for event in reversed(self.detail.events)]
        return lay_out(_EVENT_COLUMNS, rows, width, first=0, count=len(rows), selected=None) if rows else []

    def _event(self, event: EventRow) -> Row:
        recent = self.now - event.at < 12 * 3600
        return Row(
            key=str(event.id),
            cells={
                "time": time_of_day(event.at) if recent else moment(event.at),
                "step": printable(event.step),
                "attempt": str(event.attempt) if event.attempt else "",
                "actor": printable(event.actor),
                "text": printable(event.text),
            },
            styles={"time": QUIET},
        )
