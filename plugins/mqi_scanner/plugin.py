"""The plugin: patrol `scan`, command `mqi scan`, and what `mqi doctor` looks at in a source."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqi_cli import ConfigSection, hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import Check, CheckContext, Patrol, PatrolContext
    from mqi_scanner.scan import Scan


@functools.cache
def the_scan() -> Scan:
    """Return this process's scan: what it remembers of each case serves the patrol and `mqi scan` alike."""
    from mqi_scanner.scan import Scan

    return Scan()


@hookimpl
def mqi_config() -> ConfigSection:
    from mqi_scanner.config import ScannerSection

    return ConfigSection("scanner", ScannerSection)


@hookimpl
def mqi_patrols() -> Sequence[Patrol]:
    from mqi_cli import Patrol

    return [Patrol("scan", run=_run, interval=_interval, lane="scanner", summary="looks for new and complete cases")]


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    from mqi_scanner.checks import checks

    return checks(ctx)


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    from mqi_scanner.commands import add_commands

    add_commands(app)


def _run(ctx: PatrolContext) -> None:
    the_scan()(ctx)


def _interval(section: Any) -> float:
    return float(section.interval)
