"""`mqi watch`: the live dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from mqi_cli.cli.group import single_command

app = single_command()


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[str, typer.Option("--interval", "-i", help="How often it looks: 1s, 500ms, 10s.")] = "1s",
) -> None:
    """Watch cases, hosts and workers live. It only reads: nothing stops when it is closed."""
    import sys

    from rich.console import Console

    from mqi_cli.cli.operator import Operator
    from mqi_cli.config.values import parse_duration
    from mqi_cli.errors import UsageError
    from mqi_cli.watch.live import watch as watch_live
    from mqi_cli.watch.live import watch_once

    try:
        seconds = max(0.25, parse_duration(interval))
    except ValueError as error:
        raise UsageError(f"--interval: {error}") from error
    operator = Operator.open(light=True)
    console = Console(highlight=False)
    if once:
        watch_once(operator.state_path, console, clock=operator.clock)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("there is no terminal to draw on", hint="mqi watch --once prints one frame")
    watch_live(operator.state_path, console, sys.stdin, interval=seconds, clock=operator.clock)
