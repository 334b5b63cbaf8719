"""The config once it is checked: what all other modules work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mqi_cli.config.model import BrokerSection, DaemonSection, HostSection, LaneSection, PluginsSection, SourceSection
from mqi_cli.config.problems import KeyPath
from mqi_cli.patrol import SourceView
from mqi_cli.stage import Workflow


@dataclass(frozen=True)
class Config:
    """A checked config. `file` is None when none was found and everything is default."""

    file: Path | None
    state_path: Path
    key_salt: str = field(repr=False, default="")
    broker: BrokerSection | None = None
    hosts: Mapping[str, HostSection] = field(default_factory=dict)
    sources: tuple[SourceSection, ...] = ()
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    workers: Mapping[str, LaneSection] = field(default_factory=dict)
    daemon: DaemonSection = field(default_factory=DaemonSection)
    plugins: PluginsSection = field(default_factory=PluginsSection)
    sections: Mapping[str, Any] = field(default_factory=dict)  # plugin's section name -> its model, defaults filled in
    origins: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)  # where each value that was set came from
    warnings: tuple[str, ...] = ()  # what may be meant like this, and is worth a look; one line each

    @property
    def state_dir(self) -> Path:
        """The directory that holds the state database and all that mqi keeps beside it."""
        return self.state_path.parent

    def source_views(self) -> tuple[SourceView, ...]:
        """Return the sources as patrols see them."""
        return tuple(
            SourceView(each.name or each.path.name, each.path, each.depth, each.complete_when, each.workflow)
            for each in self.sources
        )

    def source(self, name: str) -> SourceView | None:
        """Return the source of that name."""
        return next((each for each in self.source_views() if each.name == name), None)

    def lane(self, name: str) -> LaneSection:
        """Return how a lane is served here; defaults where the config is silent."""
        return self.workers.get(name) or LaneSection()
