"""What is wrong with a config, gathered so that all of it is told at once: one line each, with its place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from mqi_cli.printable import printable

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `path` is () where it concerns the file itself."""

    place: Place | None
    path: KeyPath
    text: str
    syntax: bool = False


class Problems:
    """Collects problems, and knows where in the file every key (`keys`) and every value (`values`) begins."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.keys: dict[KeyPath, Place] = {}
        self.values: dict[KeyPath, Place] = {}
        self.found: list[Problem] = []
        self.warnings: list[Problem] = []
        self.mask: Callable[[KeyPath, str], str] = lambda path, text: text  # hides what must not be repeated
        self._noted: set[Problem] = set()

    def add(self, path: KeyPath, text: str, *, at: Place | None = None) -> None:
        """Note a problem of a key path. Its place is the key's own or, for a key that isn't there, the next one above."""
        self._note(self.found, Problem(at or self.place(path), path, self.mask(path, text)))

    def warn(self, path: KeyPath, text: str) -> None:
        """Note what may be meant like this, and is worth a look."""
        self._note(self.warnings, Problem(self.place(path), path, self.mask(path, text)))

    def syntax(self, place: Place, text: str) -> None:
        """Note what keeps the file from being read as YAML."""
        self._note(self.found, Problem(place, (), text, syntax=True))

    def place(self, path: KeyPath) -> Place | None:
        """Return where a key path stands in the file, or the nearest of the keys that hold it."""
        for length in range(len(path), 0, -1):
            if place := self.keys.get(path[:length]) or self.values.get(path[:length]):
                return place
        return None

    def concerns(self, path: KeyPath) -> bool:
        """Whether something is known to be wrong at this path, below it, or with what holds it."""
        return any(each.path and related(each.path, path) for each in self.found)

    def lines(self) -> list[str]:
        """Return one line for each problem, in the file's order."""
        return [self._line(each) for each in sorted(self.found, key=_order)]

    def warning_lines(self) -> list[str]:
        """Return one line for each warning, in the file's order."""
        return [self._line(each) for each in sorted(self.warnings, key=_order)]

    def origin(self, path: KeyPath) -> str:
        """Return `file:line` of a key path that stands in the file, else ""."""
        place = self.keys.get(path) or self.values.get(path)
        return f"{shown(self.file)}:{place.line}" if place and self.file else ""

    def _note(self, notes: list[Problem], problem: Problem) -> None:
        if problem not in self._noted:
            self._noted.add(problem)
            notes.append(problem)

    def _line(self, problem: Problem) -> str:
        where = shown(self.file) if self.file else "config"
        if problem.place is not None:
            where += f":{problem.place.line}"
            if problem.syntax:
                where += f":{problem.place.column}"
        return f"{where}: {key_text(problem.path)}: {problem.text}" if problem.path else f"{where}: {problem.text}"


def key_text(path: KeyPath) -> str:
    """Write a key path: `workflows.default_qa[1].run.command`; positions count from 0."""
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{each}" if text else each
    return printable(text)


def clipped(text: str, *, limit: int = 80) -> str:
    """Return a text of the file fit for one line of a terminal, and not endless."""
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that was probably meant, else ""."""
    plain = {each.lower().replace("-", "_"): each for each in known}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), plain, 1, 0.6)
    return plain[near[0]] if near else ""


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """Write the sentence for a name that isn't known: with the one that was meant, or with all there are."""
    if near := nearest(name, known):
        return f"{what}; did you mean '{near}'?"
    if not known:
        return f"{what}; there are none"
    names = sorted(known)
    return f"{what}; known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"


def shown(file: Path | None) -> str:
    """Write a file's path as short as it can still be opened from here."""
    if file is None:
        return "config"
    try:
        return str(file.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def related(one: KeyPath, other: KeyPath) -> bool:
    """Whether two key paths are one, or one holds the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _order(problem: Problem) -> tuple[int, int, str]:
    place = problem.place or Place(1 << 30, 0)
    return place.line, place.column, key_text(problem.path)
