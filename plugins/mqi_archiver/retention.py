"""Removing archives by age, by hand and by timer. Results and sources are never touched.

What is removed is the very file that was recorded: a regular file of the recorded size at the recorded path. It is not
read once more for that: proof matters for what is kept. Anything else at that path is left and named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mqi_archiver.index import Archived, Index
from mqi_archiver.place import sync
from mqi_cli import Alert, PatrolContext, describe_os_error


@dataclass(frozen=True)
class Pruned:
    """What became of one archive that is too old: `removed`, `would be removed`, `gone already` or `left: …`."""

    archived: Archived
    outcome: str

    @property
    def is_problem(self) -> bool:
        """Whether it is still there against the rule."""
        return self.outcome.startswith("left")


def too_old(index: Index, *, older_than: float, now: float) -> list[Archived]:
    """Return the archives that are older than so many seconds, oldest first."""
    found = [each for each in index.each() if each.pruned_at is None and now - each.archived_at > older_than]
    return sorted(found, key=lambda each: each.archived_at)


def prune(
    index: Index,
    archives: list[Archived],
    *,
    now: float,
    dry_run: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Pruned]:
    """Remove these archives, one by one."""
    for archived in archives:
        if stopping():
            return
        yield Pruned(archived, _prune(index, archived, now=now, dry_run=dry_run))


def _prune(index: Index, archived: Archived, *, now: float, dry_run: bool) -> str:
    path = Path(archived.path)
    try:
        if path.is_symlink() or (path.exists() and (not path.is_file() or path.stat().st_size != archived.size)):
            return "left: it is not the file that was recorded"
        there = path.exists()
        if not there and not Path(archived.root).is_dir():
            return "left: the directory of archives is not there"
        if dry_run:
            return "would be removed" if there else "gone already"
        path.unlink(missing_ok=True)
        sync(path.parent) if path.parent.is_dir() else None
        index.pruned(archived, at=now)
        _remove_empty(path.parent, Path(archived.root))
    except OSError as error:
        return f"left: {describe_os_error(error)}"
    return "removed" if there else "gone already"


def _remove_empty(directory: Path, root: Path) -> None:
    while directory != root and directory.is_relative_to(root):
        with contextlib.suppress(OSError):
            directory.rmdir()
        if directory.exists():
            return
        directory = directory.parent


def patrol_retention(ctx: PatrolContext) -> None:
    """Remove what is older than `archiver.retention`; raise an alert for what should go and can't."""
    if ctx.config.retention is None:
        return
    index, now = Index(ctx.data_dir), ctx.clock.now()
    old = too_old(index, older_than=ctx.config.retention, now=now)
    left = 0
    for each in prune(index, old, now=now, stopping=ctx.stopping):
        left += each.is_problem
        ctx.log.info("archive of %s, revision %d: %s", each.archived.key, each.archived.revision, each.outcome)
    text = f"{left} archives are too old and can't be removed" if left else "old archives can be removed again"
    ctx.report(Alert("archive-retention", bool(left), text, "mqi archive prune --dry-run" if left else ""))
