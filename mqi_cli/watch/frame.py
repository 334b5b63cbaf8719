"""One frame of the dashboard at a given size: lines of exactly that width, exactly that many. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from mqi_cli.watch.data import CASE_COLUMNS, EVENT_COLUMNS, HOST_COLUMNS, QUIET, WORKER_COLUMNS, Banner, View
from mqi_cli.watch.detail import CaseText
from mqi_cli.watch.grid import Column, cut, lay_out
from mqi_cli.watch.screen import PANES, Mode, Screen

_COLUMNS: dict[str, Sequence[Column]] = {
    "cases": CASE_COLUMNS,
    "hosts": HOST_COLUMNS,
    "workers": WORKER_COLUMNS,
    "events": EVENT_COLUMNS,
}
_TITLES = {"cases": "Cases", "hosts": "Hosts and GPUs", "workers": "Workers", "events": "Events"}
_EMPTY = {
    "cases": "no cases: mqi case add DIRECTORY, or mqi scan",
    "hosts": "no host was looked at yet",
    "workers": "no worker runs",
    "events": "nothing has happened yet",
}
_KEYS = "↑↓ move · enter open · / find · tab pane · ? help · q quit"
_CASE_KEYS = "↑↓ move · esc back · q quit"
HELP = (
    ("↑ ↓  k j", "move by one"),
    ("PgUp PgDn", "move by ten"),
    ("Home End  g G", "first, last"),
    ("enter", "open the case; again or esc: back"),
    ("/", "find in name, key, state, step, source, reason; also old cases"),
    ("esc", "end the search"),
    ("tab  1 2 3 4", "next pane, or a certain one"),
    ("q", "quit; nothing stops by it"),
)
LEAST_WIDTH, LEAST_HEIGHT = 40, 8


@dataclass(frozen=True)
class Box:
    """Where a pane lies on the screen."""

    pane: str
    left: int
    top: int
    width: int
    height: int


def render(view: View, screen: Screen, width: int, height: int, *, case: CaseText | None = None) -> list[Text]:
    """Return a frame. `case` is the text of the open case, where one is open."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return _filled([Text(cut("mqi: the window is too small", width))], width, height)
    head = [_header(view, width), *_banners(view.banners, width, most=4 if height >= 40 else 2)]
    foot = _footer(screen, width)
    space = height - len(head) - 1
    if screen.mode is Mode.HELP:
        body = [Text(f"  {keys:<16}{meaning}") for keys, meaning in HELP]
    elif screen.mode is Mode.CASE:
        body = case.lines(width, space, scroll=screen.scroll) if case else [Text("  this case is no longer there")]
    else:
        body = _panes(view, screen, width, space)
    return _filled([*head, *_filled(body, width, space), foot], width, height)


def render_all(view: View, width: int, *, most: int = 1000) -> list[Text]:
    """Return everything below each other, as long as it gets: for a printed frame."""
    lines = [_header(view, width)]
    for banner in view.banners:
        lines.append(Text(cut(f" ! {banner.text}", width), style=banner.style))
        lines += [Text(cut(f"   -> {banner.hint}", width), style=banner.style)] if banner.hint else []
    for pane in PANES:
        rows = view.rows(pane)[: 10 if pane == "events" else most]
        lines += [Text(), Text(_TITLES[pane], style="bold")]
        if rows:
            lines += lay_out(_COLUMNS[pane], rows, width, first=0, count=len(rows), selected=None)
        else:
            lines.append(Text(cut(_EMPTY[pane], width), style=QUIET))
    for line in lines:
        line.rstrip()
    return lines


