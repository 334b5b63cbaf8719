"""`mqi init`: a first config, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mqi_cli.cli.group import single_command

app = single_command()


@app.command()
def init(
    directory: Annotated[
        Path, typer.Argument(help="Where mqi.yaml is written; made when it is not there. Default: here.")
    ] = Path(),
    source: Annotated[
        str, typer.Option("--source", "-s", help="The directory to watch; made when it is not there.")
    ] = "incoming",
    force: Annotated[bool, typer.Option("--force", help="Write over a config that is there.")] = False,
) -> None:
    """Write a first config and say what to do next."""
    from mqi_cli.cli.first_config import write_first_config
    from mqi_cli.cli.output import say
    from mqi_cli.errors import UsageError, describe_os_error
    from mqi_cli.plugins import load_plugins

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} can't be made: {describe_os_error(error)}") from error
    file = directory / "mqi.yaml"
    watched = write_first_config(load_plugins(), file, source=source, force=force)
    say(f"wrote {file}; it watches {watched}\n")
    mqi = "mqi" if directory.resolve() == Path.cwd() else f"mqi --config {file}"
    say("Next:")
    say(f"  1. edit {file}: your hosts, your source, the steps of your workflow")
    for number, (command, what) in enumerate(
        (
            ("config check", "tells everything that is wrong with it"),
            ("host trust HOST", "for each SSH host: shows its key and remembers it"),
            ("doctor", "checks everything mqi needs, and says what mends it"),
            ("daemon start", "begins to take cases in"),
            ("watch", "shows them live"),
        ),
        2,
    ):
        say(f"  {number}. {mqi} {command:<16} {what}")
