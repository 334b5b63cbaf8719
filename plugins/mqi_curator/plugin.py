"""What the curator registers: its config section, the patrol `hosts`, the commands `mqi gpu` and `mqi host`, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqi_cli import ConfigSection, hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import Check, CheckContext, Patrol


@hookimpl
def mqi_config() -> ConfigSection:
    """Give the section `curator`."""
    from mqi_curator.config import CuratorSection

    return ConfigSection("curator", CuratorSection)


@hookimpl
def mqi_patrols() -> Sequence[Patrol]:
    """Give the patrol that looks at the hosts, and the one that clears them."""
    from mqi_curator import cleaning, hosts_patrol

    return (hosts_patrol.PATROL, cleaning.PATROL)


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    """Add `mqi gpu` and `mqi host`."""
    from mqi_curator.commands import gpu_app, host_app

    app.add_typer(gpu_app, name="gpu")
    app.add_typer(host_app, name="host")


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at every host: does it answer, is its clock right, has it space, do its GPUs answer."""
    from mqi_curator.checks import check_hosts

    return check_hosts(ctx)
