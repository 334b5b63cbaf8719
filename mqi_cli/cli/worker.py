"""`mqi worker run|unit LANE`: one worker in the foreground, as the daemon runs them, here or on another machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mqi_cli.cli.group import command_group

app = command_group("Run one worker, here or on another machine.")


@app.callback()
def group() -> None:
    """Run one worker, here or on another machine."""


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


@app.command()
def unit(
    lane: Annotated[str, typer.Argument(help="The lane to serve: sftp, ssh-exec, archiver, …")],
    user: Annotated[str, typer.Option("--user", help="The account that the worker runs as. Default: yours.")] = "",
) -> None:
    """Print a systemd unit for a worker on a machine without the daemon."""
    import getpass
    import sys

    from mqi_cli.config.find import find_config
    from mqi_cli.config.load import load_config
    from mqi_cli.errors import UsageError
    from mqi_cli.invocation import options
    from mqi_cli.launch import worker_command
    from mqi_cli.plugins import load_plugins
    from mqi_cli.unit import worker_unit_text

    file = find_config(options().config)
    plugins = load_plugins(load_config(file, None).plugins.disable)
    config = load_config(file, plugins)
    if lane not in plugins.lanes():
        raise UsageError(f"no plugin has a lane {lane}", hint=f"one of: {', '.join(plugins.lanes())}")
    text = worker_unit_text(config, worker_command(config, lane), lane=lane, user=user or getpass.getuser())
    sys.stdout.write(text)
