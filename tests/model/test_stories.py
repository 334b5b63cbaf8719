"""Stories that the machine of random acts must never miss, each told with a conductor that dies at the same durable point of every act."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.test_conductor_model import ConductorMachine, OverAList

Act = Callable[[ConductorMachine, int | None], None]


def cases(*reached: int) -> Act:
    """Let cases come that have no parts, and go well for so many turns each."""
    return lambda machine, crash: machine.cases_have_come([(False, turns) for turns in reached])


def parted(*reached: int) -> Act:
    """Let cases come that fan out, and go well for so many turns each."""
    return lambda machine, crash: machine.cases_have_come([(True, turns) for turns in reached])


def unless_undone(there: Callable[[ConductorMachine], object], act: Act) -> Act:
    """Leave an act out where the operator's command before it was killed, so that there is nothing to do it with."""
    return lambda machine, crash: act(machine, crash) if crash is None or there(machine) else None


def turn(how: str, *, of: int = 0) -> Act:
    """Let a worker take the command of a lane, and its turn end so."""
    return unless_undone(lambda machine: machine.lanes(), lambda machine, crash: machine.a_whole_turn(of, how, crash))


def taken(machine: ConductorMachine, crash: int | None) -> None:
    """Let a worker take a command, and its report of that come."""
    machine.a_worker_takes(0, "")
    machine.a_report_comes(0, crash)


def holds(machine: ConductorMachine, _crash: int | None) -> None:
    """Let a worker take a command; its report of that is on its way."""
    machine.a_worker_takes(0, "")


def report(number: int) -> Act:
    """Let one of the reports come that are on their way, of whichever number."""
    return lambda machine, crash: machine.a_report_comes(number, crash)


def mishap(what: str) -> Act:
    """Let something go wrong."""
    return lambda machine, crash: machine.a_mishap(what, 0, crash)


def operator(act: str, *, number: int = 0, part: str = "") -> Act:
    """Let the operator act on a case, or on one part of it."""
    if part:
        return lambda machine, crash: machine.the_operator_acts_on_a_part(act, number, part, crash)
    return lambda machine, crash: machine.the_operator_acts(act, number, crash)


def run_ends(how: str, *, number: int = 0) -> Act:
    """Let one of the runs that live end."""
    return unless_undone(lambda machine: machine.far.living(), lambda machine, _: machine.a_run_ends(number, how))


def late(machine: ConductorMachine, crash: int | None) -> None:
    """Let the report that is on its way longest come."""
    machine.a_report_comes(0, crash)


def works(how: str) -> Act:
    """Let the worker that has its command longest do it; the report is on its way."""
    return lambda machine, crash: machine.a_worker_works(0, how)


def switch(what: str, *, off: bool) -> Act:
    """Let the operator drain, pause the host or hold a GPU, or end that."""
    return lambda machine, crash: machine.the_operator_switches(what, off)


def sight(what: str) -> Act:
    """Let the curator look at the GPUs."""
    return lambda machine, crash: machine.the_curator_sees(what, crash)


def passing(seconds: int) -> Act:
    """Let time pass."""
    return lambda machine, crash: machine.time_passes(seconds, crash)


def jump(seconds: int) -> Act:
    """Let somebody set the wall clock."""
    return lambda machine, _: machine.time_goes_oddly(0, True, seconds)


def work(machine: ConductorMachine, crash: int | None) -> None:
    """Let everybody work on."""
    if machine.lanes():
        machine.work_goes_on(False)


