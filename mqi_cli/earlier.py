"""What earlier steps left for a command: their finished parts, and the short form in which a message carries them.

Two steps of 500 parts, each record written out, would not fit into a message. So parts of one step that follow one
another, and of which no report goes along, travel as one object: the first part's number and each one's attempt, where
several of the same attempt are a pair of attempt and count:

    {"step": "simulate", "first": 1, "attempts": [[1, 498], 2, 3]}

500 parts are 50 bytes so, and 3 KiB where each has had a different number of tries. All else is an object of its own, as
it always was; what a version without the short form has left in a queue holds only those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

MAX_PARTS = 500  # of a step that fans out: each later command names them all

_NUMBERS = {str(number): number for number in range(1, MAX_PARTS + 1)}

JSONValue = Any
Facts = Mapping[str, JSONValue]


@dataclass(frozen=True)
class Earlier:
    """A finished part of an earlier step: which attempt finished, and what it reported."""

    step: str
    part: str
    attempt: int
    facts: Facts = field(default_factory=dict)


def packed(records: Sequence[Earlier]) -> list[JSONValue]:
    """Return records as a message carries them. Those of a step's parts are short when they stand in their order."""
    bodies: list[JSONValue] = []
    for run in _runs(records):
        first = run[0]
        if len(run) == 1:
            body = {"step": first.step, "part": first.part, "attempt": first.attempt, "facts": dict(first.facts)}
        else:
            body = {"step": first.step, "first": int(first.part), "attempts": _counted(run)}
        bodies.append(body)
    return bodies


def unpacked(step: str, first: int, attempts: Sequence[JSONValue]) -> list[Earlier]:
    """Return the records of a short object. Raises `ValueError` for anything that `packed` does not write."""
    records: list[Earlier] = []
    for entry in attempts:
        attempt, count = entry if isinstance(entry, list) and len(entry) == 2 else (entry, 1)  # True is no number
        if type(attempt) is not int or type(count) is not int or attempt < 1 or count < 1:
            raise ValueError("an attempt is a number, or a pair of a number and how many parts have it")
        start = first + len(records)
        if start + count - 1 > MAX_PARTS:  # before the list is made: a count may be any number
            raise ValueError(f"more than {MAX_PARTS} parts")
        records += [Earlier(step, str(number), attempt) for number in range(start, start + count)]
    if not records:
        raise ValueError("no parts")
    return records


def _runs(records: Sequence[Earlier]) -> Iterator[list[Earlier]]:
    """Split records where one does not simply follow the one before it."""
    run: list[Earlier] = []
    before = 0
    for record in records:
        number = _number(record)
        if run and not (record.step == run[-1].step and 0 < before == number - 1):
            yield run
            run = []
        run.append(record)
        before = number
    if run:
        yield run


def _number(record: Earlier) -> int:
    """Return the number of a part that needs no object of its own; 0 for all others."""
    return _NUMBERS.get(record.part, 0) if not record.facts else 0


def _counted(run: Sequence[Earlier]) -> list[JSONValue]:
    counted: list[JSONValue] = []
    for attempt, those in groupby(run, key=lambda each: each.attempt):
        count = len(list(those))
        counted += [attempt] if count == 1 else [[attempt, count]]
    return counted
