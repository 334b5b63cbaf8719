"""A case ready to be archived."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.filing import Filing


@pytest.fixture
def filing(tmp_path: Path) -> Filing:
    """A case that was computed on this machine as its host, and fetched."""
    return Filing(tmp_path)
