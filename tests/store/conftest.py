"""State databases to break: a fresh one in its own directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.store import Store, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a state database will lie."""
    return tmp_path / "state" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A new state database, open."""
    opened = open_store(path)
    yield opened
    opened.close()
