"""The config loses a workflow, a step or a host while cases are in them: they wait and say so, and go on when it is back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mqi_cli.acts import Acts
from mqi_cli.case import CaseState, PartState
from mqi_cli.clockwork import Clockwork
from mqi_cli.conductor import Conductor
from mqi_cli.errors import UsageError
from mqi_cli.message import EventKind
from mqi_cli.stage import Workflow


def without_run(config: Any) -> Any:
    """Return the config with a workflow that has lost its step `run`."""
    steps = tuple(step for step in config.workflows["qa"].steps if step.name != "run")
    return dataclasses.replace(config, workflows={"qa": Workflow("qa", steps)})


LOSSES = {
    "workflow qa": lambda config: dataclasses.replace(config, workflows={}),
    "step run in workflow qa": without_run,
    "host hpc": lambda config: dataclasses.replace(config, hosts={}),
}


def restart(bench: Any, config: Any) -> Clockwork:
    """Let a conductor with this config begin where the former one ended."""
    bench.conductor = Conductor(bench.store, config, clock=bench.clock)
    bench.acts = Acts(bench.conductor, actor="somebody")
    clockwork = Clockwork(bench.conductor, lane_is_idle=lambda lane: True)
    clockwork.start_anew()
    return clockwork


def computing(bench: Any) -> Any:
    """Bring a case to a run that computes on its host."""
    case = bench.case()
    bench.do(bench.command())
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    bench.answer(run, EventKind.WAIT, seconds=5.0, note="computing")
    return case


@pytest.mark.parametrize("lost", LOSSES)
def test_a_due_turn_waits_for_what_the_config_has_lost_and_comes_when_it_is_back(bench: Any, lost: str) -> None:
    case = computing(bench)
    clockwork = restart(bench, LOSSES[lost](bench.config))
    bench.clock.turn(6)
    clockwork.tick()
    waiting = bench.fresh(case)
    assert (waiting.state, waiting.reason) == (CaseState.WAITING, f"the config has no {lost} any more")
    assert "mqi daemon reload" in waiting.hint
    assert bench.commands() == []
    restart(bench, bench.config)
    again = bench.command()
    assert (again.step, again.attempt, again.turn) == ("run", 1, 2)


@pytest.mark.parametrize("lost", ["workflow qa", "step run in workflow qa"])
def test_a_failure_of_a_step_that_is_gone_holds_the_case(bench: Any, lost: str) -> None:
    case = bench.case()
    bench.do(bench.command())
    run = bench.command()
    bench.answer(run, EventKind.ACCEPTED)
    restart(bench, LOSSES[lost](bench.config))
    assert bench.answer(run, EventKind.RETRY, reason="it broke", hint="", after=None, host="")
    assert bench.fresh(case).state is CaseState.HELD
    with pytest.raises(UsageError, match="no step run in workflow qa any more"):
        bench.acts.retry(case.id)
    assert bench.fresh(case).state is CaseState.HELD
    restart(bench, bench.config)
    bench.acts.retry(case.id)
    assert bench.command().attempt == 2


def test_a_run_whose_step_is_gone_is_not_taken_for_dead_by_a_cancel(bench: Any) -> None:
    case = computing(bench)
    restart(bench, without_run(bench.config))
    bench.acts.cancel(case.id)
    assert bench.fresh(case).state is CaseState.WAITING
    assert bench.part(case).state is PartState.WAITING
    restart(bench, bench.config)
    assert bench.command().cancel
