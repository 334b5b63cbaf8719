"""How a group of commands is made: the same everywhere, so that `-h` and errors look the same everywhere."""

from __future__ import annotations

from typing import Any

import typer


def command_group(help: str, **settings: Any) -> typer.Typer:
    """Return a Typer app for a group of commands below `mqi`."""
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def single_command() -> typer.Typer:
    """Return a Typer app for a command that stands directly below `mqi`."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
