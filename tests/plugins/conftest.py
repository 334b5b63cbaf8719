"""Small plugins written into a directory, found like installed ones."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from mqi_cli.discovery import GROUP
from mqi_cli.plugins import Plugins, load_plugins


class Shelf:
    """Holds plugins' modules of one test, and loads them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.points: list[importlib.metadata.EntryPoint] = []

    def add(self, name: str, text: str, *, module: str = "") -> None:
        module = module or f"shelf_{name.replace('-', '_')}"
        names = "hookimpl, Check, ConfigSection, Done, HostType, Patrol, Section, Stage, StepOptions, Verdict"
        (self.directory / f"{module}.py").write_text(f"from mqi_cli import {names}\n{dedent(text)}")
        self.points.append(importlib.metadata.EntryPoint(name, module, GROUP))

    def load(self, *disabled: str, environ: dict[str, str] | None = None) -> Plugins:
        return load_plugins(disabled, environ=environ or {}, entry_points=self.points)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Shelf(tmp_path)
    for name in [each for each in sys.modules if each.startswith("shelf_")]:
        del sys.modules[name]


STAGE = """
@hookimpl
def mqi_stages():
    return [Stage("{name}", lambda case, ctx: Done(), "{lane}")]
"""


@pytest.fixture
def stage_plugin(shelf: Shelf) -> Callable[..., None]:
    def add(name: str, *, stage: str = "", lane: str = "") -> None:
        shelf.add(name, STAGE.format(name=stage or name, lane=lane or name))

    return add
