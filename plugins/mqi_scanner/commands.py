"""The command `mqi scan`."""

from __future__ import annotations

from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Add `mqi scan`."""
    app.command("scan", context_settings={"help_option_names": ["-h", "--help"]})(scan)


def scan(
    source: Annotated[str, typer.Option("--source", "-s", help="Look at this source only.")] = "",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Look again until all that was seen is complete.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    format: Annotated[str, typer.Option("--format", help="Print with one of tabulate's formats.")] = "table",
) -> None:
    """Look for cases now, by the same rules as the daemon.

    A case that needs two looks (`quiet_for`) is complete at a later one: the daemon's, the next `mqi scan`, or --wait.
    """
    from mqi_cli import Operator, UsageError
    from mqi_scanner.byhand import print_round, rounds

    operator = Operator.open()
    names = [each.name for each in operator.config.source_views()]
    if source and source not in names:
        raise UsageError(f"there is no source {source!r}", hint=f"sources are: {', '.join(names) or 'none'}")
    last = rounds(operator, source=source, wait=wait)
    print_round(last, watched=names, json=json, format=format)
    if any(judgement.stand == "problem" for judgement in last.open.values()):
        raise typer.Exit(1)
