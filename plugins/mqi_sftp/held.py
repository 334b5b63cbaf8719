"""What a directory on the far side holds of the files that are wanted: some fifty bytes for each, beside their own list."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence

from mqi_cli import Entry
from mqi_sftp.listing import Listing
from mqi_sftp.plan import Mark
from mqi_sftp.tree import Tree, position

_DIGEST = 32  # bytes
_SHA256 = re.compile("[0-9a-f]{64}")


class Held(Listing):
    """A listing of which only that is kept. `wanted` is sorted by path, and files are asked for by their place in it.

    That a path's directory was listed is not asked: of this nothing is written here, and what is copied there is proven.
    """

    def __init__(self, wanted: Sequence[Entry]) -> None:
        super().__init__()
        self.bytes = 0  # of all files that lie there
        self._wanted = wanted
        self._sizes = array("q", [-1]) * len(wanted)
        self._as_due = bytearray(len(wanted))
        self._hashes = bytearray(_DIGEST * len(wanted))

    def keep(self, entry: Entry) -> bool:
        """Keep what is wanted of an entry; False for one that was there before."""
        if entry.is_dir:
            return True
        self.bytes += entry.size
        at = self._position(entry.path)
        if at is None:
            return True
        if self._sizes[at] >= 0:
            return False
        self._sizes[at] = entry.size
        self._as_due[at] = Mark.of(entry) == Mark.due(self._wanted[at])
        return True

    def take(self, tree: Tree, hashes: Mapping[str, str]) -> None:
        """Keep what is wanted of what was listed and hashed already."""
        for each in tree.files:
            self.keep(each)
        for path, sha256 in hashes.items():
            self.prove(path, sha256)

    def prove(self, path: str, sha256: str) -> None:
        """Note what a file hashes to there."""
        at = self._position(path)
        if at is not None and _SHA256.fullmatch(sha256):
            self._hashes[_DIGEST * at : _DIGEST * (at + 1)] = bytes.fromhex(sha256)

    def size_of(self, at: int) -> int:
        """Return a file's size there; below zero where it is not."""
        return self._sizes[at]

    def is_as_due(self, at: int) -> bool:
        """Whether it bears the time and the mode that a copy of the wanted one gets."""
        return bool(self._as_due[at])

    def sha256(self, at: int) -> str:
        """Return its hash; empty for one that could not be read."""
        digest = self._hashes[_DIGEST * at : _DIGEST * (at + 1)]
        return digest.hex() if any(digest) else ""

    def _position(self, path: str) -> int | None:
        at = position(self._wanted, path)
        return None if at is None or self._wanted[at].is_dir else at
