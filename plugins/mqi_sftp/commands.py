"""`mqi transfer upload|download|verify`."""

from __future__ import annotations

from typing import Annotated

import typer

transfer = typer.Typer(
    help="Move a case's files by hand, or prove them again.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Case = Annotated[str, typer.Argument(help="The case: its name, key, a unique prefix of either, or its directory.")]
StepName = Annotated[str, typer.Option("--step", help="Which step, where the workflow has several of this stage.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be moved, and move nothing.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Tell on stderr which way the files take; twice: still more.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Annotated[str, typer.Option("--format", help="Print with one of tabulate's formats.")]


@transfer.command()
def upload(
    case: Case,
    step: StepName = "",
    dry_run: DryRun = False,
    json: Json = False,
    format: Format = "table",
    verbose: Verbose = 0,
) -> None:
    """Bring a case's files to the step's host, and prove them there. Goes on where an earlier try stood."""
    from mqi_cli import tell_more
    from mqi_sftp.byhand import move

    tell_more(verbose)
    move("upload", case, step=step, dry_run=dry_run, json=json, format=format)


@transfer.command()
def download(
    case: Case,
    step: StepName = "",
    dry_run: DryRun = False,
    json: Json = False,
    format: Format = "table",
    verbose: Verbose = 0,
) -> None:
    """Fetch the results of a case's run, and prove them here. Goes on where an earlier try stood."""
    from mqi_cli import tell_more
    from mqi_sftp.byhand import move

    tell_more(verbose)
    move("download", case, step=step, dry_run=dry_run, json=json, format=format)


@transfer.command()
def verify(case: Case, step: StepName = "", json: Json = False, format: Format = "table", verbose: Verbose = 0) -> None:
    """Prove a case's finished transfers again: read and hash both sides, and name each file that differs.

    Leaves with exit code 1 when anything differs.
    """
    from mqi_cli import tell_more
    from mqi_sftp.byhand import prove_again

    tell_more(verbose)
    if not prove_again(case, step=step, json=json, format=format):
        raise typer.Exit(1)
