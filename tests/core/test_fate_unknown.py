"""A run on a host whose end nobody has seen: it keeps its GPU, nothing begins beside it, and a cancel reaches it."""

from __future__ import annotations

from typing import Any

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.clockwork import MAX_LOSSES
from mqi_cli.errors import UsageError
from mqi_cli.message import EventKind


@pytest.fixture
def bench(make_bench: Any) -> Any:
    """A conductor with one GPU, which the step `run` needs."""
    bench = make_bench(gpus=1)
    bench.gpus(1)
    return bench


def computing(bench: Any) -> tuple[Any, Any]:
    """Bring a case to a run that computes on its host; return it with the last command."""
    case = bench.case()
    bench.do(bench.command())
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    bench.answer(run, EventKind.WAIT, seconds=5.0, note="computing")
    bench.clock.turn(6)
    bench.clockwork.tick()
    again = bench.command()
    bench.answer(again, EventKind.ACCEPTED)
    return case, again


def leased(bench: Any) -> bool:
    return bench.store.gpus.all()[0].lease is not None


def lose_workers(bench: Any, case: Any, command: Any) -> None:
    """Let every worker that takes the run vanish until the conductor gives up."""
    for _ in range(MAX_LOSSES):
        bench.clock.turn(61)
        bench.clockwork.tick()
        command = bench.command()
        bench.answer(command, EventKind.ACCEPTED)
    bench.clock.turn(61)
    bench.clockwork.tick()
    assert bench.fresh(case).state is CaseState.HELD


def bug(bench: Any, case: Any, command: Any) -> None:
    """Let the stage fail by a bug."""
    bench.answer(command, EventKind.BUG, reason="TypeError", traceback="")
    assert bench.fresh(case).state is CaseState.HELD


UNKNOWN_ENDS = pytest.mark.parametrize("end", [lose_workers, bug])


@pytest.mark.parametrize("waits_for", ["host", "time"])
def test_rerun_is_refused_while_a_run_that_was_begun_waits_for_its_host_or_a_time(bench: Any, waits_for: str) -> None:
    case, command = computing(bench)
    if waits_for == "host":
        bench.answer(command, EventKind.RETRY, reason="no route", hint="", after=None, host="hpc")
    else:
        bench.acts.cancel(case.id)
        bench.retry(bench.command(), "the kill failed")
    assert bench.part(case).waiting_for.startswith(waits_for)

    with pytest.raises(UsageError, match="a run of it may be alive on hpc") as refusal:
        bench.acts.rerun(case.id)

    assert f"mqi case cancel {case.key}" in refusal.value.hint
    assert leased(bench)
    assert bench.fresh(case).step == "run"


