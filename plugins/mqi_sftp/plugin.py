"""The plugin: section `sftp`, stages `upload` and `download`, `mqi transfer`, and what `mqi doctor` looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqi_cli import ConfigSection, hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import CaseRef, Check, CheckContext, Done, Stage, StageContext, Wait

LANE = "sftp"
STALL = 1000.0  # seconds; longer than the longest that one command on a host may take (options.MOST_VERIFY_TIMEOUT)


@hookimpl
def mqi_config() -> ConfigSection:
    """Give the section `sftp`."""
    from mqi_sftp.options import SftpSection

    return ConfigSection("sftp", SftpSection)


@hookimpl
def mqi_stages() -> Sequence[Stage]:
    """Give `upload` and `download`."""
    from mqi_cli import Stage
    from mqi_sftp.options import DownloadOptions, UploadOptions, check_download

    return (
        Stage(
            "upload", _upload, LANE, UploadOptions, summary="brings a case's files to a host, proven there", stall=STALL
        ),
        Stage(
            "download",
            _download,
            LANE,
            DownloadOptions,
            summary="fetches a run's results, proven here",
            check=check_download,
            stall=STALL,
        ),
    )


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    """Add `mqi transfer`."""
    from mqi_sftp.commands import transfer

    app.add_typer(transfer, name="transfer")


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at the hosts that files go to, and at the places for results."""
    from mqi_sftp.checks import checks

    return checks(ctx)


def _upload(case: CaseRef, ctx: StageContext) -> Done | Wait:
    from mqi_sftp.upload import upload

    return upload(case, ctx)


def _download(case: CaseRef, ctx: StageContext) -> Done | Wait:
    from mqi_sftp.download import download

    return download(case, ctx)