def boxes(width: int, height: int, focus: str) -> list[Box]:
    """Decide which panes are shown and where. Where not all fit, the focused one has the most of the space."""
    if width >= 150 and height >= 22:
        top = max(10, height * 11 // 20)
        third, below = width // 3, height - top
        return [
            Box("cases", 0, 0, width, top),
            Box("hosts", 0, top, third, below),
            Box("workers", third, top, third, below),
            Box("events", 2 * third, top, width - 2 * third, below),
        ]
    if width >= 110 and height >= 24:
        top = height // 2
        half, upper = width // 2, (height - top) // 2
        return [
            Box("cases", 0, 0, width, top),
            Box("hosts", 0, top, half, upper),
            Box("workers", 0, top + upper, half, height - top - upper),
            Box("events", half, top, width - half, height - top),
        ]
    if height >= 42:
        quarter = height // 6
        top = height - 3 * quarter
        tops = {"cases": 0, "hosts": top, "workers": top + quarter, "events": top + 2 * quarter}
        return [Box(pane, 0, at, width, top if pane == "cases" else quarter) for pane, at in tops.items()]
    if height >= 16 and focus == "cases":
        strip = max(5, height // 4)
        return [Box("cases", 0, 0, width, height - strip), Box("events", 0, height - strip, width, strip)]
    return [Box(focus, 0, 0, width, height)]


def _panes(view: View, screen: Screen, width: int, height: int) -> list[Text]:
    shown = boxes(width, height, screen.pane)
    tabs = len(shown) < len(PANES)
    lines = [Text() for _ in range(height)]
    for box in shown:
        inner = box.width - (1 if box.left + box.width < width else 0)  # a space to the pane at the right
        for number, line in enumerate(_pane(view, screen, box, inner, tabs=tabs and box is shown[0])):
            row = lines[box.top + number]
            row.append(" " * (box.left - row.cell_len))
            row.append_text(line)
    return lines


def _pane(view: View, screen: Screen, box: Box, width: int, *, tabs: bool) -> list[Text]:
    rows = view.rows(box.pane)
    count = box.height - 2
    focused = screen.pane == box.pane
    cursor = screen.cursor.get(box.pane, 0)
    first = max(0, min(cursor - count // 2, len(rows) - count))
    title = _title(box.pane, screen, width, tabs=tabs, focused=focused, first=first, count=count, total=len(rows))
    if not rows:
        empty = f"nothing has “{screen.find}” in it" if box.pane == "cases" and screen.find else _EMPTY[box.pane]
        return [title, Text(cut(empty, width), style=QUIET)]
    selected = cursor if focused else None
    return [title, *lay_out(_COLUMNS[box.pane], rows, width, first=first, count=count, selected=selected)]


def _title(
    pane: str, screen: Screen, width: int, *, tabs: bool, focused: bool, first: int, count: int, total: int
) -> Text:
    line = Text("─ ", style=QUIET)
    if tabs:
        for number, each in enumerate(PANES, 1):
            line.append(f"{number} {_TITLES[each]}", style="bold reverse" if each == screen.pane else "")
            line.append("  ")
    else:
        line.append(_TITLES[pane], style="bold reverse" if focused else "bold")
        line.append(" ")
    if total > count:
        line.append(f"{first + 1}–{min(total, first + count)} of {total} ", style=QUIET)
    if pane == "cases" and screen.find:
        line.append(f"/{screen.find} ", style="bold")
    line.append("─" * max(0, width - line.cell_len), style=QUIET)
    line.truncate(width, overflow="crop")
    return line


def _header(view: View, width: int) -> Text:
    right = Text()
    right.append(view.daemon[0], style=view.daemon[1])
    right.append(f"  {view.time} ")
    line = Text(" mqi ", style="bold")
    for text, style in view.counts:
        if line.cell_len + len(text) + 3 > width - right.cell_len:
            break
        line.append("· " if line.cell_len > 5 else "")
        line.append(f"{text} ", style=style)
    line.append(" " * max(0, width - line.cell_len - right.cell_len))
    line.append_text(right)
    line.truncate(width, overflow="crop", pad=True)
    return line


def _banners(banners: Sequence[Banner], width: int, *, most: int) -> list[Text]:
    shown = banners[:most] if len(banners) <= most else banners[: most - 1]
    lines = []
    for banner in shown:
        hint = f" -> {banner.hint}" if banner.hint else ""
        room = max(width // 2, width - 3 - len(hint))  # the hint is what helps; the text can be cut
        text = f" ! {cut(banner.text, room)}{hint}"
        lines.append(Text(cut(text, width), style=banner.style))
    if len(banners) > len(shown):
        more = f" ! {len(banners) - len(shown)} more -> mqi status"
        lines.append(Text(cut(more, width), style=banners[-1].style))
    return lines


def _footer(screen: Screen, width: int) -> Text:
    if screen.typing:
        prompt = " find: "
        room = width - len(prompt) - 2
        tail = screen.find[-room:] if room > 0 else ""
        line = Text(f"{prompt}{tail}▏")
    else:
        line = Text(" " + (_CASE_KEYS if screen.mode is Mode.CASE else _KEYS), style=QUIET)
    line.truncate(width, overflow="ellipsis", pad=True)
    return line


def _filled(lines: Sequence[Text], width: int, height: int) -> list[Text]:
    filled = list(lines[:height])
    for line in filled:
        line.truncate(width, overflow="crop", pad=True)
    filled += [Text(" " * width) for _ in range(height - len(filled))]
    return filled
