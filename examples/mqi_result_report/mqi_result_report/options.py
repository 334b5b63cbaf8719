"""What the operator may write: the section `report` and the options of a step `report`, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from mqi_cli import LocalPath, Section, Step, StepOptions, check_local

_APART = ("{case_name}", "{case_key}")


class ReportSection(Section):
    """Pages about results. Every key has a default: the section may be left out."""

    site: str = Field("", description="Printed at the head of each page.")


class ReportOptions(StepOptions):
    """Options of step `report`."""

    to: LocalPath = Field(description="Where the page goes; {case_name} or {case_key} keeps cases apart.")
    results: LocalPath | None = Field(
        None, description="The directory to read. Default: where the latest step before it that has a `to` put them."
    )
    ledger: LocalPath | None = Field(None, description="A CSV file that gets one line for each case. Default: none.")


def results_template(steps: Sequence[Step], index: int) -> str:
    """Return the path, with its placeholders, that the step at `index` reads; empty where nobody says it."""
    options: ReportOptions = steps[index].options  # type: ignore[assignment]
    if options.results is not None:
        return str(options.results)
    places = [getattr(step.options, "to", None) for step in steps[:index] if step.stage.name != steps[index].stage.name]
    return str(next((place for place in reversed(places) if place), ""))


def check_report(steps: Sequence[Step], index: int, hosts: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that is wrong with a report where it stands in its workflow."""
    del hosts
    options: ReportOptions = steps[index].options  # type: ignore[assignment]
    problems = [f"`to`: {problem}" for problem in check_local(str(options.to))]
    if not any(name in str(options.to) for name in _APART):
        problems.append("`to` needs {case_name} or {case_key}, else each case's page replaces the last one's")
    if options.ledger and "{" in str(options.ledger):
        problems.append("`ledger` is one file for all cases: it takes no placeholders")
    results = results_template(steps, index)
    if not results:
        problems.append("no step before it says where the results are: name the directory in `results`")
    return problems + [f"`results`: {problem}" for problem in check_local(results)]