STORIES: dict[str, list[Act]] = {
    "a bug while it runs keeps the GPU until a retry ended the run": [
        cases(1, 1), turn("bug"), passing(6), operator("retry"), operator("retry", number=1), work, passing(6), work,
    ],
    "a bug, then a cancel ends the run": [cases(1), turn("bug"), operator("cancel"), work, operator("rerun"), work, work],
    "a cancel waits until the run is proven dead": [cases(2), operator("cancel"), passing(6), work, operator("rerun")],
    "three cases for two jobs": [cases(1, 1, 1), work, passing(6), work, mishap("a lane is purged"), passing(61)],
    "two cases for one GPU": [cases(),
        switch("GPU-2", off=True), switch("GPU-3", off=True), cases(1, 1), work, passing(6), switch("GPU-2", off=False), work,
    ],
    "a stranger comes to a GPU and stays when its run has ended": [
        parted(3), switch("GPU-3", off=True), cases(1), sight("foreign work"), run_ends("well"), passing(6), work,
        sight("the GPUs"), work,
    ],
    "the wall clock is set ahead and back": [cases(0), jump(3600), turn("well"), jump(-86_400), passing(6), work],
    "a host that is down uses up nobody's tries": [
        cases(0, 0), turn("host down"), turn("host down"), passing(25), turn("host down"), passing(61), work,
    ],
    "the third failure holds the case": [
        cases(0), turn("retry"), passing(25), turn("retry"), passing(61), turn("retry"), operator("retry"), work,
    ],
    "a worker dies after its work and could not say so": [
        cases(1), taken, mishap("a worker dies after its work"), passing(61), work, mishap("a report comes again"),
    ],
    "a drain keeps new work back": [switch("drain", off=True), cases(0), passing(6), switch("drain", off=False), work],
    "one part fails while the other runs": [
        parted(3), run_ends("badly"), passing(6), work, operator("retry", part="1"), operator("retry", part="2"), work,
        run_ends("well"), run_ends("badly"), passing(6), work, operator("retry"), work,
    ],
    "all parts fail, and one is retried alone": [
        parted(3), run_ends("badly"), run_ends("badly"), passing(6), work, operator("retry", part="2"), work,
        run_ends("well"), passing(6), work, operator("retry"), work,
    ],
    "one part cancelled": [
        parted(3), operator("cancel", part="1"), work, run_ends("well"), passing(6), work, operator("cancel", part="2"),
        operator("retry"), work,
    ],
    "a part that has not begun is cancelled": [
        parted(1), switch("GPU-2", off=True), switch("GPU-3", off=True), turn("well"), operator("cancel", part="2"),
        operator("cancel", part="1"), work, operator("retry"), work,
    ],
    "a part could not be cancelled and keeps its GPU": [
        parted(3), operator("cancel"), turn("gives up"), work, operator("rerun"), operator("cancel"), turn("gives up"),
        operator("cancel", part="1"), work, operator("cancel"), operator("rerun"),
    ],
    "a bug in the plan": [
        parted(1), turn("bug"), operator("cancel"), operator("retry"), turn("bug"), operator("retry"), work, work,
    ],
    "a bug in one part while the other runs": [
        parted(2), turn("bug"), work, operator("retry", part="1"), passing(6), work, work,
    ],
    "a plan takes no place among the host's runs": [cases(2), parted(1), cases(0), turn("well"), work, passing(6), work],
    "a plan lists again": [
        parted(3), operator("cancel"), work, operator("rerun"), work, work, passing(6), work, operator("retry", part="2"),
        operator("cancel"), work, operator("rerun"), work, work, work,
    ],
    "a part's late event after its retry": [
        parted(3), passing(6), taken, run_ends("well"), works("well"), operator("cancel", part="1"), work,
        operator("retry", part="1"), work, passing(6), late, work, mishap("a report comes again"),
    ],
    "later reports overtake the one that says who has the part": [
        cases(0), holds, works("progress"), works("remembers"), works("well"), report(1), report(1), late, late, work,
        holds, works("remembers"), report(1), mishap("a report is lost"), passing(61), work,
    ],
    "a paused case begins nothing": [cases(0), operator("pause"), work, passing(6), operator("resume"), work],
}  # fmt: skip


@pytest.mark.parametrize("crash", [None, 0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("story", STORIES)
def test_a_conductor_that_dies_anywhere_in_a_story_ends_it_like_one_that_lives(story: str, crash: int | None) -> None:
    machine = OverAList()
    try:
        for act in STORIES[story]:
            act(machine, crash)
            machine.every_case_is_where_the_model_has_it()
            machine.every_promise_holds()
        machine.everything_goes_well()
    finally:
        machine.world.close()
