"""The plugin: stage `archive`, patrols `retention` and `state-backup`, commands `mqi archive …`, checks for `mqi doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqi_cli import ConfigSection, hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import CaseRef, Check, CheckContext, Done, Patrol, PatrolContext, Stage, StageContext, Wait

LANE = "archiver"


@hookimpl
def mqi_config() -> ConfigSection:
    from mqi_archiver.config import ArchiverSection

    return ConfigSection("archiver", ArchiverSection)


@hookimpl
def mqi_stages() -> Sequence[Stage]:
    from mqi_archiver.config import ArchiveOptions, check_archive
    from mqi_cli import Stage

    return [
        Stage(
            "archive",
            _archive,
            lane=LANE,
            options=ArchiveOptions,
            summary="files a case's results and input in one proven archive, then clears its hosts",
            check=check_archive,
            alone=True,
        )
    ]


@hookimpl
def mqi_patrols() -> Sequence[Patrol]:
    from mqi_cli import Patrol

    return [
        Patrol("retention", _retention, _retention_interval, LANE, summary="removes archives that are too old"),
        Patrol("state-backup", _backup, _backup_interval, LANE, summary="copies the state database"),
    ]


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    from mqi_archiver.checks import checks

    return checks(ctx)


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    from mqi_archiver.commands import add_commands

    add_commands(app)


def _archive(case: CaseRef, ctx: StageContext) -> Done | Wait:
    from mqi_archiver.archive import archive

    return archive(case, ctx)


def _retention(ctx: PatrolContext) -> None:
    from mqi_archiver.retention import patrol_retention

    patrol_retention(ctx)


def _backup(ctx: PatrolContext) -> None:
    from mqi_archiver.backup import patrol_backup

    patrol_backup(ctx)


def _retention_interval(section: Any) -> float:
    return float(section.interval) if section.retention is not None else 0.0


def _backup_interval(section: Any) -> float:
    return float(min(section.interval, section.backup.every)) if section.backup is not None else 0.0
