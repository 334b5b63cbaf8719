"""The one gate that decides that a case is complete: at start-up, by timer and by hand alike. Pure.

It judges in two steps. `judge` says from names, sizes and times whether a case may be read at all; `conclude` says,
once every file has been hashed, whether what was read is what was promised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mqi_cli import IGNORED_SUFFIXES, Entry, Manifest, Unfit


class Stand(StrEnum):
    """Where a case stands before the gate."""

    SETTLING = "settling"  # not complete; `note` says what is missing
    PROBLEM = "problem"  # can't be a case until somebody changes it; `note` says why
    PROVABLE = "provable"  # complete by all that can be seen from outside: read it
    COMPLETE = "complete"  # read, and it is what was promised


@dataclass(frozen=True)
class Look:
    """What one look at a case directory found. `unfit` is set, and `entries` empty, where it can't be a case."""

    entries: tuple[Entry, ...]
    snapshot: str
    unfit: str = ""


@dataclass(frozen=True)
class Judgement:
    """Where the case stands. `resting`: nothing can change it but a file that is added, renamed or removed."""

    stand: Stand
    note: str = ""
    resting: bool = False


def judge(
    rule: Any, look: Look, *, last: str, unchanged_for: float, listed: Mapping[str, str] | Unfit | None = None
) -> Judgement:
    """Judge a look by a source's rule (`complete_when`).

    `last` is the snapshot that was recorded at an earlier look and `unchanged_for` the seconds since it was first
    recorded, by our own clock: a file's own times may be preserved from long ago or come from another machine's clock.
    `listed` is the content of the checksum file that the rule `manifest` names: None while it is not there, `Unfit`
    where it can't be read as one.
    """
    if look.unfit:
        return Judgement(Stand.PROBLEM, look.unfit, resting=True)
    files = [each for each in look.entries if not each.is_dir]
    if not files:
        return Judgement(Stand.SETTLING, "it holds no file yet", resting=True)
    if rule.marker:
        return _by_marker(rule.marker, files)
    if rule.manifest:
        return _by_manifest(rule.manifest, files, listed, seen_before=last == look.snapshot)
    return _by_quiet(rule.quiet_for, files, unchanged_for if last == look.snapshot else None)


def conclude(rule: Any, manifest: Manifest, listed: Mapping[str, str] | None = None) -> Judgement:
    """Judge a case that was read from end to end without changing meanwhile."""
    if rule.manifest and listed is not None:
        hashes = {each.path: each.sha256 for each in manifest.files}
        differing = sum(1 for path, sha256 in listed.items() if hashes.get(path) != sha256)
        if differing:
            note = f"{differing} of {_count(len(listed), 'listed file')} differ from its checksum file"
            return Judgement(Stand.PROBLEM, note)
    return Judgement(Stand.COMPLETE)


def unfit_look(reason: str, entries: Sequence[str]) -> Look:
    """Make a look at a directory that can't be a case; its snapshot tells two different reasons apart."""
    digest = hashlib.sha256(reason.encode())
    for path in sorted(entries):
        digest.update(b"\0" + path.encode("utf-8", "surrogateescape"))
    return Look((), digest.hexdigest(), unfit=reason)


def _by_quiet(quiet_for: float, files: Sequence[Entry], unchanged_for: float | None) -> Judgement:
    temporary = sum(1 for each in files if each.path.endswith(IGNORED_SUFFIXES))
    if temporary:  # a stalled copy is quiet too, but what it has not finished still bears its temporary name
        return Judgement(Stand.SETTLING, f"{_count(temporary, 'file')} still under a temporary name", resting=True)
    # Once is never enough, however short the time: nothing is known of what happens between two looks but by the second.
    if unchanged_for is None or unchanged_for < quiet_for:
        return Judgement(Stand.SETTLING, f"quiet for {int(unchanged_for or 0)} of {quiet_for:g} s")
    return Judgement(Stand.PROVABLE)


def _by_marker(marker: str, files: Sequence[Entry]) -> Judgement:
    if all(each.path != marker for each in files):
        return Judgement(Stand.SETTLING, "no marker file yet", resting=True)
    if len(files) == 1:
        return Judgement(Stand.SETTLING, "it holds nothing but its marker file", resting=True)
    return Judgement(Stand.PROVABLE)


def _by_manifest(
    name: str, files: Sequence[Entry], listed: Mapping[str, str] | Unfit | None, *, seen_before: bool
) -> Judgement:
    there = {each.path for each in files}
    if listed is None or name not in there:
        return Judgement(Stand.SETTLING, "no checksum file yet", resting=True)
    if not seen_before:  # hashing a case at each step of its copy would cost more than the copy
        return Judgement(Stand.SETTLING, "waits for a second look")
    if isinstance(listed, Unfit):
        return Judgement(Stand.PROBLEM, listed.reason)
    missing = len(listed.keys() - there)
    if missing or not listed:
        note = (
            f"{missing} of {_count(len(listed), 'listed file')} not there yet" if listed else "an empty checksum file"
        )
        return Judgement(Stand.SETTLING, note)
    extra = len(there - listed.keys() - {name})
    if extra:
        note = f"it holds {_count(extra, 'file')} that its checksum file does not list"
        return Judgement(Stand.PROBLEM, note)
    return Judgement(Stand.PROVABLE)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
