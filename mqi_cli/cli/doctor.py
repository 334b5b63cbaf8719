"""`mqi doctor`: a line for each thing that mqi needs, and the command that mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mqi_cli.check import Check

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None)

_GLYPHS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@app.command()
def doctor(
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Of the hosts, look at this one only.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check everything that mqi needs, and say what mends it. Exit code 1 when something fails."""
    from mqi_cli.cli.output import dump, say

    found: list[Check] = []
    said: set[tuple[str, str]] = set()
    for check in _checks(host):
        found.append(check)
        if not json:
            _print(check, again=(check.text, check.mend) in said)  # at once: the next one may take its time
            said.add((check.text, check.mend))
    count = Counter(str(check.verdict) for check in found)
    if json:
        dump([{"name": c.name, "verdict": str(c.verdict), "text": c.text, "mend": c.mend} for c in found])
    else:
        say(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed")
    if count["fail"]:
        raise typer.Exit(1)


def _checks(host: str) -> Iterator[Check]:
    from mqi_cli.check import Check, Verdict
    from mqi_cli.cli.operator import Operator
    from mqi_cli.doctor import each_check
    from mqi_cli.errors import ConfigError, PluginError

    try:
        operator = Operator.open()
        plugins = operator.plugins
    except ConfigError as error:  # without a config there is nothing else to look at
        yield Check("config", Verdict.FAIL, error.message, error.hint)
        for problem in error.problems:
            yield Check("config", Verdict.FAIL, problem)
        return
    except PluginError as error:
        yield Check("plugins", Verdict.FAIL, error.message, error.hint)
        return
    yield from each_check(operator.config, plugins, host=host)


def _print(check: Check, *, again: bool) -> None:
    """Print a check's line, and what mends it, but for what was said already: one cause can fail several checks."""
    from mqi_cli.cli.output import say

    glyph, colour = _GLYPHS[str(check.verdict)]
    typer.secho(f"{glyph} {check.verdict:<4} ", fg=colour, nl=False)  # colours on a terminal only
    say(f"{check.name}: {check.text}")
    if check.mend and not again:
        say(f"       → {check.mend}")