def test_changed_content_does_not_overtake_a_first_step_that_may_run_on_its_host(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    workflow = bench.workflow
    bench.config.workflows["qa"] = type(workflow)("qa", workflow.steps[1:])
    case = bench.case("one")
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    bench.answer(run, EventKind.RETRY, reason="no route", hint="", after=None, host="hpc")

    bench.case("one", fingerprint="e" * 64)

    assert bench.fresh(case).state is CaseState.WAITING
    assert leased(bench)
    assert bench.now("in", "one").revision == 2


@UNKNOWN_ENDS
def test_a_run_whose_end_is_unknown_keeps_its_gpu_from_others(bench: Any, end: Any) -> None:
    case, command = computing(bench)
    end(bench, case, command)
    bench.gpus(1)
    other = bench.case()
    bench.do(bench.command())

    assert leased(bench)
    assert bench.commands() == []
    assert "0 of 1 free" in bench.fresh(other).reason


@UNKNOWN_ENDS
def test_the_next_attempt_takes_the_gpu_over_and_gives_it_back_at_its_end(bench: Any, end: Any) -> None:
    case, command = computing(bench)
    end(bench, case, command)
    bench.gpus(1)

    bench.acts.retry(case.id)

    order = bench.command()
    assert (order.attempt, [gpu.uuid for gpu in order.gpus]) == (2, ["GPU-0"])
    bench.do(order)
    assert not leased(bench)
    bench.finish(case)
    assert bench.fresh(case).state is CaseState.DONE
    bench.acts.rerun(case.id)


def test_an_attempt_that_fails_after_one_of_unknown_end_keeps_the_gpu_too(bench: Any) -> None:
    case, command = computing(bench)
    bug(bench, case, command)
    bench.gpus(1)
    bench.acts.retry(case.id)
    order = bench.command()
    bench.answer(order, EventKind.ACCEPTED)

    bench.answer(order, EventKind.GAVE_UP, reason="a file is missing", hint="")

    assert leased(bench)
    bench.acts.cancel(case.id)
    bench.answer(bench.command(), EventKind.CANCELLED, note="ended")
    assert not leased(bench)
    assert bench.store.parts.maybe_alive(case.id) == []


@UNKNOWN_ENDS
def test_cancel_of_a_held_case_ends_the_run_that_may_live_first(bench: Any, end: Any) -> None:
    case, command = computing(bench)
    end(bench, case, command)
    with pytest.raises(UsageError, match="may be alive on hpc"):
        bench.acts.rerun(case.id)

    assert "ended first" in bench.acts.cancel(case.id)

    order = bench.command()
    assert (order.cancel, order.attempt, order.step) == (True, 1, "run")
    assert leased(bench)
    bench.answer(order, EventKind.ACCEPTED)
    bench.answer(order, EventKind.CANCELLED, note="ended")
    assert bench.fresh(case).state is CaseState.CANCELLED
    assert not leased(bench)
    bench.acts.rerun(case.id)


def test_cancel_reaches_the_run_of_a_former_attempt_behind_one_that_has_not_begun(bench: Any) -> None:
    case, command = computing(bench)
    bug(bench, case, command)
    bench.acts.drain("works")
    bench.acts.retry(case.id)
    assert bench.part(case).turn == 0

    bench.acts.cancel(case.id)

    order = bench.command()
    assert (order.cancel, order.attempt) == (True, 2)
    assert bench.fresh(case).state is CaseState.RUNNING


def test_a_cancel_that_fails_is_asked_for_again_and_never_begins_the_run_anew(bench: Any) -> None:
    case, _ = computing(bench)
    bench.acts.cancel(case.id)
    for _ in range(5):  # more often than the stage has attempts
        order = bench.command()
        assert (order.cancel, order.attempt) == (True, 1)
        bench.retry(order, "the kill failed")
        assert "not cancelled yet: the kill failed" in bench.fresh(case).reason
        assert leased(bench)
        bench.clock.turn(200)
        bench.clockwork.tick()

    bench.answer(bench.command(), EventKind.CANCELLED, note="ended")

    assert bench.fresh(case).state is CaseState.CANCELLED


def test_a_cancel_that_is_given_up_holds_the_case_and_can_be_asked_for_again(bench: Any) -> None:
    case, _ = computing(bench)
    bench.acts.cancel(case.id)

    bench.answer(bench.command(), EventKind.GAVE_UP, reason="not ours", hint="")

    held = bench.fresh(case)
    assert (held.state, held.cancelling) == (CaseState.HELD, False)
    assert "could not be cancelled: not ours" in held.reason
    assert leased(bench)
    bench.acts.cancel(case.id)
    order = bench.command()
    assert (order.cancel, order.attempt) == (True, 1)
    bench.answer(order, EventKind.CANCELLED, note="ended")
    assert bench.fresh(case).state is CaseState.CANCELLED


def test_retry_of_a_cancelled_case_goes_on_from_its_step_to_the_end(bench: Any) -> None:
    case, _ = computing(bench)
    bench.acts.cancel(case.id)
    bench.answer(bench.command(), EventKind.CANCELLED, note="ended")

    bench.gpus(1)
    bench.acts.retry(case.id)

    order = bench.command()
    assert (order.step, order.attempt, order.cancel) == ("run", 2, False)
    assert bench.part(case).state is PartState.QUEUED
    bench.do(order)
    bench.finish(case)
    assert bench.fresh(case).state is CaseState.DONE


def test_a_gpu_that_was_not_looked_at_for_long_is_not_given(bench: Any) -> None:
    bench.clock.turn(1200)
    case = bench.case()
    bench.do(bench.command())

    assert bench.commands() == []
    assert bench.fresh(case).reason == "the last look at the GPUs of hpc is 20 min old"
    bench.gpus(1)
    assert bench.command().gpus


def test_a_held_case_names_its_step_in_its_step_and_not_again_in_its_reason(bench: Any) -> None:
    case = bench.case()
    bench.answer(bench.command(), EventKind.GAVE_UP, reason="bad", hint="")

    assert (bench.fresh(case).step, bench.fresh(case).reason) == ("upload", "bad")


@UNKNOWN_ENDS
def test_a_retry_does_not_wait_behind_those_who_wait_for_the_gpu_of_its_former_run(bench: Any, end: Any) -> None:
    case, command = computing(bench)
    other = bench.case("other")
    bench.do(bench.command())
    end(bench, case, command)
    assert bench.fresh(other).state is CaseState.WAITING

    bench.acts.retry(case.id)

    again = bench.command()
    assert (again.case, len(again.gpus)) == (case.key, 1)
