"""What an operator does to cases, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.errors import UsageError
from mqi_cli.message import EventKind


def held(bench: Any) -> Any:
    """Bring a case to be held at its first step."""
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.REMEMBERED, facts={"sent": 5})
    bench.answer(command, EventKind.GAVE_UP, reason="bad", hint="")
    return case


def test_retry_goes_on_from_the_failed_step_with_a_new_attempt(bench: Any) -> None:
    case = held(bench)

    assert "upload" in bench.acts.retry(case.id)

    command = bench.command()
    assert (command.step, command.attempt, command.facts) == ("upload", 2, {"sent": 5})
    bench.do(command)
    bench.finish(case)
    assert bench.fresh(case).state is CaseState.DONE


def test_retry_brings_the_next_try_forward(bench: Any) -> None:
    case = bench.case()
    bench.retry(bench.command())
    assert bench.commands() == []

    bench.acts.retry(case.id)

    assert bench.command().attempt == 2


def test_retry_of_a_case_that_runs_is_refused(bench: Any) -> None:
    case = bench.case()

    with pytest.raises(UsageError, match="running"):
        bench.acts.retry(case.id)


def test_rerun_begins_with_the_first_step_and_forgets_what_was_reached(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)

    bench.acts.rerun(case.id)

    command = bench.command()
    assert (command.step, command.attempt) == ("upload", 2)
    bench.do(command)
    run = bench.command()
    assert [done.attempt for done in run.earlier] == [2]


def test_rerun_is_refused_while_somebody_works_on_the_case(bench: Any) -> None:
    case = bench.case()
    bench.answer(bench.command(), EventKind.ACCEPTED, worker="sftp@here-1")

    with pytest.raises(UsageError, match="sftp@here-1"):
        bench.acts.rerun(case.id)


def test_pause_begins_no_further_step_and_resume_goes_on(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    assert "upload goes on" in bench.acts.pause(case.id)

    bench.answer(command, EventKind.DONE, facts={})

    assert bench.commands() == []
    assert bench.fresh(case).state is CaseState.WAITING
    assert "paused by an operator" in bench.fresh(case).reason
    bench.acts.resume(case.id)
    assert bench.command().step == "run"


def test_cancel_ends_at_once_what_leaves_nothing_running(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)

    assert bench.acts.cancel(case.id) == "cancelled"

    assert bench.fresh(case).state is CaseState.CANCELLED
    assert not bench.answer(command, EventKind.DONE, facts={})
    assert bench.fresh(case).state is CaseState.CANCELLED


def test_cancel_ends_a_remote_run_first_and_keeps_its_gpus_until_that_is_proven(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    case = bench.case()
    bench.do(bench.command())
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    bench.answer(run, EventKind.WAIT, seconds=5.0, note="computing")

    assert "ended first" in bench.acts.cancel(case.id)

    order = bench.command()
    assert order.cancel
    assert order.attempt == run.attempt
    assert bench.store.gpus.all()[0].lease is not None
    assert bench.fresh(case).state is CaseState.RUNNING
    bench.answer(order, EventKind.ACCEPTED)
    bench.answer(order, EventKind.CANCELLED, note="ended")
    assert bench.fresh(case).state is CaseState.CANCELLED
    assert bench.store.gpus.all()[0].lease is None


def test_a_cancel_waits_for_its_host_rather_than_forget_the_run(bench: Any) -> None:
    case = bench.case()
    bench.do(bench.command())
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    bench.acts.cancel(case.id)
    order = bench.command()

    bench.retry(order, "no route", host="hpc")

    assert bench.fresh(case).state is CaseState.WAITING
    bench.clock.turn(1000)
    bench.clockwork.tick()
    again = bench.command()
    assert again.cancel
    bench.answer(again, EventKind.CANCELLED, note="ended")
    assert bench.fresh(case).state is CaseState.CANCELLED


def test_a_step_by_hand_is_leased_and_moves_the_case_like_a_workers(bench: Any) -> None:
    case = bench.case()
    queued = bench.command()

    command = bench.claims.claim(case.id, "upload", worker="hand:me@here-1", daemon_running=False)

    assert (command.attempt, command.turn) == (1, 2)
    assert not bench.answer(queued, EventKind.ACCEPTED)
    bench.answer(command, EventKind.DONE, worker="hand:me@here-1", facts={})
    assert bench.fresh(case).step == "run"


def test_a_step_that_a_worker_has_is_refused_and_the_worker_named(bench: Any) -> None:
    case = bench.case()
    bench.answer(bench.command(), EventKind.ACCEPTED, worker="sftp@here-7")

    with pytest.raises(UsageError, match=r"sftp@here-7 works on upload .*lease for 60 s"):
        bench.claims.claim(case.id, "upload", worker="hand:me@here-1", daemon_running=True)


def test_a_step_that_is_queued_for_a_running_daemon_is_left_to_it(bench: Any) -> None:
    case = bench.case()
    bench.command()

    with pytest.raises(UsageError, match="queued for the daemon"):
        bench.claims.claim(case.id, "upload", worker="hand:me@here-1", daemon_running=True)


def test_a_later_step_is_refused_and_an_earlier_one_is_repeated_without_moving_the_case(bench: Any) -> None:
    case = bench.case()
    with pytest.raises(UsageError, match="stands at step upload, which comes before archive"):
        bench.claims.claim(case.id, "archive", worker="hand:me@here-1", daemon_running=False)
    bench.do(bench.command())

    command = bench.claims.claim(case.id, "upload", worker="hand:me@here-1", daemon_running=False)
    bench.answer(command, EventKind.DONE, facts={})

    assert bench.fresh(case).step == "run"
    assert bench.part(case, "upload").state is PartState.DONE
    assert bench.part(case, "upload").attempt == 2


def redo(bench: Any, case: Any, step: str, kind: EventKind, **data: Any) -> None:
    """Do a step again by hand, and let it end so."""
    command = bench.claims.claim(case.id, step, worker="hand:me@here-1", daemon_running=False)
    bench.answer(command, kind, worker="hand:me@here-1", **data)


@pytest.mark.parametrize("many", [False, True], ids=["gave up", "no tries left"])
def test_an_earlier_step_that_fails_when_it_is_done_again_by_hand_holds_nothing_and_says_so(
    bench: Any, many: bool
) -> None:
    case = bench.case()
    bench.finish(case)
    assert bench.fresh(case).state is CaseState.DONE

    if many:
        command = bench.claims.claim(case.id, "run", worker="hand:me@here-1", daemon_running=False)
        bench.store.parts.update(bench.part(case, "run").id, tries=2)
        bench.answer(
            command, EventKind.RETRY, worker="hand:me@here-1", reason="exit code 3", hint="", after=None, host=""
        )
    else:
        redo(bench, case, "run", EventKind.GAVE_UP, reason="exit code 3", hint="")

    assert bench.fresh(case).state is CaseState.DONE
    assert bench.texts(case)[-1] == (
        "run failed when it was done again: exit code 3; its attempt 1 still counts, and the case stays done"
    )
    assert not [each for each in bench.store.events.of_case(case.id) if each.kind == "held"]
    assert bench.part(case, "run").hint == ("" if many else "mend it, then: do step run by hand again")

    redo(bench, case, "run", EventKind.DONE, facts={})
    assert bench.part(case, "run").state is PartState.DONE


def test_the_last_step_that_fails_when_it_is_done_again_holds_its_case(bench: Any) -> None:
    case = bench.case()
    bench.finish(case)

    redo(bench, case, "archive", EventKind.GAVE_UP, reason="no room", hint="")

    assert bench.fresh(case).state is CaseState.HELD
    assert bench.texts(case)[-1] == "held: archive: no room"


def test_a_held_step_is_worked_on_by_hand_and_the_case_goes_on(bench: Any) -> None:
    case = held(bench)

    command = bench.claims.claim(case.id, "upload", worker="hand:me@here-1", daemon_running=True)
    assert bench.fresh(case).state is CaseState.RUNNING
    bench.answer(command, EventKind.DONE, facts={})

    assert bench.fresh(case).step == "run"


def test_a_step_that_is_being_cancelled_is_nobodys_to_take_up(bench: Any) -> None:
    case = bench.case()
    bench.do(bench.command())
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.WAIT, seconds=5, note="it runs")
    bench.acts.cancel(case.id)
    bench.retry(bench.command(), "the host does not answer", host="hpc")
    assert bench.part(case).cancel
    before = bench.part(case)
    with pytest.raises(UsageError, match="being cancelled"):
        bench.claims.claim(case.id, "run", worker="somebody", daemon_running=False)
    assert bench.part(case) == before


def test_retry_of_a_case_whose_host_is_paused_tries_the_host_now(bench: Any) -> None:
    case = bench.case()
    bench.retry(bench.command(), "its disk is full", host="hpc")
    assert bench.fresh(case).state is CaseState.WAITING
    assert bench.commands() == []

    assert bench.acts.retry(case.id) == "host hpc is tried again now"
    bench.do(bench.command())

    assert bench.fresh(case).step == "run"


def test_retry_leaves_a_host_alone_that_an_operator_has_paused(bench: Any) -> None:
    case = bench.case()
    bench.retry(bench.command(), "its disk is full", host="hpc")
    bench.acts.hold_host("hpc", "its disk is changed")

    with pytest.raises(UsageError, match="the case waits"):
        bench.acts.retry(case.id)


def test_retry_asks_a_stage_that_waits_for_something_at_once(bench: Any) -> None:
    case = bench.case()
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.WAIT, seconds=120, note="the disk has too little room")
    bench.acts.retry(case.id)
    again = bench.command()
    assert (again.attempt, again.turn) == (1, 2)
    with pytest.raises(UsageError, match="nothing to retry"):
        bench.acts.retry(case.id)


def test_by_hand_a_host_with_a_queue_of_its_own_needs_no_gpu_of_ours(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    host = bench.config.hosts["hpc"]
    bench.config.hosts["hpc"] = host.model_copy(update={"scheduler": "slurm"})
    case = bench.case()
    bench.do(bench.command())
    part = bench.part(case)
    assert part.gpus == 0
    bench.answer(bench.command(), EventKind.GAVE_UP, reason="exit code 3", hint="")

    command = bench.claims.claim(case.id, "run", worker="hand", daemon_running=False)

    assert (command.attempt, command.gpus) == (2, ())
