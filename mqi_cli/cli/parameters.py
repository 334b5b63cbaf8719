"""Arguments and options that many commands share, so that they read and complete alike everywhere."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mqi_cli.errors import MqiError, UsageError


def complete_case(incomplete: str) -> list[str]:
    """Complete a case's name from the state database; silently nothing where there is none."""
    from mqi_cli.cli.operator import Operator

    try:
        operator = Operator.open(light=True)
        if not operator.state_path.exists():
            return []
        return [name for name in operator.store.cases.names_beginning(incomplete) if name.isprintable()]
    except MqiError:
        return []


CaseText = Annotated[
    str,
    typer.Argument(
        metavar="CASE",
        help="A case: its name, its key, a unique prefix of either, or its directory.",
        autocompletion=complete_case,
    ),
]
CaseTexts = Annotated[
    list[str],
    typer.Argument(
        metavar="CASE...",
        help="Cases: names, keys, unique prefixes, directories; - reads them from stdin.",
        autocompletion=complete_case,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Annotated[
    str, typer.Option("--format", help="How lists are printed: table, plain, simple, github, tsv, html, …")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would happen.")]


def named_cases(texts: list[str]) -> list[str]:
    """Return the cases that were named, with `-` replaced by the lines of stdin."""
    named: list[str] = []
    for text in texts:
        named += [line.strip() for line in sys.stdin if line.strip()] if text == "-" else [text]
    if not named:
        raise UsageError("no case was named on stdin")
    return named


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask before something is destroyed. Without a terminal to ask on, `--yes` must be given."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on", hint="give --yes")
    return typer.confirm(question)
