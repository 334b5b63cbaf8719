"""A step that takes away what other steps work on is not worked on beside them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.errors import UsageError
from mqi_cli.message import EventKind
from mqi_cli.stage import Workflow


def by_hand(bench: Any, case: Any, stage: str, *, daemon: bool = False, **more: Any) -> Any:
    """Take a step into an operator's own hands."""
    return bench.claims.claim(case.id, stage, worker="hand", daemon_running=daemon, **more)


def at_archive(bench: Any) -> tuple[Any, Any]:
    """Bring a case to its archive step; return it with that step's command."""
    case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command())
    command = bench.command()
    assert command.step == "archive"
    return case, command


def test_a_case_is_not_archived_by_hand_while_a_run_of_it_goes_on(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    run = by_hand(bench, case, "run")

    with pytest.raises(UsageError, match="run of this case goes on, or may"):
        by_hand(bench, case, "archive")

    bench.answer(run, EventKind.WAIT, seconds=15.0, note="it runs")
    with pytest.raises(UsageError, match="run of this case goes on, or may"):
        by_hand(bench, case, "archive")
    assert bench.fresh(case).state is CaseState.DONE
    bench.clock.turn(20)
    bench.clockwork.tick()
    bench.do(bench.command())
    assert by_hand(bench, case, "archive").attempt == 2


def test_a_run_whose_fate_is_unknown_keeps_its_case_from_being_archived(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    run = by_hand(bench, case, "run")
    bench.answer(run, EventKind.BUG, reason="KeyError", traceback="")

    with pytest.raises(UsageError, match="goes on, or may"):
        by_hand(bench, case, "archive")


def test_a_run_whose_fate_is_unknown_is_in_nobodys_way_once_it_is_proven_over(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command())
    bench.answer(bench.command(), EventKind.WAIT, seconds=10.0, note="the disk is full")
    bench.answer(by_hand(bench, case, "run"), EventKind.BUG, reason="KeyError", traceback="")
    bench.answer(by_hand(bench, case, "run"), EventKind.GAVE_UP, reason="exit code 1", hint="")
    bench.clock.turn(20)
    bench.clockwork.tick()
    row = bench.fresh(case)
    assert (row.reason, row.hint) == ("run of this case goes on, or may", f"mqi exec kill {case.key} run")
    assert bench.claims.in_doubt(case.id, "run", "") == [2, 3]
    with pytest.raises(UsageError, match="goes on, or may") as refused:
        by_hand(bench, case, "archive")
    assert f"mqi exec kill {case.key} run" in refused.value.hint

    bench.acts.ended(case.id, "run", "", attempts=[2])
    assert bench.claims.in_doubt(case.id, "run", "") == [3], "one that came into doubt since then may live"
    assert bench.commands() == []

    bench.acts.ended(case.id, "run", "", attempts=[2, 3])

    assert bench.claims.in_doubt(case.id, "run", "") == []
    assert [gpu.lease for gpu in bench.store.gpus.on("hpc")] == [None]
    assert bench.intake.view(bench.fresh(case)).alive == ("archive",)
    assert bench.command().step == "archive"


def test_a_done_case_with_a_run_of_unknown_fate_says_how_it_is_ended(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    bench.answer(by_hand(bench, case, "run"), EventKind.BUG, reason="KeyError", traceback="")

    for refuses in (bench.acts.rerun, bench.acts.cancel):
        with pytest.raises(UsageError) as refused:
            refuses(case.id)
        assert f"mqi exec kill {case.key} run" in refused.value.hint
    bench.acts.ended(case.id, "run", "", attempts=[2])
    bench.acts.rerun(case.id)
    assert bench.command().step == "upload"


def test_a_done_case_with_a_run_that_goes_on_says_how_it_is_ended(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    bench.answer(by_hand(bench, case, "run"), EventKind.WAIT, seconds=15.0, note="it runs")

    for refuses in (bench.acts.rerun, bench.acts.cancel):
        with pytest.raises(UsageError) as refused:
            refuses(case.id)
        assert f"mqi exec kill {case.key} run (without a daemon" in refused.value.hint
        assert f"then: mqi exec run {case.key} --step run)" in refused.value.hint


def test_a_done_case_with_another_step_at_work_is_waited_for(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    bench.answer(by_hand(bench, case, "upload"), EventKind.WAIT, seconds=15.0, note="the disk is full")

    with pytest.raises(UsageError) as refused:
        bench.acts.rerun(case.id)
    assert refused.value.hint == f"wait for its end; what it does: mqi case show {case.key}"


def test_the_daemon_archives_a_case_once_the_run_that_was_begun_by_hand_has_ended(bench: Any) -> None:
    case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command())
    archive = bench.command()
    bench.retry(archive)  # the disk was away: it is tried again later
    run = by_hand(bench, case, "run")
    bench.clock.turn(1000)
    bench.store.parts.update(bench.part(case, "run").id, lease_until=bench.clock.now() + 60)

    bench.clockwork.tick()

    assert bench.commands() == []
    assert bench.part(case).waiting_for == f"case:{case.id}"
    assert bench.fresh(case).reason == "run of this case goes on, or may"
    bench.clockwork.tick()
    assert bench.commands() == [], "nobody waits for nothing"
    bench.answer(run, EventKind.DONE, facts={})
    archive = bench.command()
    assert archive.step == "archive"
    assert [each.attempt for each in archive.earlier if each.step == "run"] == [2]


def test_no_run_is_begun_beside_an_archive_that_is_at_work(bench: Any) -> None:
    case, archive = at_archive(bench)
    with pytest.raises(UsageError, match="archive of this case goes on"):
        by_hand(bench, case, "run", daemon=True)
    bench.answer(archive, EventKind.ACCEPTED)
    with pytest.raises(UsageError, match="archive of this case goes on"):
        by_hand(bench, case, "run")
    assert bench.store.parts.latest(case.id, "run", "").attempt == 1
    bench.answer(archive, EventKind.DONE, facts={})
    assert by_hand(bench, case, "run").attempt == 2


def test_a_case_is_not_cancelled_while_a_worker_archives_it(bench: Any) -> None:
    """That worker hears nothing of it, and would clear the host of what is begun again."""
    case, archive = at_archive(bench)
    bench.answer(archive, EventKind.ACCEPTED)

    for act in (bench.acts.cancel, bench.acts.rerun):
        with pytest.raises(UsageError, match="w1 works on archive, which is not ended half way"):
            act(case.id)

    assert not bench.fresh(case).cancelling
    bench.answer(archive, EventKind.WAIT, seconds=10.0, note="the disk is full")
    bench.acts.cancel(case.id)
    assert bench.fresh(case).state is CaseState.CANCELLED
    bench.acts.rerun(case.id)
    assert bench.command().step == "upload"


def test_a_case_is_cancelled_once_a_run_that_was_done_again_by_hand_is_ended(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.retry(archive)
    run = by_hand(bench, case, "run")
    bench.answer(run, EventKind.WAIT, seconds=100.0, note="it runs")
    bench.acts.cancel(case.id)

    row = bench.fresh(case)
    assert (row.state, row.reason) == (CaseState.RUNNING, "cancelling: queued for a worker of ssh-exec")
    with pytest.raises(UsageError, match="there is nothing to retry"):
        bench.acts.retry(case.id)
    with pytest.raises(UsageError, match="the case is being cancelled"):
        by_hand(bench, case, "upload")
    (ending,) = [each for each in bench.commands() if each.cancel]
    bench.answer(ending, EventKind.CANCELLED, note="ended on its host")
    assert bench.fresh(case).state is CaseState.CANCELLED
    assert not [text for text in bench.texts(case) if text.startswith("held")]


def test_a_case_whose_archiving_worker_is_gone_can_be_cancelled(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.answer(archive, EventKind.ACCEPTED)
    bench.clock.turn(61)

    bench.acts.cancel(case.id)

    assert bench.fresh(case).state is CaseState.CANCELLED


def test_without_a_daemon_a_queued_archive_stands_back_for_a_step_by_hand(bench: Any) -> None:
    case, archive = at_archive(bench)

    run = by_hand(bench, case, "run")

    assert bench.part(case).waiting_for == f"case:{case.id}"
    assert not bench.answer(archive, EventKind.ACCEPTED), "late"
    bench.do(run)
    assert bench.command().step == "archive"


def test_without_a_daemon_an_archive_that_a_dead_hand_began_stands_back(bench: Any) -> None:
    case, _ = at_archive(bench)
    archive = by_hand(bench, case, "archive")
    bench.clock.turn(10)
    with pytest.raises(UsageError, match="archive of this case goes on"):
        by_hand(bench, case, "run")
    bench.clock.turn(10 * 86400)

    run = by_hand(bench, case, "run")

    assert not bench.answer(archive, EventKind.DONE, facts={}), "late"
    bench.do(run)
    assert bench.command().step == "archive"


def test_without_a_daemon_a_try_that_was_never_begun_stands_back_for_an_archive(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.retry(archive, after=1000.0)
    run = by_hand(bench, case, "run")
    bench.answer(run, EventKind.RETRY, reason="it broke", hint="", after=10.0, host="")

    archive = by_hand(bench, case, "archive")

    bench.clock.turn(20)
    bench.clockwork.tick()
    assert bench.part(case, "run").waiting_for == f"case:{case.id}"
    bench.answer(archive, EventKind.DONE, facts={})
    assert bench.command().step == "run"
    with pytest.raises(UsageError, match="run of this case goes on") as refused:
        by_hand(bench, case, "archive")
    assert refused.value.hint.endswith(f"mqi exec run {case.key} --step run")


def test_without_a_daemon_a_run_that_may_live_is_named_with_what_ends_it(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)
    run = by_hand(bench, case, "run")
    bench.answer(run, EventKind.WAIT, seconds=15.0, note="it runs")
    bench.clock.turn(10 * 86400)

    with pytest.raises(UsageError, match="run of this case goes on") as refused:
        by_hand(bench, case, "archive")

    assert refused.value.hint == (
        f"wait for its end, or: mqi exec kill {case.key} run, and then: mqi exec run {case.key} --step run"
    )
    with pytest.raises(UsageError) as refused:
        by_hand(bench, case, "archive", daemon=True)
    assert refused.value.hint == f"wait for its end, or: mqi exec kill {case.key} run"
    bench.answer(by_hand(bench, case, "run"), EventKind.GAVE_UP, reason="an operator ended it", hint="")
    by_hand(bench, case, "archive")


def waiting_archive(bench: Any) -> tuple[Any, Any]:
    """Let a case's archive wait for a run that is done again by hand; return the case with the run's command."""
    case, archive = at_archive(bench)
    bench.answer(archive, EventKind.WAIT, seconds=10.0, note="the disk is full")
    run = by_hand(bench, case, "run")
    bench.clock.turn(20)
    bench.clockwork.tick()
    assert bench.part(case).waiting_for == f"case:{case.id}"
    return case, run


def test_an_archive_waits_for_the_next_try_of_a_run(bench: Any) -> None:
    _, run = waiting_archive(bench)

    bench.answer(run, EventKind.RETRY, reason="it broke", hint="", after=100.0, host="")

    assert bench.commands() == [], "the archive waits for the next try, too"
    bench.clock.turn(50)
    bench.clockwork.tick()
    assert bench.commands() == []
    bench.clock.turn(60)
    bench.clockwork.tick()
    again = bench.command()
    assert (again.step, again.attempt) == ("run", 3)
    bench.do(again)
    assert bench.command().step == "archive"


def test_an_archive_waits_for_the_parts_that_a_plan_has_listed(make_bench: Any) -> None:
    bench = make_bench(fans_out=True)
    case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command(), parts=1, plan="0" * 32)
    bench.do(bench.command())
    bench.answer(bench.command(), EventKind.WAIT, seconds=10.0, note="the disk is full")
    bench.store.parts.update(bench.part(case, "run").id, current=False)  # as if the list had to be made again
    plan = by_hand(bench, case, "run")
    assert plan.plan
    bench.clock.turn(20)
    bench.clockwork.tick()
    assert bench.part(case).waiting_for == f"case:{case.id}"

    bench.answer(plan, EventKind.DONE, facts={"parts": 2, "plan": "0" * 32})

    assert {each.step for each in bench.commands()} == {"run"}


def test_a_next_try_goes_on_though_the_archive_stands_before_it(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.retry(archive)
    run = by_hand(bench, case, "run")
    bench.answer(run, EventKind.RETRY, reason="it broke", hint="", after=5.0, host="")
    attempt = bench.part(case)
    bench.store.parts.update(attempt.id, state=PartState.WORKING, turn=1, waiting_for="", due_at=None, lease_until=1e12)
    bench.clock.turn(10)
    bench.clockwork.tick()
    assert bench.part(case, "run").waiting_for == f"case:{case.id}"
    bench.store.parts.update(attempt.id, state=PartState.WAITING, waiting_for=f"case:{case.id}", lease_until=None)

    bench.clockwork.tick()

    again = bench.command()
    assert again.step == "run"
    bench.do(again)
    assert bench.command().step == "archive"


def test_two_steps_that_want_to_be_alone_go_one_after_the_other(bench: Any) -> None:
    first, run, last = bench.workflow.steps
    bench.config.workflows["qa"] = Workflow("qa", (first, run, replace(last, name="a1"), replace(last, name="a2")))
    case = bench.case()
    for _ in range(3):
        bench.do(bench.command())
    a2 = bench.command()
    bench.answer(a2, EventKind.GAVE_UP, reason="no disk", hint="")
    a1 = by_hand(bench, case, "archive", step="a1")
    bench.acts.retry(case.id)
    assert bench.part(case, "a2").waiting_for == f"case:{case.id}"

    bench.answer(a1, EventKind.WAIT, seconds=10.0, note="the disk is full")
    bench.clock.turn(20)
    bench.clockwork.tick()
    bench.clockwork.tick()

    one = bench.command()
    assert one.step in ("a1", "a2")
    bench.do(one)
    other = bench.command()
    assert {one.step, other.step} == {"a1", "a2"}


QUEUED, WAITS, DUE = "queued", "waits for the case", "due"


@pytest.mark.parametrize("names", [("run", "a1", "a2"), ("upload", "run", "a1")])
def test_steps_that_want_to_be_alone_never_stick_and_never_meet(bench: Any, names: tuple[str, ...]) -> None:
    first, run, last = bench.workflow.steps
    archives = [replace(last, name=name) for name in ("a1", "a2")]
    bench.config.workflows["qa"] = Workflow("qa", (first, run, *archives))

    for order in itertools.permutations(names):
        for states in itertools.product((QUEUED, WAITS, DUE), repeat=len(names)):
            if states.count(QUEUED) > 1:
                continue
            case = bench.case()
            bench.do(bench.command())
            bench.answer(bench.command(), EventKind.DONE, facts={})
            bench.answer(bench.command(), EventKind.DONE, facts={})
            bench.command()
            bench.store.parts.update(bench.part(case, "a2").id, state=PartState.CANCELLED)
            row = bench.fresh(case)
            with bench.store.transaction():
                for name, state in zip(order, states, strict=True):
                    part = bench.conductor.add_attempt(row, bench.config.workflows["qa"].step(name), part="")
                    if state == QUEUED:
                        bench.conductor.dispatch.give_turn(part, settle=False)
                    elif state == WAITS:
                        bench.store.parts.update(part.id, turn=1, waiting_for=f"case:{case.id}")
                    else:
                        bench.store.parts.update(part.id, turn=1, waiting_for="time", due_at=bench.clock.now())
            done: list[str] = []
            for _ in range(3 * len(names)):
                bench.clockwork.tick()
                at_work = {
                    each.step
                    for each in bench.store.parts.live_of_case(case.id)
                    if each.state in (PartState.QUEUED, PartState.WORKING)
                }
                assert len(at_work) <= 1 or not at_work & {"a1", "a2"}, (order, states)
                for command in bench.commands():
                    if bench.answer(command, EventKind.DONE, facts={}):
                        done.append(command.step)
            assert sorted(done) == sorted(names), (order, states)


def test_a_new_attempt_on_a_host_ends_its_being_cleared(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.do(archive, cleared=["hpc"])
    assert bench.fresh(case).cleared == ("hpc",)
    view = bench.intake.view(bench.fresh(case))
    assert (view.alive, view.cleared) == ((), {"hpc"})

    run = by_hand(bench, case, "run")

    view = bench.intake.view(bench.fresh(case))
    assert (view.state, view.alive, view.cleared) == (CaseState.DONE, ("run",), frozenset())
    bench.answer(run, EventKind.BUG, reason="KeyError", traceback="")
    assert bench.part(case, "run").state is PartState.FAILED
    assert bench.intake.view(bench.fresh(case)).alive == ("run",), "nobody knows whether it lives"


def test_an_attempt_that_cleared_nothing_does_not_count_for_what_a_former_one_cleared(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.do(archive, cleared=["hpc"])
    bench.do(by_hand(bench, case, "run"))

    bench.do(by_hand(bench, case, "archive"))  # `clear_host` is false now

    assert bench.fresh(case).cleared == ()


def test_what_finished_is_told_with_its_newest_attempt_and_its_times(bench: Any) -> None:
    case, archive = at_archive(bench)
    bench.do(archive)
    bench.clock.turn(100)
    run = by_hand(bench, case, "run")
    bench.clock.turn(100)
    bench.answer(run, EventKind.DONE, facts={"exit_code": 0})

    finished = {each.step: each for each in bench.intake.view(bench.fresh(case)).finished}

    assert list(finished) == ["upload", "run", "archive"]
    assert (finished["run"].attempt, finished["run"].facts) == (2, {"exit_code": 0})
    assert finished["run"].ended_at - finished["run"].made_at == 100
    assert finished["run"].made_at - finished["archive"].ended_at == 100
