"""A step that fans out: its plan, its parts side by side, and what becomes of the case when some of them fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.errors import UsageError
from mqi_cli.message import MAX_BYTES, MAX_PARTS, Command, EventKind, encode
from mqi_cli.stage import Done, Stage, StepOptions
from mqi_cli.turn import run_turn


@pytest.fixture
def bench(make_bench: Any) -> Any:
    """A conductor whose step `run` fans out."""
    return make_bench(fans_out=True)


def to_plan(bench: Any) -> tuple[Any, Command]:
    """Bring a case to the step that fans out."""
    case = bench.case()
    bench.do(bench.command())
    return case, bench.command()


def to_parts(bench: Any, count: int) -> tuple[Any, list[Command]]:
    """Bring a case to the parts of its step."""
    case, plan = to_plan(bench)
    bench.do(plan, parts=count, plan="0" * 32)
    return case, bench.commands()


def give_up(bench: Any, command: Command, reason: str = "exit code 3") -> None:
    """Let a worker find that a part has failed for good."""
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.GAVE_UP, reason=reason, hint="")


def states(bench: Any, case: Any) -> dict[str, PartState]:
    """Return how each part stands."""
    return {part.part: part.state for part in bench.store.parts.of_step(case.id, "run") if not part.plan}


def test_a_step_that_fans_out_lists_its_parts_first(bench: Any) -> None:
    case, plan = to_plan(bench)

    assert (plan.step, plan.part, plan.plan) == ("run", "", True)
    row = bench.part(case)
    assert (row.job, row.gpus) == (False, 0), "listing takes no place among the host's runs"


def test_each_part_gets_a_command_of_its_own_that_names_it_by_number(bench: Any) -> None:
    _, parts = to_parts(bench, 3)

    assert [each.part for each in parts] == ["1", "2", "3"]
    assert not any(each.plan for each in parts)
    assert len({each.id for each in parts}) == 3
    for each in parts:  # the worker finds the list that the plan has made
        assert [(e.step, e.part, e.facts.get("plan")) for e in each.earlier if e.step == "run"] == [
            ("run", "", "0" * 32)
        ]


def test_the_step_is_done_when_all_parts_are(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    for number, command in enumerate(parts, 1):
        assert bench.fresh(case).step == "run"
        bench.do(command)
        assert bench.fresh(case).step == ("run" if number < 3 else "archive")

    after = bench.command()
    assert sorted(each.part for each in after.earlier if each.step == "run") == ["", "1", "2", "3"]


def test_a_plan_whose_end_is_told_twice_makes_its_parts_once(bench: Any) -> None:
    case, plan = to_plan(bench)
    bench.do(plan, parts=2)

    assert not bench.answer(plan, EventKind.DONE, facts={"parts": 2})
    assert not bench.answer(plan, EventKind.DONE, number=2, facts={"parts": 5})

    assert list(states(bench, case)) == ["1", "2"]


def test_parts_run_side_by_side_within_the_limit_of_jobs(make_bench: Any) -> None:
    bench = make_bench(fans_out=True, jobs=2)
    case, first = to_parts(bench, 4)

    assert [each.part for each in first] == ["1", "2"]
    bench.do(first[0])
    assert [each.part for each in bench.commands()] == ["3"]
    assert "1 of 4 parts done, 2 at work, 1 waiting" in bench.fresh(case).reason


def test_four_parts_on_two_gpus_run_two_at_a_time(make_bench: Any) -> None:
    bench = make_bench(fans_out=True, gpus=1)
    bench.gpus(2)
    case, running = to_parts(bench, 4)
    seen = []
    while running:
        assert len(running) <= 2
        assert len({gpu.uuid for each in running for gpu in each.gpus}) == len(running)
        seen.append(running[0].part)
        bench.do(running.pop(0))
        running += [each for each in bench.commands() if each.step == "run"]

    assert seen == ["1", "2", "3", "4"]
    assert bench.fresh(case).step == "archive"
    assert [gpu.lease for gpu in bench.store.gpus.all()] == [None, None]


def test_the_others_go_on_when_one_part_fails_and_the_case_is_held_after_the_last(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    give_up(bench, parts[1])

    assert bench.fresh(case).state is CaseState.RUNNING
    assert "part 2 failed: exit code 3" in bench.fresh(case).reason
    bench.do(parts[0])
    assert not [each for each in bench.store.events.of_case(case.id) if each.kind == "held"]

    bench.do(parts[2])

    row = bench.fresh(case)
    assert row.state is CaseState.HELD
    assert row.reason == "2 of 3 parts done, part 2 failed: exit code 3"
    assert len([each for each in bench.store.events.of_case(case.id) if each.kind == "held"]) == 1, "one notice"


def test_retry_does_only_the_failed_parts_again(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    give_up(bench, parts[0])
    give_up(bench, parts[2])
    bench.do(parts[1])

    bench.acts.retry(case.id)

    again = bench.commands()
    assert [(each.part, each.attempt) for each in again] == [("1", 2), ("3", 2)]
    for each in again:
        bench.do(each)
    assert bench.fresh(case).step == "archive"


def test_one_part_is_retried_while_the_others_go_on(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    give_up(bench, parts[1])

    with pytest.raises(UsageError, match="part 1 of step run is queued"):
        bench.acts.retry(case.id, part="1")
    with pytest.raises(UsageError, match="no part 7: they are called 1 to 3"):
        bench.acts.retry(case.id, part="7")
    with pytest.raises(UsageError, match="stands at step run"):
        bench.acts.retry(case.id, step="upload")
    bench.acts.retry(case.id, step="run", part="2")

    assert [(each.part, each.attempt) for each in bench.commands()] == [("2", 2)]


def test_one_of_several_failed_parts_can_be_retried_alone(bench: Any) -> None:
    case, parts = to_parts(bench, 2)
    for each in parts:
        give_up(bench, each)

    bench.acts.retry(case.id, part="02")

    assert [each.part for each in bench.commands()] == ["2"]
    assert bench.fresh(case).state is CaseState.RUNNING
    assert states(bench, case) == {"1": PartState.FAILED, "2": PartState.QUEUED}


def test_a_part_that_fails_for_now_is_tried_again_by_itself(bench: Any) -> None:
    case, parts = to_parts(bench, 2)
    bench.retry(parts[0])
    bench.do(parts[1])

    assert bench.fresh(case).state is CaseState.WAITING
    assert "1 waiting (try 2 of 3 follows: it broke)" in bench.fresh(case).reason
    bench.clock.turn(200)
    bench.clockwork.tick()

    assert [(each.part, each.attempt) for each in bench.commands()] == [("1", 2)]


def test_cancel_ends_each_part_that_may_live_and_waits_for_all(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    bench.do(parts[0])
    bench.answer(parts[1], EventKind.ACCEPTED)
    bench.answer(parts[1], EventKind.WAIT, seconds=60, note="running")

    bench.acts.cancel(case.id)

    ends = bench.commands()
    assert sorted((each.part, each.cancel) for each in ends) == [("2", True), ("3", True)]
    bench.answer(ends[0], EventKind.CANCELLED)
    assert bench.fresh(case).state is not CaseState.CANCELLED
    bench.answer(ends[1], EventKind.CANCELLED)
    assert bench.fresh(case).state is CaseState.CANCELLED


def test_a_case_that_is_cancelled_over_its_plan_asks_nothing_of_the_host(bench: Any) -> None:
    case, plan = to_plan(bench)
    bench.answer(plan, EventKind.ACCEPTED)

    bench.acts.cancel(case.id)

    assert bench.fresh(case).state is CaseState.CANCELLED
    assert not bench.answer(plan, EventKind.DONE, facts={"parts": 2})
    assert states(bench, case) == {}


def test_a_plan_that_gives_up_holds_the_case_and_retry_lists_again(bench: Any) -> None:
    case, plan = to_plan(bench)
    give_up(bench, plan, "`for_each` gives no part")

    assert bench.fresh(case).state is CaseState.HELD
    bench.acts.retry(case.id)

    again = bench.command()
    assert (again.plan, again.attempt) == (True, 2)


def test_a_rerun_lists_anew_and_forgets_the_parts_that_are_no_more(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    for each in parts:
        give_up(bench, each)
    bench.acts.rerun(case.id)
    bench.do(bench.command())
    plan = bench.command()
    assert plan.plan

    bench.do(plan, parts=2)

    again = bench.commands()
    assert [(each.part, each.attempt) for each in again] == [("1", 2), ("2", 2)]
    for each in again:
        bench.do(each)
    assert bench.fresh(case).step == "archive"


def test_as_many_parts_as_are_allowed_fit_into_a_message_however_much_they_report(make_bench: Any) -> None:
    bench = make_bench(fans_out=True)
    case, parts = to_parts(bench, MAX_PARTS)
    with bench.store.transaction():  # all but one at once: what 499 events would have done
        for part in bench.store.parts.of_step(case.id, "run"):
            if part.part not in ("", "1"):
                bench.store.parts.update(part.id, state=PartState.DONE, facts={"note": "x" * 300})
    bench.do(parts[0], note="x" * 300)

    after = bench.command()

    assert after.step == "archive"
    assert len([each for each in after.earlier if each.step == "run"]) == MAX_PARTS + 1
    assert len(encode(after)) < MAX_BYTES


def test_a_config_that_no_longer_fans_out_does_not_turn_a_run_into_a_plan(bench: Any) -> None:
    """What a turn is for was decided when its part began; only a new beginning follows the config."""
    case, _ = to_plan(bench)
    step = bench.workflow.step("run")
    object.__setattr__(step, "options", StepOptions())
    bench.clock.turn(100)
    bench.idle_lanes.add("ssh-exec")
    bench.clockwork.tick()

    assert bench.command().plan
    assert bench.part(case).plan


def test_by_hand_the_plan_comes_first_and_then_each_part_in_turn(bench: Any) -> None:
    case = bench.case()
    bench.do(bench.command())
    order = []
    for _ in range(4):
        command = bench.claims.claim(case.id, "run", step="run", worker="hand", daemon_running=False)
        order.append((command.plan, command.part))
        bench.answer(command, EventKind.DONE, worker="hand", facts={"parts": 3} if command.plan else {})

    assert order == [(True, ""), (False, "1"), (False, "2"), (False, "3")]
    assert not bench.claims.unfinished(case.id, "run")


def test_looking_at_a_step_with_parts_needs_the_name_of_one(bench: Any) -> None:
    case, _ = to_parts(bench, 2)

    assert bench.claims.part_names(case.id, "run") == ["1", "2"]
    with pytest.raises(UsageError, match="has the parts 1 to 2"):
        bench.claims.look(case.id, "run")
    assert bench.claims.look(case.id, "run", part="2").part == "2"
    with pytest.raises(UsageError, match="no part 3"):
        bench.claims.look(case.id, "run", part="3")


def test_one_part_is_cancelled_alone_and_the_case_is_held_after_the_others(bench: Any) -> None:
    case, parts = to_parts(bench, 3)
    bench.answer(parts[1], EventKind.ACCEPTED)
    bench.answer(parts[1], EventKind.WAIT, seconds=60, note="running")

    bench.acts.cancel(case.id, part="2")

    end = bench.command()
    assert (end.part, end.cancel) == ("2", True)
    bench.answer(end, EventKind.CANCELLED)
    assert bench.fresh(case).state is CaseState.RUNNING
    bench.do(parts[0])
    bench.do(parts[2])
    row = bench.fresh(case)
    assert (row.state, row.reason) == (CaseState.HELD, "2 of 3 parts done, part 2 cancelled")
    with pytest.raises(UsageError, match="part 1 of step run is done: there is nothing to cancel"):
        bench.acts.cancel(case.id, part="1")

    bench.acts.retry(case.id)
    again = bench.command()
    assert (again.part, again.attempt, again.cancel) == ("2", 2, False)
    bench.do(again)
    assert bench.fresh(case).step == "archive"


def test_when_a_whole_step_is_ended_no_part_begins_and_the_case_is_held_once_all_have_ended(make_bench: Any) -> None:
    bench = make_bench(fans_out=True, jobs=1)
    case, (first,) = to_parts(bench, 3)
    bench.answer(first, EventKind.ACCEPTED)

    assert bench.acts.end_step(case.id, "run") == ["1"]

    end = bench.command()
    assert (end.part, end.cancel) == ("1", True)
    assert states(bench, case) == {"1": PartState.QUEUED, "2": PartState.CANCELLED, "3": PartState.CANCELLED}
    assert not bench.answer(first, EventKind.RETRY, reason="it broke", hint="", after=None, host=""), "late: no new try"
    assert bench.acts.end_step(case.id, "run") == ["1"], "asked again it is told again"
    assert bench.commands() == []
    bench.acts.ended(case.id, "run", "1")  # whoever asked has seen to it himself

    row = bench.fresh(case)
    assert (row.state, row.reason) == (CaseState.HELD, "0 of 3 parts done, part 1 and 2 more cancelled")
    assert row.hint == f"mqi case retry {case.key}"
    assert len([each for each in bench.store.events.of_case(case.id) if each.kind == "held"]) == 1, "one notice"
    assert not bench.answer(end, EventKind.CANCELLED)
    assert bench.acts.end_step(case.id, "run") == []

    bench.acts.retry(case.id)
    assert [(each.part, each.attempt) for each in bench.commands()] == [("1", 2)]


def test_a_step_of_one_part_that_is_ended_holds_its_case_and_says_so(make_bench: Any) -> None:
    bench = make_bench()
    case, run = to_plan(bench)
    bench.answer(run, EventKind.ACCEPTED)

    assert bench.acts.end_step(case.id, "upload") == []
    assert bench.acts.end_step(case.id, "run") == [""]
    bench.answer(bench.command(), EventKind.CANCELLED, note="ended on its host")

    row = bench.fresh(case)
    assert (row.state, row.reason) == (CaseState.HELD, "an operator ended it")
    assert bench.texts(case)[-1] == "held: run: an operator ended it"


def test_a_step_that_is_ended_before_it_has_begun_is_held_at_once(bench: Any) -> None:
    case, plan = to_plan(bench)
    bench.answer(plan, EventKind.ACCEPTED)

    assert bench.acts.end_step(case.id, "run") == []

    assert bench.fresh(case).state is CaseState.HELD
    assert not bench.answer(plan, EventKind.DONE, facts={"parts": 2})
    bench.acts.retry(case.id)
    assert bench.command().plan


def test_a_part_that_has_not_begun_is_cancelled_at_once(make_bench: Any) -> None:
    bench = make_bench(fans_out=True, jobs=1)
    case, (first,) = to_parts(bench, 2)

    bench.acts.cancel(case.id, part="2")

    bench.do(first)
    assert bench.fresh(case).state is CaseState.HELD
    assert bench.fresh(case).reason == "1 of 2 parts done, part 2 cancelled"


@pytest.mark.parametrize("parts", [None, 0, MAX_PARTS + 1, "3"])
def test_a_plan_that_does_not_count_its_parts_is_a_bug_of_its_stage(parts: object) -> None:
    stage = Stage("x", lambda case, ctx: Done(), "x", plan=lambda case, ctx: Done({"parts": parts}))
    turn: Any = SimpleNamespace(stage=stage, plan=True)

    kind, data, _ = run_turn(cast("Any", None), turn)

    assert (kind, data["reason"]) == (EventKind.BUG, "ValueError")


def test_a_stage_lists_its_parts_only_when_it_is_asked_to() -> None:
    stage = Stage("x", lambda case, ctx: Done({"ran": True}), "x", plan=lambda case, ctx: Done({"parts": 2}))

    planned = run_turn(cast("Any", None), cast("Any", SimpleNamespace(stage=stage, plan=True)))
    ran = run_turn(cast("Any", None), cast("Any", SimpleNamespace(stage=stage, plan=False)))

    assert planned[:2] == (EventKind.DONE, {"facts": {"parts": 2}})
    assert ran[:2] == (EventKind.DONE, {"facts": {"ran": True}})
