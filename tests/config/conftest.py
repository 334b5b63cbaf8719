"""A config written for one test, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from mqi_cli.config.load import load_config
from mqi_cli.config.loaded import Config
from mqi_cli.errors import ConfigError
from mqi_cli.plugins import Plugins, load_plugins


class Desk:
    """Writes `mqi.yaml` and loads it as a command does."""

    def __init__(self, directory: Path, plugins: Plugins) -> None:
        self.directory = directory
        self.plugins = plugins
        self.file = directory / "mqi.yaml"
        self.environ: Mapping[str, str] = {"HOME": str(directory / "home")}

    def write(self, text: str) -> Path:
        self.file.write_text(dedent(text), encoding="utf-8")
        self.file.chmod(0o600)
        return self.file

    def load(self, text: str, *, light: bool = False) -> Config:
        return load_config(self.write(text), None if light else self.plugins, self.environ)

    def problems(self, text: str, *, light: bool = False) -> list[str]:
        """Return the problems of a config, each with `FILE` for the file's path."""
        try:
            self.load(text, light=light)
        except ConfigError as error:
            return [each.replace(str(self.file), "FILE") for each in error.problems]
        return []


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return load_plugins(environ={})


@pytest.fixture
def desk(tmp_path: Path, plugins: Plugins) -> Desk:
    return Desk(tmp_path, plugins)


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = "hunter2\n", mode: int = 0o600) -> Path:
        file = tmp_path / "secret"
        file.write_text(text)
        file.chmod(mode)
        return file

    return write
