"""`mqi config`: check, show and begin the config, and give its schema to editors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import Format, Json
from mqi_cli.errors import EXIT_CONFIG, ConfigError, UsageError

if TYPE_CHECKING:
    from mqi_cli.config.loaded import Config
    from mqi_cli.plugins import Plugins

app = command_group("Check, show and begin the config.")


@app.command()
def check(json: Json = False) -> None:
    """Tell every problem of the config at once; exit code 3 when there is one."""
    from mqi_cli.cli.output import complain, dump, say

    try:
        config, plugins = _load()
    except ConfigError as error:
        if not json:
            raise
        dump({"ok": False, "problems": list(error.problems) or [error.message], "warnings": []})
        raise typer.Exit(EXIT_CONFIG) from error
    warnings = [*config.warnings, *(f"plugin {each.name} is left out: {each.problem}" for each in plugins.broken)]
    if json:
        dump({"ok": True, "file": config.file, "problems": [], "warnings": warnings})
        return
    for warning in warnings:
        complain(f"warn: {warning}")
    say(f"ok: {_summary(config, plugins)}")
    if config.file is None:
        say("there is no config file, so everything is default; mqi config init writes one")


@app.command()
def show(
    section: Annotated[str, typer.Argument(help="Only keys that begin like this, as in hosts.hpc.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Also keys that are left out and have no default.")] = False,
    json: Json = False,
    format: Format = "table",
) -> None:
    """Show every value and where it came from: file and line, ${VARIABLE}, a secret's file, or the default."""
    from mqi_cli.cli.output import Column
    from mqi_cli.cli.output import show as show_list
    from mqi_cli.config.shown import settings

    config, _ = _load()
    rows = [
        {"key": each.key, "value": each.value, "origin": each.origin}
        for each in settings(config)
        if (every or json or each.is_set) and _begins(each.key, section)
    ]
    if section and not rows:
        raise UsageError(f"no key of the config begins with {section}", hint="mqi config show --all")
    columns = [Column("key", "KEY"), Column("value", "VALUE"), Column("origin", "FROM")]
    show_list(rows, columns, json=json, format=format)


@app.command()
def schema() -> None:
    """Print the config's JSON Schema, with what the installed plugins bring, for editors that check YAML."""
    from mqi_cli.cli.output import dump
    from mqi_cli.config.schema import json_schema

    dump(json_schema(_plugins()))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("mqi.yaml"),
    source: Annotated[
        str, typer.Option(help="The directory to watch; made when it is not there. Relative to the file.")
    ] = "incoming",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a first config that works as it is, with every other key in it behind a #."""
    from mqi_cli.cli.first_config import write_first_config
    from mqi_cli.cli.output import say

    path = path / "mqi.yaml" if path.is_dir() else path
    watched = write_first_config(_plugins(), path, source=source, force=force)
    say(f"wrote {path}; it watches {watched}")
    say(f"next: mqi --config {path} config check" if path != Path("mqi.yaml") else "next: mqi config check")


def _load() -> tuple[Config, Plugins]:
    from mqi_cli.config.find import find_config
    from mqi_cli.config.load import load_config
    from mqi_cli.invocation import options

    file = find_config(options().config)
    plugins = _plugins()
    return load_config(file, plugins), plugins


def _plugins() -> Plugins:
    from mqi_cli.config.find import disabled_plugins, find_config
    from mqi_cli.invocation import options
    from mqi_cli.plugins import load_plugins

    return load_plugins(disabled_plugins(find_config(options().config)))


def _summary(config: Config, plugins: Plugins) -> str:
    counts = {
        "host": len(config.hosts),
        "source": len(config.sources),
        "workflow": len(config.workflows),
        "step": sum(len(each.steps) for each in config.workflows.values()),
        "plugin": Counter(each.state for each in plugins.found)["ok"],
    }
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())


def _begins(key: str, section: str) -> bool:
    return not section or key == section or key.startswith((f"{section}.", f"{section}["))
