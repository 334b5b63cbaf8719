"""`mqi demo`: the whole pipeline on sample cases, on this machine, in less than two minutes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mqi_cli.cli.group import single_command

app = single_command()


@app.command()
def demo(
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", help="Where everything goes. Default: a new temporary directory."),
    ] = None,
    cases: Annotated[int, typer.Option(min=1, max=20, help="How many sample cases.")] = 3,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
) -> None:
    """Run the whole pipeline on sample cases, on this machine, and show it. Ends by itself; leaves nothing running."""
    from mqi_cli.cli.output import say
    from mqi_cli.demo.play import Demo
    from mqi_cli.errors import UsageError

    place = (directory or Path(tempfile.mkdtemp(prefix="mqi-demo-"))).resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} is not an empty directory", hint="name a new one")
    live = _live if sys.stdin.isatty() and sys.stdout.isatty() and not plain else None
    Demo(place, cases, say, live).play()


def _live(state_path: Path, finished: Callable[[], bool]) -> None:
    from rich.console import Console

    from mqi_cli.clock import Clock
    from mqi_cli.watch.live import watch

    watch(state_path, Console(highlight=False), sys.stdin, interval=0.5, clock=Clock(), finished=finished)
