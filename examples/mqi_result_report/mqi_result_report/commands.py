"""`mqi report …`: the plugin's own commands."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Pages about results.", no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command()
def write(
    case: Annotated[str, typer.Argument(help="The case's name, key, or the unique beginning of either.")],
    step: Annotated[str, typer.Option(help="Which report step, where the workflow has several.")] = "",
) -> None:
    """Write a case's page now, as the daemon does when it comes to the step."""
    from mqi_cli import Operator, say

    facts = Operator.open().perform("report", case, step=step)
    say(f"reported: {facts['files']} results, {facts['bytes']} bytes")


@app.command("list")
def list_reports(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    format: Annotated[str, typer.Option("--format", help="table, plain, github, tsv, html, …")] = "table",
) -> None:
    """List the cases that have a page."""
    from mqi_cli import Column, Operator, show

    operator = Operator.open()
    rows = []
    for case in operator.cases():
        workflow = operator.config.workflows.get(case.workflow)
        names = {step.name for step in workflow.steps if step.stage.name == "report"} if workflow else set()
        for (step, part), facts in case.facts.items():
            if step in names:
                rows.append({"key": case.key, "name": case.name, "part": part, **facts})
    columns = [Column("key", "KEY"), Column("name", "NAME"), Column("files", "FILES", "right")]
    columns.append(Column("bytes", "BYTES", "right"))
    show(rows, columns, json=json, format=format, empty="No case has a page yet.")
