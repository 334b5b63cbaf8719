"""What a case should be, as plain dicts: the conductor's promises, small enough to be checked by eye.

    case = {"state": "moving", "step": "upload", "parts": {("upload", ""): part, …}, "cancelling": False, "paused": False,
            "fans_out": False}
    part = {"attempt": 1, "turn": 1, "state": "asked", "tries": 0, "losses": 0, "cancel": False, "unproven": False,
            "current": True, "facts": {}}

A case is `moving`, `held`, `done` or `cancelled`. A part is `asked` (a command is out), `working` (accepted), `waits`,
`done`, `failed` or `cancelled`; what a rerun has left behind is not `current`. Where the case fans out, the part "" of
the step `run` is the plan that lists its parts "1", "2" and so on. Whether a part that may go on is asked at once or waits
for a GPU, a host or a time is the dispatcher's affair: the model takes that over, and the machine's invariants look
whether the wait has a cause.
"""

from __future__ import annotations

from typing import Any

STEPS = ("upload", "run", "archive")
JOB = "run"  # the only step that leaves something running on a host, and that can be cancelled there
ATTEMPTS = 3
LOSSES = 5  # workers that may die over one attempt
LIVE = ("asked", "working", "waits")
ENDED = ("failed", "cancelled")

Case = dict[str, Any]
Part = dict[str, Any]
Name = tuple[str, str]


def new_case(*, fans_out: bool) -> Case:
    """Return a case that was just accepted."""
    case = {
        "state": "moving", "step": "", "parts": {}, "cancelling": False, "paused": False, "cases_done": 0,
        "fans_out": fans_out,
    }  # fmt: skip
    begin_step(case, STEPS[0])
    return case


def new_part(attempt: int, *, tries: int = 0, facts: dict[str, Any] | None = None) -> Part:
    """Return a part's attempt that has had no turn."""
    return {
        "attempt": attempt, "turn": 0, "state": "waits", "tries": tries, "losses": 0, "cancel": False,
        "unproven": False, "current": True, "facts": dict(facts or {}),
    }  # fmt: skip


def is_plan(case: Case, name: Name) -> bool:
    """Whether a part is the plan of the step that fans out."""
    return bool(case["fans_out"]) and name == (JOB, "")


def is_job(case: Case, name: Name) -> bool:
    """Whether a part leaves something running on a host."""
    return name[0] == JOB and not is_plan(case, name)


def begin_step(case: Case, step: str) -> None:
    """Go to a step: a further attempt of its one part, or of its plan."""
    case["step"], case["state"] = step, "moving"
    begin_part(case, (step, ""))


def begin_part(case: Case, name: Name) -> None:
    """Begin a part, which remembers nothing of what it was before a rerun."""
    former = case["parts"].get(name)
    case["parts"][name] = new_part(former["attempt"] + 1 if former else 1)


def of_step(case: Case) -> dict[Name, Part]:
    """Return the parts of the case's step; while there are none yet, the plan that lists them."""
    known = {name: part for name, part in case["parts"].items() if part["current"] and name[0] == case["step"]}
    return {name: part for name, part in known.items() if not is_plan(case, name)} or known


def stand(case: Case) -> None:
    """Let the case be what its step's parts make of it: it goes on while one of them does, and with the step once all are done."""
    states = {part["state"] for part in of_step(case).values()}
    if states.intersection(LIVE):
        case["state"] = "moving"
    elif states.intersection(ENDED):
        case["state"] = "held"
    elif case["step"] == STEPS[-1]:
        case["state"] = "done"
        case["cases_done"] += 1
    else:
        begin_step(case, STEPS[STEPS.index(case["step"]) + 1])


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
            part["state"] = "working"
            part["facts"] |= data["facts"]
        case "wait":
            part["state"], part["losses"] = "waits", 0
        case "done":
            part["state"], part["unproven"] = "done", False
            part["facts"] |= data["facts"]
            if is_plan(case, name):
                for number in range(data["facts"]["parts"]):
                    begin_part(case, (event.step, str(number + 1)))
            stand(case)
        case "retry":
            _retry(case, name, part, data)
        case "gave_up" if part["cancel"]:
            _fail(case, name)  # it could not be cancelled: its run may live
        case "gave_up":
            part["state"] = "failed"
            stand(case)
        case "bug":
            _fail(case, name)
        case "cancelled":
            part["state"], part["unproven"] = "cancelled", False
            if case["cancelling"]:
                _finish_cancel(case)
            else:
                stand(case)


def _retry(case: Case, name: Name, part: Part, data: dict[str, Any]) -> None:
    if data["host"]:
        part["state"] = "waits"  # the host is at fault: the same attempt, and no try is used up
    elif part["cancel"]:
        part["state"], part["tries"] = "waits", part["tries"] + 1
    elif part["tries"] + 1 >= ATTEMPTS:
        part["state"] = "failed"
        stand(case)
    else:
        again(case, name, tries=part["tries"] + 1)


def _fail(case: Case, name: Name) -> None:
    """End an attempt of whose run nothing is known."""
    part = case["parts"][name]
    part["unproven"] = part["unproven"] or (part["turn"] > 0 and is_job(case, name))
    part["state"], case["cancelling"] = "failed", False
    stand(case)


def _finish_cancel(case: Case) -> None:
    if not any(part["state"] in LIVE for part in case["parts"].values()):
        case["state"], case["cancelling"] = "cancelled", False


def may_live(case: Case, name: Name) -> bool:
    """Whether a run of a part may be alive on its host."""
    part = case["parts"][name]
    return is_job(case, name) and bool((part["state"] in LIVE and part["turn"] > 0) or part["unproven"])


# ---- what an operator asks for, when it was not refused ----


def retried(case: Case, part: str = "") -> None:
    """Do again what failed or was cancelled, or the one part that is named; beside parts that go on, only if one failed."""
    ended = [name for name, each in of_step(case).items() if each["state"] in ENDED]
    failed = any(case["parts"][name]["state"] == "failed" for name in ended)
    if case["state"] == "moving" and (case["cancelling"] or not (part or failed)):
        return  # the next try, at once
    for name in ended:
        if part in ("", name[1]):
            again(case, name, tries=0)


def rerun(case: Case) -> None:
    """Begin again."""
    for part in case["parts"].values():
        if part["state"] in LIVE:
            part["state"] = "cancelled"
        part["current"] = False
    case["cancelling"] = False
    begin_step(case, STEPS[0])


def cancelled(case: Case) -> None:
    """End the case: at once, or once its runs are proven dead."""
    case["cancelling"], case["state"] = True, "moving"
    for name in case["parts"]:
        _end(case, name)
    _finish_cancel(case)


def part_cancelled(case: Case, part: str) -> None:
    """End one part: at once, or once its run is proven dead."""
    _end(case, (case["step"], part))
    stand(case)


def _end(case: Case, name: Name) -> None:
    part = case["parts"][name]
    if may_live(case, name):
        part["cancel"], part["state"] = True, "waits"
    elif part["state"] in LIVE:
        part["state"] = "cancelled"


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
        _fail(case, name)
    if state == part["state"] or {state, part["state"]} == {"asked", "waits"}:
        part["state"] = state
        return ""
    if state == "waits" and part["state"] == "working":
        part["losses"] += 1  # its lease ended, and something is in the way of the next turn
        part["state"] = state
        return ""
    return f"it should be {part['state']}, and is {state}"
