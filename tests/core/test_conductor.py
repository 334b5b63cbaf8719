"""The conductor: how a case moves from step to step, and what does not move it."""

from __future__ import annotations

from typing import Any

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.conductor import UnknownCase
from mqi_cli.message import Event, EventKind
from mqi_cli.stage import Done, Stage, Step, StepOptions
from mqi_cli.step_digest import step_digest


def test_a_complete_case_goes_through_every_step_and_is_done(bench: Any) -> None:
    case = bench.case()
    steps = []
    while commands := bench.commands():
        (command,) = commands
        steps.append(command.step)
        bench.do(command)

    assert steps == ["upload", "run", "archive"]
    assert bench.fresh(case).state is CaseState.DONE
    assert bench.fresh(case).ended_at is not None


def test_what_a_worker_says_of_its_progress_is_the_cases_reason(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.PROGRESS, done=5, total=10, unit="B", note="3 of 223 files, 12.0 MB/s, 4 s left")
    assert bench.fresh(case).reason == "3 of 223 files, 12.0 MB/s, 4 s left"
    bench.answer(command, EventKind.PROGRESS, done=6, total=10, unit="B")
    assert bench.fresh(case).reason == "3 of 223 files, 12.0 MB/s, 4 s left"
    assert (bench.part(case).progress_done, bench.part(case).progress_total) == (6, 10)


def test_a_command_carries_what_earlier_steps_reported(bench: Any) -> None:
    bench.case()
    bench.do(bench.command(), files=3)

    command = bench.command()

    assert [(done.step, done.attempt, done.facts) for done in command.earlier] == [("upload", 1, {"files": 3})]


def test_an_event_that_comes_twice_is_applied_once(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    done = bench.event(command, EventKind.DONE, facts={})

    assert bench.conductor.apply(done)
    assert not bench.conductor.apply(done)

    assert bench.fresh(case).step == "run"
    assert len(bench.commands()) == 1


def test_an_event_of_an_older_turn_changes_nothing(bench: Any) -> None:
    case = bench.case()
    first = bench.command()
    bench.answer(first, EventKind.ACCEPTED)
    bench.clock.turn(61)
    bench.clockwork.tick()
    second = bench.command()

    assert (second.attempt, second.turn) == (1, 2)
    assert not bench.answer(first, EventKind.DONE, facts={})
    assert bench.fresh(case).step == "upload"
    bench.do(second)
    assert bench.fresh(case).step == "run"


def test_an_event_of_an_older_attempt_changes_nothing(bench: Any) -> None:
    case = bench.case()
    first = bench.command()
    bench.retry(first)
    bench.clock.turn(100)
    bench.clockwork.tick()
    second = bench.command()

    assert second.attempt == 2
    assert not bench.answer(first, EventKind.GAVE_UP, number=2, reason="late", hint="")
    assert bench.fresh(case).state is CaseState.RUNNING


def test_an_event_of_an_unknown_case_is_refused(bench: Any) -> None:
    event = Event("x", EventKind.DONE, "w", 0.0, "caaaaaaaaaa", "upload", "", 1, 1, {"facts": {}})

    with pytest.raises(UnknownCase):
        bench.conductor.apply(event)


def test_a_wait_is_asked_again_when_its_time_has_come_and_uses_up_no_try(bench: Any) -> None:
    case = bench.case()
    bench.do(bench.command())
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.WAIT, seconds=5.0, note="computing")

    assert bench.fresh(case).state is CaseState.RUNNING
    assert "computing" in bench.fresh(case).reason
    bench.clockwork.tick()
    assert bench.commands() == []
    bench.clock.turn(5)
    bench.clockwork.tick()
    again = bench.command()

    assert (again.attempt, again.turn) == (1, 2)
    assert bench.part(case).tries == 0


def test_facts_that_were_remembered_come_with_later_turns_and_attempts(bench: Any) -> None:
    bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.REMEMBERED, facts={"sent": 5})
    bench.answer(command, EventKind.RETRY, reason="cut", hint="", after=None, host="")
    bench.clock.turn(100)
    bench.clockwork.tick()

    assert bench.command().facts == {"sent": 5}


def test_the_machinery_failing_backs_off_longer_each_time_and_then_holds_the_case(bench: Any) -> None:
    case = bench.case()
    delays = []
    for _ in range(2):
        bench.retry(bench.command())
        part = bench.part(case)
        assert bench.fresh(case).state is CaseState.WAITING
        assert bench.fresh(case).until == part.due_at
        delays.append(part.due_at - bench.clock.now())
        bench.clock.turn(delays[-1] + 0.1)
        bench.clockwork.tick()
    bench.retry(bench.command())

    assert 8 <= delays[0] <= 12
    assert 16 <= delays[1] <= 24
    held = bench.fresh(case)
    assert held.state is CaseState.HELD
    assert "it broke" in held.reason
    assert "3 tries" in held.reason


def test_giving_up_holds_the_case_at_once_with_the_reason_and_a_hint(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.GAVE_UP, reason="exit code 3", hint="")

    held = bench.fresh(case)
    assert (held.state, held.step) == (CaseState.HELD, "upload")
    assert "exit code 3" in held.reason
    assert case.key in held.hint


