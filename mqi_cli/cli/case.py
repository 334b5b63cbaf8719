"""`mqi case`: list, show and steer cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import CaseText, CaseTexts, DryRun, Format, Json, Yes, complete_case, confirmed, named_cases

if TYPE_CHECKING:
    from mqi_cli.cli.operator import Operator
    from mqi_cli.store.records import CaseRow

app = command_group("List, show and steer cases.")


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option("--state", "-s", help="Only these states (repeatable).")] = None,
    source: Annotated[str, typer.Option(help="Only cases of this source.")] = "",
    since: Annotated[str, typer.Option("--since", "-S", help="Only what changed within this time: 2h, 7d.")] = "",
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that ended more than a day ago.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-l", help="At most so many, the newest.")] = 100,
    json: Json = False,
    format: Format = "table",
) -> None:
    """List cases, the newest first, with their state, step and reason."""
    from mqi_cli.cli import case_views
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import show

    operator = Operator.open(light=True)
    rows = case_views.listing(operator, states=state or [], source=source, since=since, everything=all_, limit=limit)
    empty = "no cases yet: mqi case add DIRECTORY, or mqi scan" if not state else "no such cases"
    show(rows, case_views.LIST_COLUMNS, json=json, format=format, empty=empty)


@app.command()
def show(case: CaseText, json: Json = False) -> None:
    """Show a case: where it stands, every attempt of every step, what they reported."""
    from mqi_cli.cli import case_views
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import dump, say

    operator = Operator.open(light=True)
    row = operator.row(case)
    data = case_views.details(operator, row)
    dump(data) if json else say(case_views.details_text(data))


@app.command()
def why(case: CaseText, json: Json = False) -> None:
    """Say in one sentence why a case stands where it does, and what you can do."""
    from mqi_cli.cli import case_views
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import dump, say

    operator = Operator.open(light=True)
    row = operator.row(case)
    sentence, hint = case_views.why(operator, row)
    words = case_views.last_words(operator, row)
    if json:
        dump({"key": row.key, "name": row.name, "state": row.state, "why": sentence, "hint": hint, "log": words})
        return
    say(sentence)
    for each in words:
        say(f"  | {each}")
    if hint:
        say(f"  -> {hint}")


@app.command()
def log(
    case: CaseText,
    limit: Annotated[int, typer.Option("--limit", "-l", help="Only the newest so many.")] = 0,
    detail: Annotated[bool, typer.Option("--detail", help="With tracebacks.")] = False,
    json: Json = False,
    format: Format = "table",
) -> None:
    """Show what happened to a case, in order."""
    from mqi_cli.cli import case_views
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say
    from mqi_cli.cli.output import show as show_rows

    operator = Operator.open(light=True)
    row = operator.row(case)
    rows = case_views.log_rows(operator, row, limit=limit)
    show_rows(rows, case_views.LOG_COLUMNS, json=json, format=format, empty="nothing is recorded of it")
    if detail and not json:
        for each in rows:
            if each["detail"]:
                say(f"\n{each['time']} {each['text']}\n{each['detail']}")


@app.command()
def add(
    directories: Annotated[list[Path], typer.Argument(metavar="DIRECTORY...", help="Case directories.")],
    workflow: Annotated[
        str, typer.Option("--workflow", "-w", help="What is done with it, where no source says so.")
    ] = "",
    json: Json = False,
) -> None:
    """Take directories in as cases. Below a source its own rule decides when they are complete."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import dump, say

    operator = Operator.open()
    rows = [operator.add(each, workflow=workflow) for each in directories]
    if json:
        dump([{"key": row.key, "name": row.name, "state": row.state, "reason": row.reason} for row in rows])
        return
    for row in rows:
        reason = f": {row.reason}" if row.reason else ""
        say(f"{row.key}  {row.name}  {row.state}{reason}")


@app.command()
def retry(
    cases: CaseTexts,
    step: Annotated[str, typer.Option("--step", help="Only if the case stands at this step.")] = "",
    part: Annotated[str, typer.Option("--part", "-p", help="Only this part of a step that fans out.")] = "",
) -> None:
    """Go on from the failed step, of several parts with those that failed; for a case that waits for its next try: now."""
    _each(cases, lambda operator, row: operator.acts.retry(row.id, step=step, part=part))


@app.command()
def rerun(cases: CaseTexts, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Begin again from the first step, whatever was reached."""
    _each(
        cases,
        lambda operator, row: operator.acts.rerun(row.id),
        question="Run {} from the start?",
        yes=yes,
        dry_run=dry_run,
    )


@app.command()
def pause(cases: CaseTexts) -> None:
    """Begin nothing new for these cases; what runs goes on to its end."""
    _each(cases, lambda operator, row: operator.acts.pause(row.id))


@app.command()
def resume(cases: CaseTexts) -> None:
    """Take paused cases into work again."""
    _each(cases, lambda operator, row: operator.acts.resume(row.id))


@app.command()
def cancel(
    cases: CaseTexts,
    part: Annotated[str, typer.Option("--part", "-p", help="Only this part of a step that fans out.")] = "",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Cancel cases; what runs on a host is ended first."""
    what = f"Cancel part {part} of {{}}?" if part else "Cancel {}?"
    _each(cases, lambda operator, row: operator.acts.cancel(row.id, part=part), question=what, yes=yes, dry_run=dry_run)


@app.command()
def priority(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case.", autocompletion=complete_case)],
    value: Annotated[int, typer.Argument(min=-100, max=100, help="Higher goes first. 0 is usual.")],
) -> None:
    """Let a case go before others, or after them, where they wait for one thing."""
    _each([case], lambda operator, row: operator.acts.set_priority(row.id, value))


def _each(
    texts: list[str],
    act: Callable[[Operator, CaseRow], Any],
    *,
    question: str = "",
    yes: bool = True,
    dry_run: bool = False,
) -> None:
    """Find every case before the first is touched, ask once, act on each; the first refusal ends with its error."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say

    operator = Operator.open()
    rows = [operator.row(text) for text in named_cases(texts)]
    if dry_run:
        for row in rows:
            say(f"would act on {row.key}  {row.name}  ({row.state}{', step ' + row.step if row.step else ''})")
        return
    what = f"{rows[0].name} ({rows[0].key})" if len(rows) == 1 else f"{len(rows)} cases"
    if question and not confirmed(question.format(what), yes=yes):
        say("nothing was done")
        return
    for row in rows:
        say(f"{row.key}  {row.name}: {act(operator, row)}")
