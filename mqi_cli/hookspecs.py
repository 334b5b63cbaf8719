"""The plugin contract, whole. A plugin is a module with `@hookimpl` functions of these names, named in the entry-point
group `mqi.plugins`; each is optional. Everything else that a plugin needs is exported by `mqi_cli`.

Each hook is asked once per process. Two plugins that offer one name, and a function marked `@hookimpl` that is none of
these, are start-up errors that name the plugins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from mqi_cli.check import Check, CheckContext
    from mqi_cli.patrol import Patrol
    from mqi_cli.scheduler import Scheduler
    from mqi_cli.stage import Section, Stage

PROJECT = "mqi"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class ConfigSection:
    """A plugin's section of `mqi.yaml`: its key at the top level and its model. The section may be left out."""

    name: str
    model: type[Section]


@dataclass(frozen=True)
class HostType:
    """A kind of host: the value of `type`, the model of its section, and how to open one."""

    name: str
    model: type[Section]
    open: Any  # Callable[[str, <model>, Path], Host]: the host's name, its section, mqi's state directory


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the case's log holds it. `text` is one sentence without names."""

    at: float
    case: str
    step: str
    part: str
    attempt: int
    kind: str
    text: str


@hookspec
def mqi_config() -> ConfigSection:
    """Give the name and the typed model of the plugin's config section."""
    raise AssertionError("a specification")


@hookspec
def mqi_stages() -> Sequence[Stage]:
    """Give the stages that the plugin can do."""
    raise AssertionError("a specification")


@hookspec
def mqi_patrols() -> Sequence[Patrol]:
    """Give the plugin's periodic work."""
    raise AssertionError("a specification")


@hookspec
def mqi_commands(app: typer.Typer) -> None:
    """Add the plugin's own commands to `mqi`. Import what they need inside them: this runs at each start of the CLI."""


@hookspec
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at what the plugin needs, for `mqi doctor`."""
    raise AssertionError("a specification")


@hookspec
def mqi_on_event(event: RecordedEvent) -> None:
    """See a recorded event. A failure here is logged and changes nothing."""


@hookspec
def mqi_host_types() -> Sequence[HostType]:
    """Give further kinds of host."""
    raise AssertionError("a specification")


@hookspec
def mqi_schedulers() -> Sequence[Scheduler]:
    """Give further ways of starting runs, for a host's `scheduler`."""
    raise AssertionError("a specification")
