"""A run whose end nobody has seen: what its queue says is proof only where the machine that it began on answers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from exec.turns import Bench
from mqi_cli import CaseError, QueueState, Wait
from mqi_ssh_exec import watching
from mqi_ssh_exec.doubt import ABSENT_FOR, SETTLE_FOR, doubt, since, stalled
from mqi_ssh_exec.job_status import JobState, JobStatus
from mqi_ssh_exec.queue_view import ENDS

BEGUN = JobStatus(JobState.ENDED, 1, sent="14", started=5.0, node="node1.cluster", machine="node1", word="GONE")


class Run:
    """A run's records and its queue's word, without either. `answers` is what the scheduler says of the machine."""

    place = SimpleNamespace(attempt=1)

    def __init__(self, status: JobStatus, *, answers: bool | None) -> None:
        self.status = status
        self.answers = answers
        self.settled = ""

    def node_answers(self, node: str) -> bool | None:
        assert node == self.status.machine
        return self.answers

    def settle(self, reason: str) -> JobStatus:
        self.settled = reason
        return replace(self.status, state=JobState.FINISHED, reason=reason)

    def kill(self, **_: Any) -> JobStatus:
        return self.status


@pytest.fixture
def ctx(local_bench: Bench) -> Any:
    return local_bench.context("true")


@pytest.mark.parametrize("word", [each for each in ENDS if each is not QueueState.ENDED])
def test_no_word_of_a_queue_proves_the_end_of_a_run_on_a_machine_that_is_silent(ctx: Any, word: QueueState) -> None:
    run: Any = Run(replace(BEGUN, reason=ENDS[word]), answers=False)
    for now in (0.0, SETTLE_FOR, 100 * SETTLE_FOR):
        waits = doubt(ctx, run, replace(run.status, clock=now))
        assert isinstance(waits, Wait) and "node1 does not answer: unknown" in waits.note
    run.answers = True  # it writes its end down now, if it can
    answered = 100 * SETTLE_FOR
    assert doubt(ctx, run, replace(run.status, clock=answered)) and not run.settled
    assert doubt(ctx, run, replace(run.status, clock=answered + SETTLE_FOR - 1)) and not run.settled
    assert doubt(ctx, run, replace(run.status, clock=answered + SETTLE_FOR)) is None
    assert run.settled == ENDS[word]


def test_what_a_queue_called_the_end_of_a_run_outlives_that_it_forgets_it(ctx: Any) -> None:
    run: Any = Run(replace(BEGUN, reason="dequeued"), answers=False)
    assert doubt(ctx, run, run.status)
    forgotten = replace(run.status, state=JobState.ABSENT, reason="", word="", clock=30.0)
    assert "says GONE of the run" in (doubt(ctx, run, forgotten) or Wait(0, "")).note
    run.answers = True
    assert doubt(ctx, run, replace(forgotten, clock=40.0))
    assert doubt(ctx, run, replace(forgotten, clock=40.0 + SETTLE_FOR)) is None
    assert run.settled == "dequeued"


def test_where_a_queue_can_not_tell_how_a_machine_is_its_word_is_taken_but_not_that_it_failed(ctx: Any) -> None:
    run: Any = Run(replace(BEGUN, reason="timeout"), answers=None)
    doubt(ctx, run, run.status)
    assert doubt(ctx, run, replace(run.status, clock=SETTLE_FOR)) is None
    for status in (replace(BEGUN, reason="node"), replace(BEGUN, state=JobState.ABSENT)):
        run = Run(status, answers=None)
        for now in (0.0, 10 * ABSENT_FOR):
            assert "unknown" in (doubt(ctx, run, replace(status, clock=now)) or Wait(0, "")).note


def test_one_that_never_began_needs_no_machine_to_be_over(ctx: Any) -> None:
    run: Any = Run(replace(BEGUN, started=None, machine="", reason="dequeued"), answers=False)
    assert doubt(ctx, run, run.status) is None
    assert run.settled == "dequeued"


def test_a_moment_in_which_the_queue_does_not_know_a_run_does_not_begin_its_queue_limit_anew(ctx: Any) -> None:
    waiting = JobStatus(JobState.QUEUED, 1, sent="14", clock=100.0)
    assert since(ctx, "queued", waiting, fact="queued_since") == 0.0
    run: Any = Run(replace(waiting, state=JobState.ABSENT, clock=150.0), answers=None)
    assert doubt(ctx, run, run.status)
    assert since(ctx, "queued", replace(waiting, clock=200.0), fact="queued_since") == 100.0


def end(ctx: Any, run: Any) -> str:
    """End a run by hand, however long that takes; return what is said and the way out."""
    clock = iter(range(0, 10_000, 5))
    with pytest.raises(CaseError) as caught:
        watching._end(ctx, run, lambda: float(next(clock)), pause=lambda _: None)
    return f"{caught.value.message}; {caught.value.hint}"


def test_what_survives_is_told_to_who_ends_a_run(ctx: Any) -> None:
    stuck = JobStatus(JobState.HEADLESS, 1, pid=7, processes=2)
    said = end(ctx, Run(stuck, answers=None))
    assert "2 processes of the run survive on" in said and "hang in the kernel" in said
    held = replace(stuck, state=JobState.RUNNING, sent="14", processes=0, word="COMPLETING")
    said = end(ctx, Run(held, answers=True))
    assert "still has it (COMPLETING)" in said and "scancel 14" in said and "0 processes" not in said


def test_nobody_is_told_that_a_run_has_ended_whose_machine_is_silent(ctx: Any, capsys: Any) -> None:
    run = Run(replace(BEGUN, reason="cancelled", pid=7), answers=False)
    assert "was started on node1.cluster and can't be ended from" in end(ctx, run)
    assert not run.settled
    run.answers = True
    watching._end(ctx, run, lambda: 0.0, pause=lambda _: None)  # type: ignore[arg-type]
    assert run.settled == "operator" and "nothing of attempt 1 runs" in capsys.readouterr().out


def test_each_attempt_is_waited_for_by_itself(ctx: Any) -> None:
    run: Any = Run(replace(BEGUN, reason="timeout"), answers=True)
    doubt(ctx, run, run.status)
    assert doubt(ctx, run, replace(run.status, attempt=2, clock=SETTLE_FOR)), (
        "the first one's wait counts for the second"
    )


def test_a_wall_clock_that_jumps_ends_no_run_and_no_wait(ctx: Any) -> None:
    running = JobStatus(JobState.RUNNING, 1, now=1000.0, clock=50.0, started=990.0, ran=10.0)
    jumped = replace(running.later(5), now=1000.0 + 86400)
    assert (jumped.seconds, jumped.clock) == (15.0, 55.0)
    assert since(ctx, "absent", running) == 0.0
    assert since(ctx, "absent", jumped) == 5.0
    ctx.options = ctx.options.model_copy(update={"stall_limit": 60.0})
    assert not stalled(ctx, running) and not stalled(ctx, jumped)
    assert stalled(ctx, replace(running, clock=120.0))
    assert not stalled(ctx, replace(running, clock=120.0, log_lost=True)), "there was no space for its log"
    assert not stalled(ctx, replace(running, clock=3.0)), "the host was restarted: what was before counts no more"
    assert since(ctx, "absent", replace(running, clock=3.0)) == 0.0
