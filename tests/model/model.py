"""What a case should be, as plain dicts: the conductor's promises, small enough to be checked by eye.

    case = {"state": "moving", "step": "upload", "parts": {("upload", ""): part, …}, "cancelling": False, "paused": False}
    part = {"attempt": 1, "turn": 1, "state": "asked", "tries": 0, "losses": 0, "cancel": False, "unproven": False,
            "facts": {}}

A case is `moving`, `held`, `done` or `cancelled`. A part is `asked` (a command is out), `working` (accepted), `waits`,
`done`, `failed` or `cancelled`. Whether a part that may go on is asked at once or waits for a GPU, a host or a time is the
dispatcher's affair: the model takes that over, and the machine's invariants look whether the wait has a cause.
"""

from __future__ import annotations

from typing import Any

STEPS = ("upload", "run", "archive")
JOB = "run"  # the only step that leaves something running on a host, and that can be cancelled there
ATTEMPTS = 3
LOSSES = 5  # workers that may die over one attempt
LIVE = ("asked", "working", "waits")

Case = dict[str, Any]
Part = dict[str, Any]
Name = tuple[str, str]


def new_case() -> Case:
    """Return a case that was just accepted."""
    case = {"state": "moving", "step": "", "parts": {}, "cancelling": False, "paused": False, "cases_done": 0}
    begin_step(case, STEPS[0])
    return case


def new_part(attempt: int, *, tries: int = 0, facts: dict[str, Any] | None = None) -> Part:
    """Return a part's attempt that has had no turn."""
    return {
        "attempt": attempt, "turn": 0, "state": "waits", "tries": tries, "losses": 0, "cancel": False,
        "unproven": False, "facts": dict(facts or {}),
    }  # fmt: skip


def begin_step(case: Case, step: str) -> None:
    """Go to a step: a further attempt of each of its parts."""
    former = case["parts"].get((step, ""))
    case["step"], case["state"] = step, "moving"
    case["parts"][step, ""] = new_part(former["attempt"] + 1 if former else 1)


def again(case: Case, name: Name, *, tries: int) -> None:
    """Add the next attempt of a part. What its runs may have left alive is still not proven dead."""
    former = case["parts"][name]
    part = new_part(former["attempt"] + 1, tries=tries, facts=former["facts"])
    part["unproven"] = former["unproven"]
    case["parts"][name], case["state"] = part, "moving"


def counts(case: Case, seen: set[str], event: Any) -> bool:
    """Whether an event may change anything: not seen before, and of the newest turn while that is out."""
    part = case["parts"].get((event.step, event.part))
    if event.kind != "progress" and event.id in seen:
        return False
    return bool(
        part
        and (part["attempt"], part["turn"]) == (event.attempt, event.turn)
        and part["state"] in ("asked", "working")
    )


def apply(case: Case, event: Any) -> None:
    """Change a case as an event that counts must change it."""
    name = (event.step, event.part)
    part, data = case["parts"][name], event.data
    match str(event.kind):
        case "accepted" | "progress":
            part["state"] = "working"
        case "remembered":
            part["facts"] |= data["facts"]
        case "wait":
            part["state"], part["losses"] = "waits", 0
        case "done":
            part["state"], part["unproven"] = "done", False
            part["facts"] |= data["facts"]
            if event.step == STEPS[-1]:
                case["state"] = "done"
                case["cases_done"] += 1
            else:
                begin_step(case, STEPS[STEPS.index(event.step) + 1])
        case "retry":
            _retry(case, name, part, data)
        case "gave_up" if part["cancel"]:
            _fail(case, part)  # it could not be cancelled: its run may live
        case "gave_up":
            part["state"], case["state"] = "failed", "held"
        case "bug":
            _fail(case, part)
        case "cancelled":
            part["state"], part["unproven"] = "cancelled", False
            case["state"], case["cancelling"] = "cancelled", False


def _retry(case: Case, name: Name, part: Part, data: dict[str, Any]) -> None:
    if data["host"]:
        part["state"] = "waits"  # the host is at fault: the same attempt, and no try is used up
    elif part["cancel"]:
        part["state"], part["tries"] = "waits", part["tries"] + 1
    elif part["tries"] + 1 >= ATTEMPTS:
        part["state"], case["state"] = "failed", "held"
    else:
        again(case, name, tries=part["tries"] + 1)


def _fail(case: Case, part: Part) -> None:
    """End an attempt of whose run nothing is known."""
    part["unproven"] = part["unproven"] or (part["turn"] > 0 and part_is_job(case, part))
    part["state"], case["state"], case["cancelling"] = "failed", "held", False


def part_is_job(case: Case, part: Part) -> bool:
    """Whether it is an attempt of the step that leaves something running."""
    return any(each is part and step == JOB for (step, _), each in case["parts"].items())


def may_live(case: Case) -> bool:
    """Whether a run of the case may be alive on its host."""
    part = case["parts"].get((JOB, ""))
    return bool(part and ((part["state"] in LIVE and part["turn"] > 0) or part["unproven"]))


# ---- what an operator asks for, when it was not refused ----


def retried(case: Case) -> None:
    """Go on from the failed step."""
    if case["state"] not in ("held", "cancelled"):
        return  # the next try, at once
    name = (case["step"], "")
    if case["parts"][name]["state"] in ("failed", "cancelled"):
        again(case, name, tries=0)


def rerun(case: Case) -> None:
    """Begin again."""
    for part in case["parts"].values():
        if part["state"] in LIVE:
            part["state"] = "cancelled"
    case["cancelling"] = False
    begin_step(case, STEPS[0])


def cancelled(case: Case) -> None:
    """End the case: at once, or once its run is proven dead."""
    if not may_live(case):
        for part in case["parts"].values():
            if part["state"] in LIVE:
                part["state"] = "cancelled"
        case["state"] = "cancelled"
        return
    part = case["parts"][JOB, ""]
    part["cancel"], part["state"] = True, "waits"
    case["state"], case["cancelling"] = "moving", True


def took_over(case: Case, name: Name, *, turn: int, state: str) -> str:
    """Take over what is the dispatcher's and the clock's affair; return what can't be right about it, or nothing."""
    part = case["parts"][name]
    if turn < part["turn"]:
        return f"its turn went back from {part['turn']} to {turn}"
    if part["state"] not in LIVE:
        return "" if (turn, state) == (part["turn"], part["state"]) else f"it ended {part['state']}, and is {state}"
    if turn > part["turn"]:
        lost = part["state"] == "working"
        part["losses"] += lost
        part["turn"], part["state"] = turn, "asked"
    elif state == "failed" and part["state"] == "working" and part["losses"] == LOSSES:
        _fail(case, part)
    if state == part["state"] or {state, part["state"]} == {"asked", "waits"}:
        part["state"] = state
        return ""
    if state == "waits" and part["state"] == "working":
        part["losses"] += 1  # its lease ended, and something is in the way of the next turn
        part["state"] = state
        return ""
    return f"it should be {part['state']}, and is {state}"
