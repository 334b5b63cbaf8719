"""Help: everywhere, for everything, on one line where it is listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mqi_cli.cli import main

WIDTH = 80


def tree() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk every command and group, hidden ones too, without the root."""
    root: Any = typer.main.get_command(main.app)
    context = root.make_context("mqi", [], resilient_parsing=True)
    for name in [*root.list_commands(context), *main.HIDDEN_COMMANDS]:
        _, command, _ = root.resolve_command(context, [name])
        yield from below((name,), command)


def below(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from below((*path, name), each)


TREE = dict(tree())


def test_the_tree_holds_what_the_core_and_the_plugins_bring() -> None:
    assert {("case", "list"), ("transfer", "upload"), ("init",), ("scan",), ("gpu", "list")} <= TREE.keys()


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_h_shows_help(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main.app, [*path, "-h"])
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_every_command_option_and_argument_says_what_it_is(path: tuple[str, ...]) -> None:
    command = TREE[path]
    assert command.help, "the command has no help"
    silent = [each.name for each in command.params if not (getattr(each, "help", None) or "").strip()]
    assert not silent


def test_no_line_of_the_root_help_is_cut() -> None:
    shown = CliRunner().invoke(main.app, ["--help"], env={"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH)})
    listed = shown.output.split("Commands:")[1].splitlines()
    assert len(listed) > 15
    assert not [line for line in listed if line.endswith("...")]
