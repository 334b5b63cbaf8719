"""`mqi`: the root command, its lazy groups, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import copy
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mqi_cli import __version__
from mqi_cli.cli.output import tell_more
from mqi_cli.errors import EXIT_BUG, ConfigError, MqiError
from mqi_cli.invocation import Invocation, options, set_options

__all__ = ["app", "main", "options"]

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

# name -> module below mqi_cli.cli, and the line that `mqi --help` shows; the module is imported when the command is called
CORE_COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Run the whole pipeline on sample cases, then clean up."),
    "init": ("init", "Write a first config and say what to do next."),
    "doctor": ("doctor", "Check everything that mqi needs, and say what mends it."),
    "status": ("status", "Show on one screen whether all is well, and what is not."),
    "watch": ("watch", "Watch cases, hosts and workers live."),
    "case": ("case", "List, show and steer cases."),
    "daemon": ("daemon", "Start, stop and look after the daemon."),
    "worker": ("worker", "Run one worker in the foreground."),
    "dead": ("dead", "Look at messages that were refused, and replay them."),
    "config": ("config", "Check, show and begin the config."),
    "plugin": ("plugin", "List, begin and test plugins."),
    "db": ("db", "Check, back up and restore the state database."),
}
HIDDEN_COMMANDS = {"conductor": "conductor"}


class LazyGroup(TyperGroup):
    """Lists commands without importing them, and imports the one that is called; plugins only where none of ours fits."""

    _plugin_commands: dict[str, Any] | None = None

    def list_commands(self, ctx: Any) -> list[str]:
        """Name every command: the core's, then the plugins'."""
        return [*CORE_COMMANDS, *sorted(self._from_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what `--help` needs of a command; `resolve_command` returns the command itself."""
        if cmd_name in CORE_COMMANDS:
            return TyperCommand(cmd_name, help=CORE_COMMANDS[cmd_name][1])
        if cmd_name in HIDDEN_COMMANDS:
            return _load(HIDDEN_COMMANDS[cmd_name], cmd_name)
        return self._from_plugins().get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in CORE_COMMANDS:
            command = _load(CORE_COMMANDS[name][0], name, wanted=rest[0] if rest else "")
        return name, command, rest

    def _from_plugins(self) -> dict[str, Any]:
        if self._plugin_commands is None:
            from mqi_cli.cli.plugin_commands import plugin_commands

            self._plugin_commands = plugin_commands(taken=[*CORE_COMMANDS, *HIDDEN_COMMANDS])
        return self._plugin_commands


def _load(module: str, name: str, *, wanted: str = "") -> Any:
    """Import a command. Of a group only the subcommand `wanted` is built where it is one: each costs as much as an import."""
    sub = importlib.import_module(f"mqi_cli.cli.{module}").app
    only = [each for each in sub.registered_commands if wanted and wanted == _name(each)]
    if only and len(sub.registered_commands) > 1:
        sub = copy.copy(sub)
        sub.registered_commands = only
        command: Any = typer.main.get_group(sub)
    else:
        command = typer.main.get_command(sub)
    command.name = name
    return command


def _name(command: Any) -> str:
    return command.name or typer.main.get_command_name(command.callback.__name__)


app = typer.Typer(
    cls=LazyGroup,
    name="mqi",
    help="Takes a directory of files from 'it just appeared' to 'computed, checked, fetched, filed', unattended.",
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mqi {__version__}")
        raise typer.Exit


@app.callback()
def root(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The config file. Default: $MQI_CONFIG, ./mqi.yaml, the user's, the system's."
        ),
    ] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Tell more on stderr; twice: still more.")
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    set_options(Invocation(config=config, verbose=verbose))
    tell_more(verbose)


def main() -> None:
    """Run `mqi`: a known error is one line, what to do, and its exit code; anything else is a bug with its traceback."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # what is followed through a pipe must not wait until 8 kB are together
        sys.stdout.reconfigure(line_buffering=True)
    try:
        app()
    except MqiError as error:
        report(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else the interpreter complains once more at exit
        sys.exit(141)
    except KeyboardInterrupt:
        sys.stderr.write("\nmqi: stopped\n")
        sys.exit(130)
    except Exception:  # noqa: BLE001  whatever it is, it is ours: the traceback is what mends it
        import traceback

        traceback.print_exc()
        sys.stderr.write(f"\nmqi {__version__}: this is a bug in mqi. Please report the lines above.\n")
        sys.exit(EXIT_BUG)


def call(arguments: Sequence[str]) -> None:
    """Run `mqi` with these arguments in place of this process's own. Raises `SystemExit` where it does not end well."""
    sys.argv = [sys.argv[0], *arguments]
    main()


def report(error: MqiError) -> None:
    """Print a known error: what, and what to do."""
    from mqi_cli.cli.output import complain

    if os.environ.get("MQI_DEBUG"):
        import traceback

        traceback.print_exception(error)
    complain(f"mqi: {error.message}")
    if isinstance(error, ConfigError):
        for problem in error.problems:
            complain(f"  {problem}")
    if error.hint:
        complain(f"  -> {error.hint}")
