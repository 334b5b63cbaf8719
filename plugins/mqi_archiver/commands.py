"""`mqi archive run|list|restore|prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

archive = typer.Typer(
    help="Make, list, prove, restore and thin out archives.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Annotated[str, typer.Option("--format", help="How lists are printed: table, plain, github, tsv, html, …")]


def add_commands(app: typer.Typer) -> None:
    """Add `mqi archive`."""
    app.add_typer(archive, name="archive")


@archive.command()
def run(
    case: Annotated[str, typer.Argument(help="The case: its name, key, a unique prefix of either, or its directory.")],
    step: Annotated[str, typer.Option("--step", help="Which step, where the workflow has several archive steps.")] = "",
    json: Json = False,
    format: Format = "table",
) -> None:
    """Archive a case now, with the code of the daemon: pack, prove, then clear its hosts."""
    from mqi_archiver.byhand import run_now

    run_now(case, step=step, json=json, format=format)


@archive.command("list")
def list_(
    verify: Annotated[bool, typer.Option("--verify", help="Read every archive from end to end and prove it.")] = False,
    removed: Annotated[bool, typer.Option("--all", "-a", help="Also those that were removed by age.")] = False,
    json: Json = False,
    format: Format = "table",
) -> None:
    """List the archives that were made on this machine. Leaves with exit code 1 when one is missing or damaged."""
    from mqi_archiver.byhand import list_archives

    if not list_archives(verify=verify, removed=removed, json=json, format=format):
        raise typer.Exit(1)


@archive.command()
def restore(
    case: Annotated[str, typer.Argument(help="The case: its name, key or a unique prefix; or an archive's path.")],
    to: Annotated[Path, typer.Option("--to", help="The directory to restore into: a new one, or an empty one.")],
) -> None:
    """Unpack a case's newest archive and prove every file; the directory appears complete or not at all."""
    from mqi_archiver.byhand import restore_case

    restore_case(case, to)


@archive.command()
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", help="Age, like 180d. Default: `retention` of the archiver's section.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only list what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    json: Json = False,
    format: Format = "table",
) -> None:
    """Remove archives that are too old. Results and sources are never touched."""
    from mqi_archiver.byhand import prune_archives

    if not prune_archives(older_than=older_than, dry_run=dry_run, yes=yes, json=json, format=format):
        raise typer.Exit(1)
