"""`mqi conductor run`: the conductor in the foreground, as the daemon runs it."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Run the conductor in the foreground.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@app.callback(hidden=True)
def group() -> None:
    """Run the conductor in the foreground."""


@app.command()
def run() -> None:
    """Move cases until stopped (Ctrl-C or SIGTERM). One for each state database."""
    from mqi_cli.processes import run_conductor

    run_conductor()
