"""Whether what a case's runs left on a host lies elsewhere too, by what the case's finished steps reported. Pure.

A step that takes over what others made notes, in its fact `of`, which attempts of them it has seen: an attempt that
finished later was not taken along, however well that step ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mqi_cli.message import Earlier
from mqi_cli.stage import Step, Workflow

SEEN = "of"  # the fact
DOWNLOAD = "download"  # the stage that fetches results
ARCHIVE = "archive"  # the stage after which nothing on a host is needed any more


@dataclass(frozen=True)
class Finished(Earlier):
    """A finished part with its wall times, by which steps that noted nothing are judged."""

    made_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Unfetched:
    """A run step whose newest results lie on its host alone, and the download that is to fetch them; empty where none is.

    `older`: that download has fetched older ones. `unused_by`: the later run whose results it fetched, which worked on
    older ones.
    """

    step: Step
    download: str = ""
    older: bool = False
    unused_by: str = ""

    def __str__(self) -> str:
        if self.unused_by:
            return f"step {self.step.name} has newer results than those that step {self.unused_by} worked on"
        if self.download and not self.older:
            return f"step {self.download} has not fetched the results of step {self.step.name}"
        if self.download:
            return f"step {self.step.name} has newer results than those that step {self.download} fetched"
        return f"results of step {self.step.name} were never fetched"


def seen_attempts(finished: Iterable[Earlier], steps: Iterable[str]) -> dict[str, str]:
    """Return for each of these steps what changes with every attempt of it that finishes."""
    known: dict[str, list[str]] = {step: [] for step in steps}
    for each in finished:
        if each.step in known:
            known[each.step].append(f"{each.part}/{each.attempt}")
    return {step: hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12] for step, parts in known.items()}


def has_seen_newest(by: Earlier, finished: Sequence[Earlier], step: str) -> bool:
    """Whether a finished part has worked on the newest attempts of an earlier step."""
    seen = by.facts.get(SEEN)
    if isinstance(seen, Mapping) and step in seen:
        return bool(seen[step] == seen_attempts(finished, [step])[step])
    if not isinstance(by, Finished):
        return True
    return all(each.ended_at <= by.made_at for each in finished if isinstance(each, Finished) and each.step == step)


def leaves_results(step: Step) -> bool:
    """Whether a step leaves results on its host: it runs something there, or lets one declare `outputs`."""
    return bool(step.host) and (step.stage.job or "outputs" in type(step.options).model_fields)


def is_for_effect(steps: Sequence[Step], index: int) -> bool:
    """Whether a run is there for its effect, such as to publish something, and leaves nothing that is to be kept.

    Its config says so by `outputs: []`, or by what it fetches from that host: other steps' results alone.
    """
    step = steps[index]
    if getattr(step.options, "outputs", ()) or fetching(steps, index):
        return False
    return "outputs" in step.options.model_fields_set or bool(_origins(steps, step.host))


def fetching(steps: Sequence[Step], index: int) -> list[Step]:
    """Return the downloads after a step that fetch its results, or those of a later run that made its own of them."""
    return [steps[at] for at, origin in _origins(steps, steps[index].host).items() if at > index and origin >= index]


def _origins(steps: Sequence[Step], host: str) -> dict[int, int]:
    """Return for the place of each download from a host the place of the step whose results it fetches."""
    found = {}
    for place, step in enumerate(steps):
        if step.stage.name == DOWNLOAD and step.host == host:
            named = getattr(step.options, "step", "")
            origins = [at for at in range(place) if (steps[at].name == named if named else leaves_results(steps[at]))]
            if origins:
                found[place] = origins[-1]
    return found


def unfetched(workflow: Workflow, finished: Sequence[Earlier], host: str) -> list[Unfetched]:
    """Return the steps that have finished on a host and whose newest results no finished download has fetched.

    A run that is there for its effect alone leaves none.
    """
    return [
        left
        for index, step in enumerate(workflow.steps)
        if step.host == host and leaves_results(step) and any(each.step == step.name for each in finished)
        if not is_for_effect(workflow.steps, index)
        for left in _left(workflow.steps, index, finished)
    ]


def _left(steps: Sequence[Step], index: int, finished: Sequence[Earlier]) -> Iterator[Unfetched]:
    """Tell of a finished step whose newest results were not fetched.

    Several downloads may fetch a part each of what one step left, so each of them counts. Of those that fetch what a
    later run has made of it, one is enough.
    """
    step = steps[index]
    done = {each.step for each in finished}
    filing = next((at for at, each in enumerate(steps) if each.stage.name == ARCHIVE), len(steps))
    origins = {at: origin for at, origin in _origins(steps, step.host).items() if at > index}
    own = [
        steps[at].name for at, origin in origins.items() if origin == index and (steps[at].name in done or at < filing)
    ]
    stale = {each.step for each in finished if not has_seen_newest(each, finished, step.name)}
    fresh = {each.step for each in finished if has_seen_newest(each, finished, step.name)}
    if own:
        if late := [name for name in own if name not in fresh]:
            yield Unfetched(step, late[0], older=late[0] in done)
        return
    later = {
        steps[at].name: steps[origin].name
        for at, origin in origins.items()
        if origin > index and steps[at].name in done
    }
    seen = [name for name in later if name in fresh]
    if not seen:
        yield Unfetched(step, list(later)[-1] if later else "", older=bool(later))
    elif all(later[name] in stale for name in seen):
        yield Unfetched(step, seen[-1], older=True, unused_by=later[seen[-1]])
