"""`mqi conductor run`: the conductor in the foreground, as the daemon runs it."""

from __future__ import annotations

from mqi_cli.cli.group import command_group

app = command_group("Run the conductor in the foreground.")


@app.callback(hidden=True)
def group() -> None:
    """Run the conductor in the foreground."""


@app.command()
def run() -> None:
    """Move cases until stopped (Ctrl-C or SIGTERM). One for each state database."""
    from mqi_cli.processes import run_conductor

    run_conductor()
