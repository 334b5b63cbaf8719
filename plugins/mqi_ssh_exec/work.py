"""The work directories of earlier steps, as `{step.NAME}` gives them to a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mqi_cli import Earlier, GiveUp, StageContext
from mqi_ssh_exec.for_each import ForEach


@dataclass(frozen=True)
class Work:
    """A directory for `{step.NAME}`, and the links that must be made in it first: for a step that fanned out."""

    path: PurePosixPath
    links: Mapping[str, PurePosixPath] = field(default_factory=dict)


def work_for(ctx: StageContext, name: str) -> Work:
    """Return what an earlier step left for this part: the work directory of the same part, where both fan out alike.

    Of a step that fanned out otherwise it is a directory beside this run's own, which has one entry for each part, named
    by its number. Raises `GiveUp` where the step has not finished.
    """
    done = _finished(ctx, name)
    parts = sorted((each for each in done if each.part), key=lambda each: int(each.part))
    if not parts or (ctx.part and _fans_out_alike(ctx, name)):
        return Work(work_of(ctx, name))
    place = ctx.layout.part(ctx.step, ctx.part) / f".{ctx.attempt}.parts" / name
    return Work(place, {each.part: ctx.layout.work(name, each.part, each.attempt) for each in parts})


def work_of(ctx: StageContext, name: str) -> PurePosixPath:
    """Return the work directory of an earlier step's finished attempt: of the same part, or of a step without parts."""
    best = next((each for part in (ctx.part, "") for each in _finished(ctx, name) if each.part == part), None)
    if best is None:
        raise _unfinished(ctx, name)
    return ctx.layout.work(best.step, best.part, best.attempt)


def _finished(ctx: StageContext, name: str) -> Sequence[Earlier]:
    done = [each for each in ctx.earlier if each.step == name]
    if not done:
        raise _unfinished(ctx, name)
    parts = [each for each in done if each.part]
    return parts or done  # beside parts, the one without a name is the plan that listed them


def _unfinished(ctx: StageContext, name: str) -> GiveUp:
    return GiveUp(
        f"step {name} has not finished for this case, and the command needs its work directory",
        hint=f"mqi case rerun {ctx.layout.key}",
    )


def _fans_out_alike(ctx: StageContext, name: str) -> bool:
    step = ctx.workflow.step(name)
    theirs: ForEach | None = getattr(step.options, "for_each", None) if step else None
    ours: ForEach | None = ctx.options.for_each
    return ours is not None and ours == theirs
