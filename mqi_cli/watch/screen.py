"""What the person at the dashboard looks at: pane, selection, filter; and what each key does to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mqi_cli.watch.data import View

PANES = ("cases", "hosts", "workers", "events")
PAGE = 10


class Mode(StrEnum):
    """What takes the screen."""

    PANES = "panes"
    CASE = "case"
    HELP = "help"


@dataclass(frozen=True)
class Screen:
    """Where the person is. `selected` is the key of the chosen row of each pane: rows may move, the choice stays."""

    pane: str = "cases"
    mode: Mode = Mode.PANES
    find: str = ""
    typing: bool = False
    selected: Mapping[str, str] = field(default_factory=dict)
    cursor: Mapping[str, int] = field(default_factory=dict)
    case: str = ""  # the key of the case that is open
    scroll: int = 0  # of the open case
    quit: bool = False


def settle(screen: Screen, view: View) -> Screen:
    """Follow each chosen row to where it is now; where it is gone, choose the one that took its place."""
    cursor = {}
    selected = {}
    for pane in PANES:
        rows = view.rows(pane)
        keys = [row.key for row in rows]
        chosen = screen.selected.get(pane, "")
        place = keys.index(chosen) if chosen in keys else min(screen.cursor.get(pane, 0), max(0, len(keys) - 1))
        if pane == "events" and screen.cursor.get(pane, 0) == 0:
            place = 0  # at the top, the newest event is what is wanted
        cursor[pane] = place
        selected[pane] = keys[place] if keys else ""
    return replace(screen, cursor=cursor, selected=selected)


def press(screen: Screen, key: str, view: View) -> Screen:
    """Return what a key makes of the screen."""
    if key == "ctrl-c":
        return replace(screen, quit=True)
    if screen.typing:
        return _typed(screen, key)
    if key == "q":
        return replace(screen, quit=True)
    if screen.mode is Mode.HELP:
        return replace(screen, mode=Mode.PANES)
    if key == "?":
        return replace(screen, mode=Mode.HELP)
    if screen.mode is Mode.CASE:
        return _in_case(screen, key)
    return _in_panes(screen, key, view)


def _typed(screen: Screen, key: str) -> Screen:
    if key == "enter":
        return replace(screen, typing=False)
    if key == "escape":
        return replace(screen, typing=False, find="")
    if key == "backspace":
        return replace(screen, find=screen.find[:-1])
    if key == "ctrl-u":
        return replace(screen, find="")
    return replace(screen, find=screen.find + key) if len(key) == 1 and key.isprintable() else screen


def _in_case(screen: Screen, key: str) -> Screen:
    if key in ("escape", "enter", "backspace", "left", "h"):
        return replace(screen, mode=Mode.PANES, scroll=0)
    moved = _moved(screen.scroll, key, last=1_000_000)
    return replace(screen, scroll=max(0, moved)) if moved is not None else screen


def _in_panes(screen: Screen, key: str, view: View) -> Screen:
    if key == "/":
        return replace(screen, typing=True, pane="cases")
    if key == "escape":
        return replace(screen, find="")
    if key in ("tab", "back-tab"):
        step = 1 if key == "tab" else -1
        return replace(screen, pane=PANES[(PANES.index(screen.pane) + step) % len(PANES)])
    if key in ("1", "2", "3", "4"):
        return replace(screen, pane=PANES[int(key) - 1])
    if key in ("enter", "right", "l"):
        chosen = screen.selected.get("cases", "")
        opens = screen.pane == "cases" and chosen
        return replace(screen, mode=Mode.CASE, case=chosen, scroll=0) if opens else screen
    rows = view.rows(screen.pane)
    moved = _moved(screen.cursor.get(screen.pane, 0), key, last=max(0, len(rows) - 1))
    if moved is None or not rows:
        return screen
    return replace(
        screen,
        cursor={**screen.cursor, screen.pane: moved},
        selected={**screen.selected, screen.pane: rows[moved].key},
    )


def _moved(place: int, key: str, *, last: int) -> int | None:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -PAGE, "page-down": PAGE, " ": PAGE}
    ends = {"home": 0, "g": 0, "end": last, "G": last}
    if key in ends:
        return ends[key]
    return min(last, max(0, place + steps[key])) if key in steps else None
