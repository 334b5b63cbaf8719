"""What `mqi doctor` says about archives and backups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mqi_archiver.place import root_of
from mqi_cli import Check, CheckContext, Verdict

LOW = 5.0  # percent of the disk
LOW_BYTES = 5_000_000_000


def checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at every directory that archives and backups go to: is it there, may mqi write, is there room?"""
    found: list[Check] = []
    roots: set[Path] = set()
    for workflow in ctx.workflows.values():
        for step in workflow.steps:
            if step.stage.name != "archive" or step.stage.lane != "archiver":
                continue
            to = getattr(step.options, "to", None) or ctx.config.directory
            if to is None:
                mend = "set `archive: {to: …}` or `archiver: {directory: …}`"
                text = f"step {step.name} of workflow {workflow.name} doesn't say where archives go"
                found.append(Check("archives", Verdict.FAIL, text, mend))
            else:
                roots.add(root_of(to))
    for root in sorted(roots):
        found.append(_directory("archives", root))
        inside = [each.name for each in ctx.sources if root.resolve().is_relative_to(each.path.resolve())]
        if inside:
            text = f"{root} lies inside source {inside[0]}, where mqi writes nothing"
            found.append(Check("archives", Verdict.FAIL, text, "name a directory outside of every source"))
    if ctx.config.backup is not None:
        found.append(_directory("backup", ctx.config.backup.directory))
    else:
        mend = "set `archiver: {backup: {directory: /another/disk}}`, or call `mqi db backup` by timer"
        found.append(Check("backup", Verdict.WARN, "no copies of the state database are made", mend))
    return found


def _directory(name: str, directory: Path) -> Check:
    there = next(each for each in (directory, *directory.parents) if each.exists())
    if not there.is_dir():
        return Check(name, Verdict.FAIL, f"{there} is not a directory", "name another directory")
    if not os.access(there, os.W_OK | os.X_OK):
        mend = f"sudo install -d -o {os.environ.get('USER', 'mqi')} {directory}"
        return Check(name, Verdict.FAIL, f"mqi may not write in {there}", mend)
    usage = shutil.disk_usage(there)
    room = f"{usage.free / 1e9:.1f} GB free"
    if usage.free < min(LOW_BYTES, usage.total * LOW / 100):
        return Check(name, Verdict.WARN, f"{directory}: only {room}", "make room, or set `archiver: {retention: …}`")
    note = "" if there == directory else ", made when it is first used"
    return Check(name, Verdict.OK, f"{directory}: {room}{note}")
