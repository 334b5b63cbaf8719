"""Where a case stands by the parts of its current step: its state, the reason in one sentence, what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mqi_cli.case import CaseState, PartState
from mqi_cli.store.records import PartRow


@dataclass(frozen=True)
class Standing:
    """What the parts of a step make of their case. `by` is the part that gives the reason."""

    state: CaseState
    reason: str
    hint: str
    by: PartRow


def counted(parts: Sequence[PartRow]) -> list[PartRow]:
    """Return the parts of a step that fans out, in their order; while there are none yet, the plan that lists them."""
    listed = [each for each in parts if not each.plan] or parts
    return sorted(listed, key=lambda each: (len(each.part), each.part))


def standing(parts: Sequence[PartRow], *, cancelling: bool = False) -> Standing | None:
    """Return what a step's parts, each by its newest attempt, make of their case; None when all of them are done.

    While any of them goes on, so does the case: it is held once those that failed or were cancelled are all that is left.
    """
    known = counted(parts)
    at_work = [each for each in known if is_at_work(each)]
    waiting = [each for each in known if each.state is PartState.WAITING and each.waiting_for != "turn"]
    failed = [each for each in known if each.state is PartState.FAILED]
    cancelled = [each for each in known if each.state is PartState.CANCELLED]
    stopped = [*failed, *cancelled]
    for state, those in ((CaseState.RUNNING, at_work), (CaseState.WAITING, waiting), (CaseState.HELD, stopped)):
        if those:
            first = those[0]
            reason = first.reason if not first.part else _tally(known, at_work, waiting, failed, cancelled)
            before = "cancelling: " if cancelling and state is CaseState.RUNNING else ""
            hint = "" if state is CaseState.RUNNING else first.hint
            return Standing(state, before + reason, hint, first)
    return None


def is_at_work(part: PartRow) -> bool:
    """Whether a part is in a worker's hands, on its way there, or runs on its host."""
    return part.state in (PartState.QUEUED, PartState.WORKING) or part.waiting_for == "turn"


def _tally(
    parts: Sequence[PartRow],
    at_work: Sequence[PartRow],
    waiting: Sequence[PartRow],
    failed: Sequence[PartRow],
    cancelled: Sequence[PartRow],
) -> str:
    done = sum(each.state is PartState.DONE for each in parts)
    words = [f"{done} of {len(parts)} parts done"]
    if at_work:
        words.append(f"{len(at_work)} at work")
    if waiting:
        words.append(f"{len(waiting)} waiting ({waiting[0].reason})")
    if cancelled:
        words.append(f"part {cancelled[0].part}{_and_more(cancelled)} cancelled")
    if failed:
        words.append(f"part {failed[0].part}{_and_more(failed)} failed: {failed[0].reason}")
    return ", ".join(words)


def _and_more(parts: Sequence[PartRow]) -> str:
    return f" and {len(parts) - 1} more" if len(parts) > 1 else ""
