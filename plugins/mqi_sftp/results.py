"""Where a download's results come from and go to: the finished attempt of the run step, and the place on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mqi_cli import CaseRef, Earlier, GiveUp, StageContext, Step, Workflow, local_path
from mqi_sftp.options import DownloadOptions, origin_step

_REMEMBERED = 4


@dataclass(frozen=True)
class Origin:
    """The finished attempt whose results are fetched, and the directory on the host that holds them."""

    step: str
    attempt: int
    directory: PurePosixPath


def find_origin(ctx: StageContext) -> Origin:
    """Return where the results lie. Raises `GiveUp` when no attempt of the run step has finished."""
    options: DownloadOptions = ctx.options
    step = _run_step(ctx.workflow, ctx.step)
    finished = _finished(ctx.earlier, step.name, ctx.part) if step else None
    if step is None or finished is None:
        named = step.name if step else options.step or "run"
        raise GiveUp(
            f"there is nothing to fetch: step {named} of this case has not finished",
            hint="mqi case show tells its steps",
        )
    work = ctx.layout.work(step.name, finished.part, finished.attempt)
    return Origin(step.name, finished.attempt, work / options.origin if options.origin else work)


def _run_step(workflow: Workflow, name: str) -> Step | None:
    names = [each.name for each in workflow.steps]
    return origin_step(workflow.steps, names.index(name)) if name in names else None


def _finished(earlier: Sequence[Earlier], step: str, part: str) -> Earlier | None:
    """Return the attempt that finished this part of a step, or its only part."""
    parts = {each.part: each for each in earlier if each.step == step}
    return parts.get(part) or parts.get("")


def find_destination(case: CaseRef, ctx: StageContext) -> Path:
    """Return where the results go. Raises `GiveUp` for a place inside the source, or one that can't be."""
    try:
        path = local_path(ctx.options.to, case, part=ctx.part)
    except ValueError as error:
        raise GiveUp(f"`to` of step {ctx.step} gives no usable path for this case: {error}") from error
    if not path.is_absolute():
        raise GiveUp(f"`to` of step {ctx.step} is not an absolute path", hint="mend it in the config: mqi config check")
    place = path.resolve()
    if place.is_relative_to(source_root(case).resolve()) or case.directory.resolve().is_relative_to(place):
        raise GiveUp(
            f"`to` of step {ctx.step} lies inside the source, or around it: results would be taken for input",
            hint="name another place in the config, then: mqi case retry",
        )
    return path


def source_root(case: CaseRef) -> Path:
    """Return the directory of the case's source, as far as the case tells: its own directory without its name."""
    name = PurePosixPath(case.name).parts
    parts = case.directory.parts
    if name and len(name) < len(parts) and parts[-len(name) :] == name:
        return case.directory.parents[len(name) - 1]
    return case.directory


class Placed:
    """Remembers which results of a case mqi put into place on this machine: only those, unchanged, may it replace."""

    def __init__(self, ctx: StageContext, case: CaseRef) -> None:
        self._file = ctx.data_dir / "placed" / f"{case.key}.{ctx.step}.{ctx.part or '_'}.json"

    def fingerprints(self) -> list[str]:
        """Return the fingerprints of what was put there, oldest first."""
        try:
            found = json.loads(self._file.read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    def add(self, fingerprint: str) -> None:
        """Note what is about to be put there; durable when it returns. The former ones stay: the move may not happen."""
        known = [each for each in self.fingerprints() if each != fingerprint]
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        written = self._file.with_suffix(".new")
        with written.open("w") as stream:
            json.dump([*known, fingerprint][-_REMEMBERED:], stream)
            stream.flush()
            os.fsync(stream.fileno())
        written.rename(self._file)
