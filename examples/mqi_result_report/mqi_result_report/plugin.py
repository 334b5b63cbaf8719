"""What this plugin offers to mqi. The hooks are called at each start, so they import what they need inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqi_cli import hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import Check, CheckContext, ConfigSection, Stage


@hookimpl
def mqi_config() -> ConfigSection:
    """Give the section `report:` of mqi.yaml."""
    from mqi_cli import ConfigSection
    from mqi_result_report.options import ReportSection

    return ConfigSection("report", ReportSection)


@hookimpl
def mqi_stages() -> Sequence[Stage]:
    """Give the stage `report`."""
    from mqi_result_report.stage import STAGE

    return [STAGE]


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    """Add `mqi report`."""
    from mqi_result_report.commands import app as commands

    app.add_typer(commands, name="report")


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look whether the places for pages and ledgers can be written."""
    from mqi_result_report.checks import check_places

    return check_places(ctx)
