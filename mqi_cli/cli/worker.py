"""`mqi worker run LANE`: one worker in the foreground, as the daemon runs them, here or on another machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mqi_cli.cli.group import command_group

app = command_group("Run one worker in the foreground.")


@app.callback()
def group() -> None:
    """Run one worker in the foreground."""


@app.command()
def run(
    lane: Annotated[str, typer.Argument(help="The lane to serve: sftp, ssh-exec, archiver, …")],
    threads: Annotated[int, typer.Option(help="Commands at once; 0: as the config says.")] = 0,
    patrols: Annotated[
        bool, typer.Option("--patrols", help="Also go the lane's patrols (needs the state database).")
    ] = False,
) -> None:
    """Serve a lane until stopped (Ctrl-C or SIGTERM). Needs nothing but the config and the broker."""
    from mqi_cli.processes import run_worker

    run_worker(lane, threads=threads, with_patrols=patrols)
