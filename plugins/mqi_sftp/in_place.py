"""What lies where the results belong: the results themselves, nothing, or something that is not ours to touch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mqi_cli import Entry, GiveUp, Manifest, RetryLater, Unfit, build_manifest, fingerprint_directory
from mqi_sftp.landing import Landing, marks_of
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Proven, compare_hashes
from mqi_sftp.read_back import KnownHashes
from mqi_sftp.results import Placed
from mqi_sftp.tree import Tree

_NEVER_OURS = "-"  # the fingerprint of a link, a file, a directory that no transfer leaves: it equals no other


@dataclass(frozen=True)
class Occupant:
    """What was seen where the results belong, before the host listed them: memory holds one list of so many files."""

    destination: Path
    fingerprint: str  # empty for nothing, and for an empty directory
    _shape: int  # of the paths and sizes of its files
    _marks: int

    @classmethod
    def look(cls, destination: Path, meter: Meter) -> Occupant:
        """Read all that is there."""
        marks = marks_of(destination)
        if not os.path.lexists(destination):
            return cls(destination, "", 0, marks)
        if destination.is_symlink() or not destination.is_dir():
            return cls(destination, _NEVER_OURS, 0, marks)
        meter.begin("looking at what is in place")
        shape = 0

        def seen(entry: Entry) -> str:
            nonlocal shape
            shape += _shape(entry)
            return ""  # it has to be read

        try:
            found = fingerprint_directory(destination, read=meter.alive, known=seen)
        except Unfit:
            return cls(destination, _NEVER_OURS, 0, marks)
        return cls(destination, "" if found == Manifest(()).fingerprint else found, shape, marks)

    def resembles(self, tree: Tree) -> bool:
        """Whether it has files of the same paths and sizes: then it is worth comparing what they hold."""
        return self.fingerprint != _NEVER_OURS and self._shape == sum(map(_shape, tree.files))

    def is_results(self, wanted: str, placed: Placed, meter: Meter) -> bool:
        """Whether it is the results of that fingerprint. Raises `GiveUp` when it is what is not ours to replace.

        The host may have taken long meanwhile: where anything was written here since, it is read once more.
        """
        untouched = marks_of(self.destination) == self._marks
        there = self if untouched else Occupant.look(self.destination, meter)
        if there.fingerprint != wanted:
            there.check_replaceable(placed)
        return there.fingerprint == wanted

    def check_replaceable(self, placed: Placed) -> None:
        """Raise `GiveUp` when it is anything but what mqi put there for this case."""
        if self.fingerprint and self.fingerprint not in placed.fingerprints():
            raise held_by_others()


def _shape(entry: Entry) -> int:
    return hash((entry.path, entry.size))


def check_replaceable(destination: Path, placed: Placed, meter: Meter) -> None:
    """Raise `GiveUp` when the destination holds anything but what mqi put there for this case."""
    Occupant.look(destination, meter).check_replaceable(placed)


def held_by_others() -> GiveUp:
    """Return the end for results whose place is taken."""
    return GiveUp(
        "the place for the results holds something else, which is left as it is",
        hint="move it away, or name another place in `to`; then: mqi case retry",
    )


def prove_here(landing: Landing, wanted: Proven, placed: Placed, meter: Meter, known: KnownHashes) -> None:
    """Read back what was written and is not `known`: a file system may hold something else than what it was given.

    The hashes that are wanted are kept on the disk meanwhile: memory holds one list of a hundred thousand files.
    """
    meter.begin("proving what is here")
    try:
        if fingerprint_directory(landing.results, read=meter.alive, known=known.get) == wanted.fingerprint:
            return
        found = build_manifest(landing.results, read=meter.alive)
    except Unfit as problem:
        raise RetryLater(f"what was fetched is not at rest: {problem.reason}") from problem
    raise RetryLater(
        f"of {wanted.files} fetched files: {compare_hashes(placed.checksums(wanted.fingerprint), found)}",
        hint="check the disk that `to` names; does it tell large letters from small ones?",
    )