def test_a_bug_holds_its_case_keeps_the_traceback_and_leaves_the_others_alone(bench: Any) -> None:
    case, other = bench.case(), bench.case()
    mine, theirs = bench.commands()
    bench.answer(mine, EventKind.ACCEPTED)
    bench.answer(mine, EventKind.BUG, reason="ValueError", traceback="line 1\nline 2")
    bench.do(theirs)

    assert bench.fresh(case).state is CaseState.HELD
    assert any(event.detail == "line 1\nline 2" for event in bench.store.events.of_case(case.id))
    assert bench.fresh(other).step == "run"


def test_a_worker_that_gives_no_sign_loses_its_turn_and_progress_renews_it(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    for _ in range(5):
        bench.clock.turn(50)
        bench.answer(command, EventKind.PROGRESS, done=1, total=2, unit="files")
        bench.clockwork.tick()
    assert bench.commands() == []

    bench.clock.turn(61)
    bench.clockwork.tick()

    assert bench.command().turn == 2
    assert any("gave no sign" in text for text in bench.texts(case))


def test_a_case_over_which_worker_after_worker_dies_is_held(bench: Any) -> None:
    case = bench.case()
    for _ in range(6):
        bench.answer(bench.command(), EventKind.ACCEPTED)
        bench.clock.turn(61)
        bench.clockwork.tick()

    assert bench.fresh(case).state is CaseState.HELD
    assert "workers were lost" in bench.fresh(case).reason


def test_a_command_that_is_in_no_queue_is_sent_again_but_not_one_that_only_stands_in_line(bench: Any) -> None:
    bench.case()
    bench.commands()
    bench.clock.turn(61)
    bench.clockwork.tick()
    assert bench.commands() == []

    bench.idle_lanes.add("sftp")
    bench.clock.turn(61)
    bench.clockwork.tick()

    assert bench.command().turn == 2


def test_a_jump_of_the_wall_clock_takes_nobodys_lease(bench: Any) -> None:
    bench.case()
    bench.answer(bench.command(), EventKind.ACCEPTED)

    bench.clock.jump(86_400)
    bench.clockwork.tick()
    bench.clock.jump(-2 * 86_400)
    bench.clockwork.tick()

    assert bench.commands() == []


def test_done_comes_before_accepted_and_still_counts(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.DONE, facts={})

    assert not bench.answer(command, EventKind.ACCEPTED)
    assert bench.fresh(case).step == "run"
    assert bench.part(case, "upload").state is PartState.DONE


def test_a_workflow_that_lost_the_step_holds_the_case_instead_of_guessing(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.config.workflows["qa"] = type(bench.workflow)("qa", bench.workflow.steps[1:])  # type: ignore[index]
    bench.answer(command, EventKind.DONE, facts={})

    assert bench.fresh(case).state is CaseState.HELD
    assert "upload" in bench.fresh(case).reason


def test_how_far_a_part_is_may_come_with_the_end_of_a_turn(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)

    bench.answer(command, EventKind.WAIT, seconds=5, note="running", progress={"done": 3, "total": 40, "unit": ""})

    part = bench.part(case)
    assert (part.progress_done, part.progress_total, part.progress_unit) == (3, 40, "")
    bench.clock.turn(6)
    bench.clockwork.tick()
    again = bench.command()
    bench.answer(again, EventKind.ACCEPTED)
    bench.answer(again, EventKind.WAIT, seconds=5, note="running")
    assert bench.part(case).progress_done == 3, "a turn that found no mark changes nothing"


def test_a_worker_whose_config_differs_is_an_alert_until_it_is_mended_or_leaves(bench: Any) -> None:
    def alive(number: int, trouble: str, *, leaving: bool = False) -> None:
        data = {"lane": "sftp", "machine": "box2", "pid": 7, "started": 0.0, "busy": 0}
        data |= {"trouble": trouble, "leaving": leaving}
        bench.conductor.apply(Event(f"alive:{number}", EventKind.ALIVE, "sftp@box2-7", 0.0, data=data))

    alive(1, "its config says otherwise of step upload")
    (alert,) = bench.store.switches.alerts()
    assert alert["text"] == "sftp@box2-7: its config says otherwise of step upload"
    assert "box2" in alert["hint"]
    alive(2, "")
    assert bench.store.switches.alerts() == []
    alive(3, "its config says otherwise of step upload")
    alive(4, "its config says otherwise of step upload", leaving=True)
    assert bench.store.switches.alerts() == []
    assert bench.store.workers.all() == []


def test_commands_tell_a_step_apart_by_what_it_means_and_not_by_paths_of_one_machine(bench: Any) -> None:
    def digest(stage: Stage, *, salt: str = "", **options: Any) -> str:
        return step_digest(Step("s", stage, Options(**options)), salt=salt)

    class Options(StepOptions):
        host: str = "hpc"
        command: str = "true"

    far = Stage("run", lambda case, ctx: Done(), "x", local=False)
    here = Stage("download", lambda case, ctx: Done(), "x")
    assert digest(far) == digest(far, command="true")
    assert (
        len({digest(far), digest(far, command="false"), digest(far, host="b"), digest(far, salt="s"), digest(here)})
        == 5
    )
    assert digest(here, command="a") == digest(here, command="b") != digest(here, host="b")
    bench.case()
    assert bench.command().digest == step_digest(bench.workflow.steps[0], salt="")
