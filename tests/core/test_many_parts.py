"""Workflows of several steps with as many parts as are allowed: what they left still fits into a later step's command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mqi_cli.case import CaseState, PartState
from mqi_cli.message import MAX_BYTES, MAX_PARTS, Command, encode
from mqi_cli.stage import Workflow

NAMES = ("interpret-all-the-fields", "simulate-each-of-the-beams", "postproc")


@pytest.fixture
def bench(make_bench: Any) -> Any:
    """A conductor whose host takes many runs."""
    return make_bench(jobs=10_000)


def with_steps(bench: Any, stage: str, *names: str) -> None:
    """Give the workflow these steps of a stage between its first and its last; runs fan out."""
    first, run, last = bench.workflow.steps
    like = {"upload": first, "run": replace(run, options=run.options.model_copy(update={"for_each": ("listed",)}))}
    steps = [replace(like[stage], name=name) for name in names]
    bench.config.workflows["qa"] = Workflow("qa", (first, *steps, last))


def end_all_but_the_last(bench: Any, case: Any, step: str, **facts: Any) -> None:
    """Let the parts of a step be done, all but the last: what 499 events would have done."""
    with bench.store.transaction():
        for part in bench.store.parts.of_step(case.id, step):
            if part.part not in ("", str(MAX_PARTS)):
                bench.store.parts.update(part.id, state=PartState.DONE, facts=facts)


def through(bench: Any, *names: str, **facts: Any) -> tuple[Any, Command]:
    """Bring a case through all steps that fan out; return it and the command that comes then."""
    with_steps(bench, "run", *names)
    case = bench.case()
    bench.do(bench.command())
    for name in names:
        bench.do(bench.command(), parts=MAX_PARTS, plan="0" * 32)
        commands: list[Command] = []
        while some := bench.commands():  # the relay takes some at once
            commands += some
        assert len(commands) == MAX_PARTS
        assert len(encode(commands[-1])) < MAX_BYTES
        end_all_but_the_last(bench, case, name, **facts)
        bench.do(commands[-1], **facts)
    return case, bench.command()


@pytest.mark.parametrize("facts", [{}, {"outputs": 1, "seconds": 1.5, "note": "x" * 300}], ids=["short", "long"])
@pytest.mark.parametrize("steps", [2, 3])
def test_several_steps_of_500_parts_are_followed_by_the_next(bench: Any, steps: int, facts: dict[str, Any]) -> None:
    case, after = through(bench, *NAMES[:steps], **facts)

    assert (bench.fresh(case).step, after.step) == ("archive", "archive")
    for name in NAMES[:steps]:
        known = [each for each in after.earlier if each.step == name]
        assert [each.part for each in known] == ["", *(str(number) for number in range(1, MAX_PARTS + 1))]
        assert {each.attempt for each in known} == {1}
        assert known[0].facts["plan"] == "0" * 32


def test_a_case_whose_steps_left_more_than_a_message_carries_is_held_and_says_so(bench: Any) -> None:
    names = [f"step-{number}" for number in range(20)]
    with_steps(bench, "upload", *names)
    case = bench.case()
    while commands := bench.commands():
        bench.do(commands[0], note="x" * 4000)

    row = bench.fresh(case)
    assert row.state is CaseState.HELD
    assert "more than a message carries" in row.reason
    assert f"mqi case rerun {case.key}" in row.hint
    assert bench.texts(case)[-1] == f"held: {row.step}: {row.reason}"


def test_parts_that_fit_into_no_message_fail_one_after_the_other_when_a_place_becomes_free(make_bench: Any) -> None:
    bench = make_bench(jobs=1, fans_out=True)
    busy_case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command(), parts=1, plan="0" * 32)
    busy = bench.command()
    case = bench.case()
    bench.do(bench.command())
    bench.do(bench.command(), parts=MAX_PARTS, plan="0" * 32)
    assert bench.commands() == []
    bench.store.parts.update(bench.part(case, "upload").id, facts={"note": "x" * 70_000})

    bench.do(busy)

    assert bench.part(busy_case, "run", "1").state is PartState.DONE
    for _ in range(3):
        bench.clock.turn(10)
        bench.clockwork.tick()
    assert {each.state for each in bench.store.parts.of_step(case.id, "run") if each.part} == {PartState.FAILED}
    assert bench.fresh(case).state is CaseState.HELD
    assert "more than a message carries" in bench.fresh(case).reason
