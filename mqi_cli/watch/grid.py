"""Rows fitted into a width: columns that matter less go first, texts are cut, nothing ever wraps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

GAP = 2
ELLIPSIS = "…"


@dataclass(frozen=True)
class Column:
    """A column. `least` is the width below which it isn't worth showing; `rank` 0 is never dropped, higher goes first.

    `grow` shares out the width that is left when every text has what it needs.
    """

    key: str
    title: str
    least: int
    rank: int
    grow: int = 0
    right: bool = False
    middle: bool = False  # cut in the middle: both ends of a name tell it apart
    wide: int = 0  # shown only where the whole is at least so wide: below, others make better use of the space


@dataclass(frozen=True)
class Row:
    """A row: texts by column, and styles for some of them. `key` tells which thing it is, across frames."""

    key: str
    cells: Mapping[str, str]
    styles: Mapping[str, str] = field(default_factory=dict)


def cut(text: str, width: int, *, middle: bool = False) -> str:
    """Return the text in at most `width` terminal cells (a wide character takes two)."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    if not middle:
        return set_cell_size(text, width - 1).rstrip() + ELLIPSIS
    tail = (width - 1) // 2
    head = set_cell_size(text, width - 1 - tail).rstrip()
    end = ""
    for character in reversed(text):
        if cell_len(character + end) > tail:
            break
        end = character + end
    return head + ELLIPSIS + end


def widths(columns: Sequence[Column], rows: Sequence[Row], width: int) -> dict[str, int]:
    """Decide which columns are shown and how wide each is; together they take at most `width`."""
    shown = sorted((column for column in columns if width >= column.wide), key=lambda column: column.rank)
    while len(shown) > 1 and sum(column.least + GAP for column in shown) - GAP > width:
        shown.pop()
    needed = {
        column.key: max([cell_len(column.title), *(cell_len(row.cells.get(column.key, "")) for row in rows)])
        for column in shown
    }
    found = {column.key: min(column.least, max(needed[column.key], 1)) for column in shown}
    left = width - sum(found.values()) - GAP * (len(shown) - 1)
    # What each needs: first the short ones, whose texts are whole or worthless, then those that can grow.
    for column in sorted(shown, key=lambda column: (column.grow > 0, column.rank)):
        more = max(0, min(left, needed[column.key] - found[column.key]))
        found[column.key] += more
        left -= more
    growing = sum(column.grow for column in shown)
    for column in shown:
        if column.grow and left > 0:
            share = left * column.grow // growing
            found[column.key] += share
    if len(shown) == 1:
        found[shown[0].key] = min(found[shown[0].key], width)
    return {column.key: found[column.key] for column in columns if column.key in found}


def lay_out(
    columns: Sequence[Column], rows: Sequence[Row], width: int, *, first: int, count: int, selected: int | None
) -> list[Text]:
    """Return the titles and `count` rows from the `first` on, each a line of exactly `width` cells.

    The widths are those of the rows that are shown, so that one long text elsewhere squeezes nothing.
    """
    visible = rows[first : first + count]
    found = widths(columns, visible, width)
    shown = [column for column in columns if column.key in found]
    title = Text(style="dim")
    for place, column in enumerate(shown):
        title.append(" " * GAP if place else "")
        title.append(_fill(column.title, found[column.key], column))
    lines = [_padded(title, width)]
    for number, row in enumerate(visible, first):
        line = Text()
        for place, column in enumerate(shown):
            line.append(" " * GAP if place else "")
            style = row.styles.get(column.key, row.styles.get("", ""))
            line.append(_fill(row.cells.get(column.key, ""), found[column.key], column), style=style)
        line = _padded(line, width)
        if number == selected:
            line.stylize("reverse")
        lines.append(line)
    return lines


def _fill(text: str, width: int, column: Column) -> str:
    text = cut(text, width, middle=column.middle)
    space = " " * (width - cell_len(text))
    return space + text if column.right else text + space


def _padded(line: Text, width: int) -> Text:
    line.truncate(width, overflow="crop", pad=True)
    return line
