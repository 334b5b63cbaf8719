"""Fixtures of the curator's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from curator.machines import FakeSmi


@pytest.fixture
def smi(tmp_path: Path) -> Iterator[FakeSmi]:
    """A fake `nvidia-smi`, two idle cards."""
    fake = FakeSmi(tmp_path / "smi")
    yield fake
    fake.end()
