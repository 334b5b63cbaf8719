"""Find out which plugins are installed, without importing any."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass

from mqi_cli.errors import PluginError

GROUP = "mqi.plugins"
DISTRIBUTION = "mqi-cli"


@dataclass
class PluginInfo:
    """One plugin as `mqi plugin list` shows it. `state` is ok, disabled or broken; `problem` is set for broken ones."""

    name: str
    distribution: str
    version: str
    module: str
    hooks: tuple[str, ...] = ()
    state: str = "ok"
    problem: str = ""

    @property
    def hint(self) -> str:
        """Say how to go on without it."""
        return switch_off(self.name)


def switch_off(plugin: str) -> str:
    """Say how to go on without a plugin."""
    return f"to go on without it: `plugins: {{disable: [{plugin}]}}` in mqi.yaml, or MQI_DISABLE_PLUGINS={plugin}"


def discover(
    points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> list[tuple[PluginInfo, importlib.metadata.EntryPoint]]:
    """Return the installed plugins, mqi's own first and all in order of their names: the same order in
    every process. `points` stands in for the installed ones. Raises `PluginError` for two of one name.
    """
    distributions: dict[int, tuple[str, str]] = {}  # reading a name parses a file, and plugins share distributions
    found: dict[str, tuple[PluginInfo, importlib.metadata.EntryPoint]] = {}
    for point in tuple(importlib.metadata.entry_points(group=GROUP) if points is None else points):
        if point.dist is not None and id(point.dist) not in distributions:
            metadata = point.dist.metadata
            distributions[id(point.dist)] = (metadata["Name"], metadata["Version"])
        name, version = distributions.get(id(point.dist), ("", ""))
        info = PluginInfo(point.name, name, version, point.value)
        other = found.setdefault(point.name, (info, point))[0]
        if other.module != info.module:
            raise PluginError(
                f"two plugins are named '{info.name}': {other.module} of {other.distribution or 'no distribution'} "
                f"and {info.module} of {info.distribution or 'no distribution'}",
                hint="uninstall one of them",
            )
    return sorted(found.values(), key=lambda each: (each[0].distribution != DISTRIBUTION, each[0].name))
