"""The command line `mqi exec …`. Thin; what the commands do is in `watching.py` and in the stage itself."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

exec_app = typer.Typer(
    help="Start a run by hand, look at it, read its log, end it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

_Case = Annotated[
    str, typer.Argument(metavar="CASE", help="A case: its name, its key, a unique prefix of either, or its directory.")
]
_Step = Annotated[str, typer.Argument(metavar="STEP", help="Which run step; needed where the case has had several.")]
_Part = Annotated[str, typer.Option("--part", "-p", help="Which part of a step that fans out, by its number.")]
_Attempt = Annotated[int | None, typer.Option("--attempt", min=1, help="An earlier attempt. Default: the newest.")]


@exec_app.command("run")
def exec_run(
    case: _Case,
    step: Annotated[str, typer.Option("--step", help="Which run step, where there are several.")] = "",
    part: _Part = "",
) -> None:
    """Run a step in the foreground. Interrupted, the run goes on; the same command takes it up again.

    Of a step that fans out, the parts that are not done run one after the other.
    """
    from mqi_cli import Operator, say
    from mqi_ssh_exec.verdict import span

    facts = Operator.open().perform("run", case, step=step, part=part)
    if "parts" in facts:
        say(f"exit code 0 of {facts['parts']} part{'s' if facts['parts'] > 1 else ''}")
        return
    count = facts.get("outputs")
    outputs = "" if count is None else f", {count} output file{'' if count == 1 else 's'}"
    say(f"exit code 0 after {span(facts['seconds'])}{outputs}")


@exec_app.command("status")
def exec_status(
    case: _Case,
    step: _Step = "",
    part: _Part = "",
    attempt: _Attempt = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    format: Annotated[str, typer.Option("--format", help="table, plain, github, tsv, html, …")] = "table",
) -> None:
    """Show how a run stands on its host: state, process, machine, time, memory, exit code; each part of a step by itself."""
    from mqi_cli import Operator
    from mqi_ssh_exec.watching import show_status

    show_status(Operator.open(), case, step=step, part=part, attempt=attempt, json=json, format=format)


@exec_app.command("logs")
def exec_logs(
    case: _Case,
    step: _Step = "",
    part: _Part = "",
    attempt: _Attempt = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines; 0 for all.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run is over.")] = False,
) -> None:
    """Print what a run has written. Control characters are shown, not obeyed."""
    from mqi_cli import Operator
    from mqi_ssh_exec.log_view import print_log

    print_log(Operator.open(), case, step=step, part=part, attempt=attempt, lines=lines, follow=follow)


@exec_app.command("kill")
def exec_kill(
    case: _Case,
    step: _Step = "",
    part: _Part = "",
    gone: Annotated[
        bool, typer.Option("--gone", help="The machine it was started on is no more: take my word that it ended.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End a run with all that it started; without --part, the runs of all parts, and no further part begins.

    The case is then held: `mqi case retry` goes on with it, `mqi case cancel` ends it as well. With --part the other parts
    go on first.
    """
    from mqi_cli import Clock, Operator, UsageError
    from mqi_ssh_exec.watching import kill

    def confirmed(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(f"{question} There is no terminal to ask on", hint="give --yes")
        return typer.confirm(question)

    kill(Operator.open(), case, step=step, part=part, gone=gone, confirmed=confirmed, elapsed=Clock().elapsed)
