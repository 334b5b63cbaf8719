"""What lies where the results belong: the results themselves, nothing, or something that is not ours to touch."""

from __future__ import annotations

import os
from pathlib import Path

from mqi_cli import GiveUp, Manifest, RetryLater, Unfit, build_manifest, fingerprint_directory, survey
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Proven, compare_hashes
from mqi_sftp.read_back import KnownHashes
from mqi_sftp.results import Placed
from mqi_sftp.tree import Tree


def is_in_place(destination: Path, wanted: Manifest, placed: Placed, meter: Meter) -> bool:
    """Whether the destination holds the results already. Raises `GiveUp` when it holds what is not ours to replace."""
    found = _found(destination, meter)
    if found and found != wanted.fingerprint and found not in placed.fingerprints():
        raise held_by_others()
    return found == wanted.fingerprint


def check_replaceable(destination: Path, placed: Placed, meter: Meter) -> None:
    """Raise `GiveUp` when the destination holds anything but what mqi put there for this case."""
    found = _found(destination, meter)
    if found and found not in placed.fingerprints():
        raise held_by_others()


def _found(destination: Path, meter: Meter) -> str:
    """Return the fingerprint of what is there; empty for nothing, and for an empty directory."""
    if not os.path.lexists(destination):
        return ""
    if destination.is_symlink() or not destination.is_dir():
        raise held_by_others()
    meter.begin("looking at what is in place")
    try:
        found = build_manifest(destination, read=meter.alive)
    except Unfit as problem:
        raise held_by_others() from problem
    return found.fingerprint if found.files or found.empty_dirs else ""


def looks_in_place(destination: Path, tree: Tree) -> bool:
    """Whether the destination holds files of the same paths and sizes: then it is worth comparing what they hold."""
    try:
        found = survey(destination)
    except (Unfit, OSError):
        return False
    return {(each.path, each.size) for each in found if not each.is_dir} == {
        (each.path, each.size) for each in tree.files
    }


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
