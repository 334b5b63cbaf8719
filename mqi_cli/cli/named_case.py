"""Finds the case that an operator names: by its name, its key, a unique prefix of either, or its directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mqi_cli.errors import CaseError, UsageError

if TYPE_CHECKING:
    from mqi_cli.config.loaded import Config
    from mqi_cli.store import Store
    from mqi_cli.store.records import CaseRow


def find_case(store: Store, text: str, config: Callable[[], Config]) -> CaseRow:
    """Find a case by name, key, a unique prefix of either, or its directory.

    `config` is asked for sources only where a directory is named. Raises `CaseError` when there is none, `UsageError`
    that lists the candidates when there are several.
    """
    found = _by_directory(store, text, config) if "/" in text or text in (".", "..") else None
    rows = [found] if found else store.cases.matching(text.rstrip("/"))
    if not rows:
        if Path(text).is_dir():
            raise CaseError(f"the directory {text} is not a case yet", hint=f"mqi case add {text}")
        raise CaseError(f"no case is called {text}", hint="mqi case list")
    if len(rows) > 1:
        names = "".join(f"\n  {row.key}  {row.name}" for row in rows[:10])
        raise UsageError(f"{text} fits {len(rows)} cases:{names}", hint="give more of the name, or the key")
    return rows[0]


def _by_directory(store: Store, text: str, config: Callable[[], Config]) -> CaseRow | None:
    path = Path(text).expanduser()
    if not path.is_dir():
        return None
    source, name = place_of(config(), path)
    row: CaseRow | None = store.cases.newest(source, name)
    return row


def place_of(config: Config, directory: Path) -> tuple[str, str]:
    """Return source and case name of a directory; for one outside every source, an empty source and its whole path."""
    resolved = directory.resolve()
    for view in config.source_views():
        root = view.path.resolve()
        if root in resolved.parents:
            parts = resolved.relative_to(root).parts
            if len(parts) != view.depth:
                raise UsageError(
                    f"{directory} lies {len(parts)} below source {view.name}, where a case begins {view.depth} below",
                    hint="name the case's own directory, or change the source's depth",
                )
            return view.name, "/".join(parts)
    return "", str(resolved)
