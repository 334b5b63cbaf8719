"""How commands print: tables on a terminal, JSON and tabulate's formats for programs, plain lines elsewhere.

Texts may hold a case's name or what a far side wrote: control characters are made visible before they are printed.
"""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mqi_cli.errors import UsageError
from mqi_cli.printable import printable
from mqi_cli.quantity import moment


@dataclass(frozen=True)
class Column:
    """A column of a list: the row's key, the title, and how it looks in a table."""

    key: str
    title: str
    justify: str = "left"
    style: str | None = None

    @property
    def heading(self) -> str:
        """The title as lists show it: in capitals, every list alike."""
        return self.title.upper()


FORMATS = "table, plain, simple, github, pipe, grid, tsv, html, latex, …"


def say(text: str = "") -> None:
    """Print a plain line to stdout."""
    sys.stdout.write(_lines(text))


def tell_more(verbose: int) -> None:
    """Log on stderr: what happens for 1, still more for 2."""
    if not verbose:
        return
    import logging

    level = logging.DEBUG if verbose > 1 else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("mqi").setLevel(level)


def complain(text: str) -> None:
    """Print a plain line to stderr."""
    sys.stderr.write(_lines(text))


def _lines(text: str) -> str:
    return "".join(printable(line) + "\n" for line in text.split("\n"))


def dump(value: Any) -> None:
    """Print JSON, indented."""
    sys.stdout.write(json_module.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def show(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    json: bool = False,
    format: str = "table",
    empty: str = "",
) -> None:
    """Print a list. With `json` the rows as they are, all keys; else the columns, as `format` says.

    Raises `UsageError` for an unknown format.
    """
    listed = list(rows)
    if json:
        dump([dict(row) for row in listed])
        return
    cells = [[_cell(row.get(column.key)) for column in columns] for row in listed]
    if format == "table" and sys.stdout.isatty():
        if not listed:
            say(empty)
            return
        _table(cells, columns)
        return
    if not listed and format == "table":
        say(empty)
        return
    _tabulated(cells, columns, "plain" if format == "table" else format)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return printable(", ".join(str(each) for each in value))
    return printable(str(value))


def _table(cells: list[list[str]], columns: Sequence[Column]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.heading, justify=column.justify, style=column.style, overflow="fold")  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _tabulated(cells: list[list[str]], columns: Sequence[Column], format: str) -> None:
    from tabulate import tabulate, tabulate_formats

    if format not in tabulate_formats:
        raise UsageError(
            f"there is no output format {format}", hint=f"one of: {', '.join(['table', *tabulate_formats])}"
        )
    titles = [column.heading for column in columns]
    if format == "tsv":
        text = "\n".join("\t".join(row) for row in [titles, *cells])
    else:
        align = ["right" if column.justify == "right" else "left" for column in columns] if cells else None
        text = tabulate(cells, headers=titles, tablefmt=format, disable_numparse=True, colalign=align)
    sys.stdout.write(text + "\n")


def clock_time(at: float | None) -> str:
    """Return a wall time in local time, to the second; nothing for none."""
    return "" if at is None else moment(at)
