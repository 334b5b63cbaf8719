"""Names that one file system tells apart and another takes for the same: by the case of letters, or how accents are written.

Where results with such names land, one would overwrite the other without an error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mqi_cli import GiveUp
from mqi_sftp.tree import Tree

_COMPOSED, _DECOMPOSED = "caf\u00e9", "cafe\u0301"


@dataclass(frozen=True)
class Sameness:
    """What a file system takes for the same name."""

    letters: bool  # `a` and `A`
    accents: bool  # one character, or a letter and its accent

    def fold(self, path: str) -> str:
        """Return a path that is equal for all paths that are the same there."""
        if self.accents:
            path = unicodedata.normalize("NFC", path)
        if self.letters:
            path = path.casefold()
        return unicodedata.normalize("NFC", path) if self.accents else path


def count_same(paths: Iterable[str], fold: Callable[[str], str]) -> int:
    """Count the paths that are not alone under their folded name. Pure."""
    seen: set[int] = set()
    twice: set[int] = set()
    known = list(paths)
    for path in known:
        mark = hash(fold(path))  # a hundred thousand paths are not kept a second time
        (twice if mark in seen else seen).add(mark)
    if not twice:
        return 0
    groups = Counter(folded for folded in map(fold, known) if hash(folded) in twice)
    return sum(count for count in groups.values() if count > 1)


def look_for_sameness(parent: Path) -> Sameness:
    """Try what the file system of a directory, or of the nearest one above it that is there, takes for the same."""
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    probe = Path(tempfile.mkdtemp(prefix=".mqi-probe-", suffix=".part", dir=parent))
    try:
        (probe / "a").touch()
        (probe / _COMPOSED).touch()
        return Sameness(letters=os.path.lexists(probe / "A"), accents=os.path.lexists(probe / _DECOMPOSED))
    finally:
        shutil.rmtree(probe)


def check_names(destination: Path, tree: Tree) -> None:
    """Raise `GiveUp` when results would overwrite each other where they are to go. Looks there only for doubtful names."""
    paths = [each.path for each in tree.entries]
    if not count_same(paths, Sameness(letters=True, accents=True).fold):
        return
    found = look_for_sameness(destination.parent)
    if count := count_same(paths, found.fold):
        how = " and ".join(
            what
            for what, is_so in (("letter case", found.letters), ("how accents are written", found.accents))
            if is_so
        )
        raise GiveUp(
            f"{count} names of the results differ only in {how}, and the disk that `to` names takes them for the same",
            hint="name a place in `to` that tells them apart, or narrow `from`; then: mqi case retry",
        )
