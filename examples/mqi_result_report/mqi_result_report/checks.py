"""What `mqi doctor` is told: can the places for pages and ledgers be written?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mqi_cli import Check, CheckContext, Verdict
from mqi_result_report.options import ReportOptions


def check_places(ctx: CheckContext) -> Sequence[Check]:
    """Return one line for each place that a workflow's report step writes to."""
    return [_check(place) for place in sorted(set(_places(ctx)))]


def _places(ctx: CheckContext) -> Iterator[Path]:
    for workflow in ctx.workflows.values():
        for step in workflow.steps:
            if isinstance(step.options, ReportOptions):
                yield fixed_part(step.options.to)
                if step.options.ledger:
                    yield step.options.ledger.parent


def fixed_part(template: Path) -> Path:
    """Return the directory that all of a template's paths have in common."""
    return next((each for each in template.parents if "{" not in str(each)), Path("/"))


def _check(place: Path) -> Check:
    nearest = next(each for each in (place, *place.parents) if each.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check("reports", Verdict.OK, f"{place} can be written")
    return Check(
        "reports", Verdict.FAIL, f"{place} can't be written by this user", f"give it write access to {nearest}"
    )
