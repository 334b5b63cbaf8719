"""Where cases begin below a source, and which directory belongs to a key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mqi_cli.case import derive_key
from mqi_cli.patrol import SourceView

IGNORED_SUFFIXES = (".tmp", ".part", ".partial", ".filepart")


def case_directories(source: SourceView) -> Iterator[tuple[str, Path]]:
    """Yield name and directory of every case below a source, in order. Links are not followed, hidden and temporary
    names (`.x`, `x.tmp`, `x.part`) passed over, and what vanishes or can't be read is skipped.

    Raises `OSError` only when the source itself can't be read.
    """
    yield from _descend(source.path, "", source.depth, top=True)


def _descend(directory: Path, prefix: str, depth: int, *, top: bool = False) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(directory) as items:
            names = sorted(
                item.name
                for item in items
                if not item.name.startswith(".")
                and not item.name.endswith(IGNORED_SUFFIXES)
                and item.is_dir(follow_symlinks=False)
            )
    except OSError:
        if top:
            raise
        return
    for name in names:
        path = directory / name
        if depth == 1:
            yield prefix + name, path
        else:
            yield from _descend(path, f"{prefix}{name}/", depth - 1)


class CaseFinder:
    """Finds a case's directory from its key alone, for workers that know nothing but the config."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._found: dict[str, tuple[str, Path]] = {}

    def find(self, source: SourceView, key: str, revision: int) -> tuple[str, Path] | None:
        """Return name and directory, or None when no directory below the source has this key."""
        known = self._found.get(key)
        if known and known[1].is_dir():
            return known
        for name, path in case_directories(source):
            if derive_key(source.name, name, revision, salt=self._salt) == key:
                self._found[key] = (name, path)
                return name, path
        return None
