"""`mqi plugin`: list the plugins, begin a new one, test one against the contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import Format, Json
from mqi_cli.errors import EXIT_PLUGIN

if TYPE_CHECKING:
    from mqi_cli.plugins import Plugins

app = command_group("List, begin and test plugins.")


@app.command("list")
def list_plugins(json: Json = False, format: Format = "table") -> None:
    """List the installed plugins: state, version, hooks, and what each brings."""
    from mqi_cli.cli.output import Column, complain, show

    plugins = _plugins()
    brings = {each.name: plugins.brings(each.name) for each in plugins.found}
    rows = [
        {
            "name": each.name,
            "version": each.version,
            "state": each.state,
            "distribution": each.distribution,
            "module": each.module,
            "hooks": list(each.hooks),
            "brings": brings[each.name] if json else "; ".join(_brought(brings[each.name])),
            "problem": each.problem,
        }
        for each in plugins.found
    ]
    columns = [
        Column("name", "NAME"),
        Column("version", "VERSION"),
        Column("state", "STATE"),
        Column("distribution", "FROM"),
        Column("hooks", "HOOKS"),
        Column("brings", "BRINGS"),
    ]
    show(rows, columns, json=json, format=format, empty="no plugin is installed")
    for each in plugins.broken:
        complain(f"mqi: plugin {each.name} is left out: {each.problem}")
        complain(f"  -> {each.hint}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name: a-z 0-9 _ -")],
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to write it. Default: ./mqi-NAME")
    ] = None,
) -> None:
    """Write a complete plugin to begin from: a stage, a command, a check, a test, ready for pip install -e."""
    from mqi_cli.cli.output import say
    from mqi_cli.config.model import CoreSections
    from mqi_cli.plugins import CORE
    from mqi_cli.scaffold import write_plugin

    plugins, where = _plugins(), directory or Path(f"mqi-{name}")
    owners = [CORE, *(each.name for each in plugins.found)]
    taken = {*owners, *CoreSections.model_fields}.union(
        *(names for each in owners for names in plugins.brings(each).values())
    )
    for file in write_plugin(name, where, taken=taken):
        say(f"wrote {file}")
    say(f"next: pip install -e {where}; mqi plugin test {where}; mqi plugin list")


@app.command()
def test(
    target: Annotated[
        str, typer.Argument(metavar="MODULE_OR_DIR", help="An importable module, or a directory with pyproject.toml.")
    ],
    json: Json = False,
) -> None:
    """Check a plugin against the contract: it loads, its names are free, its models and functions fit; 4 if not."""
    from mqi_cli.cli.output import dump, say
    from mqi_cli.plugin_trial import try_plugin

    findings = try_plugin(target, taken=_core_commands())
    if json:
        dump([{"ok": each.ok, "text": each.text, "mend": each.mend} for each in findings])
    else:
        for each in findings:
            say(f"{'ok  ' if each.ok else 'fail'}  {each.text}")
            if each.mend:
                say(f"      -> {each.mend}")
    if not all(each.ok for each in findings):
        raise typer.Exit(EXIT_PLUGIN)


def _plugins() -> Plugins:
    """Load the plugins and ask each for all that it brings."""
    from mqi_cli.config.find import disabled_plugins, find_config
    from mqi_cli.invocation import options
    from mqi_cli.plugins import load_plugins

    plugins = load_plugins(disabled_plugins(find_config(options().config)))
    plugins.add_commands(typer.Typer(), taken=_core_commands())
    return plugins


def _core_commands() -> list[str]:
    from mqi_cli.cli.main import CORE_COMMANDS, HIDDEN_COMMANDS

    return [*CORE_COMMANDS, *HIDDEN_COMMANDS]


def _brought(brings: dict[str, list[str]]) -> list[str]:
    return [f"{kind} {', '.join(names)}" for kind, names in sorted(brings.items())]
