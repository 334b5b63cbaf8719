"""A store that holds a small made-up installation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.store import Store, open_store
from mqi_cli.watch.picture import fill


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "state" / "state.db")
    fill(store)
    yield store
    store.close()
