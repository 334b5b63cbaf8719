"""The stage `report`: reads a case's results, and writes its page and its line in the ledger."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mqi_cli import (
    CaseRef,
    Done,
    GiveUp,
    Manifest,
    ManifestFile,
    RetryLater,
    Stage,
    StageContext,
    Unfit,
    Wait,
    describe_os_error,
    hash_file,
    local_path,
    survey,
)
from mqi_result_report.options import ReportOptions, check_report, results_template
from mqi_result_report.page import page, with_line


def run(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Write the case's page. May be called again at any time: it writes the same page and the same line once more.

    No message names a case or a file, which may hold a patient's name.
    """
    index = next(number for number, step in enumerate(ctx.workflow.steps) if step.name == ctx.step)
    directory = local_path(results_template(ctx.workflow.steps, index), case, part=ctx.part)
    try:
        results = _read(directory, ctx)
        if results is None:
            return Wait(0, "stopped while reading the results")
        text = page(case, site=ctx.config.site, earlier=ctx.earlier, results=results)
        target = local_path(ctx.options.to, case, part=ctx.part)
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text, ctx.fence)
        if ctx.options.ledger:
            _note_in_ledger(ctx.options.ledger, case, results, ctx.fence)
        return Done({"files": len(results.files), "bytes": results.size, "page": hash_file(target)})
    except Unfit as error:
        raise GiveUp(f"the results can't be reported: {error.reason}", hint="look at the results directory") from error
    except OSError as error:
        raise RetryLater(f"the report can't be written: {describe_os_error(error)}") from error


def _read(directory: Path, ctx: StageContext) -> Manifest | None:
    """Hash every result; None when the worker is asked to end meanwhile."""
    if not directory.is_dir():
        raise GiveUp("the results are not there", hint="put the step after the one that fetches them, or set `results`")
    entries = [entry for entry in survey(directory) if not entry.is_dir]
    if not entries:
        raise GiveUp("there is not a single result", hint="look at the run's log and at what was fetched")
    total = sum(entry.size for entry in entries)
    files: list[ManifestFile] = []
    done = 0
    for entry in entries:
        if ctx.stopping():
            return None
        ctx.progress(done, total, "B", detail=entry.path)
        files.append(ManifestFile(entry.path, entry.size, hash_file(directory / entry.path)))
        done += entry.size
    ctx.progress(total, total, "B")
    return Manifest(tuple(files))


def _note_in_ledger(ledger: Path, case: CaseRef, results: Manifest, fence: str) -> None:
    ledger.parent.mkdir(parents=True, exist_ok=True)
    # Two workers may report two cases at once: the lock keeps one from writing back what the other has just replaced.
    with ledger.with_name(f".{ledger.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        _replace(ledger, with_line(before, case, results), fence)


def _replace(target: Path, text: str, fence: str) -> None:
    """Let a file appear whole or not at all. `fence` differs for each call of the stage, so no other writes there."""
    temporary = target.with_name(f".{target.name}.{fence}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


STAGE = Stage(
    "report",
    run,
    lane="report",
    options=ReportOptions,
    summary="writes a page about a case's results",
    check=check_report,
)
