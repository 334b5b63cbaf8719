"""Hosts that pause, GPUs that are leased, jobs that are counted, a drain: what a case waits for, and who wakes it."""

from __future__ import annotations

from typing import Any

import pytest

from mqi_cli.case import CaseState
from mqi_cli.message import EventKind
from mqi_cli.patrol import GpuSeen, HostSeen


def to_run(bench: Any, count: int = 1) -> list[Any]:
    """Bring cases to the step `run`."""
    cases = [bench.case() for _ in range(count)]
    for command in bench.commands():
        bench.do(command)
    return cases


def test_a_host_that_is_down_pauses_the_host_and_uses_up_nobodys_tries(bench: Any) -> None:
    first, second = bench.case(), bench.case()
    one, two = bench.commands()
    bench.retry(one, "no route", host="hpc")
    bench.retry(two, "no route", host="hpc")

    for case in (first, second):
        row = bench.fresh(case)
        assert row.state is CaseState.WAITING
        assert "hpc is paused: no route" in row.reason
        assert row.until is not None
        assert bench.part(case).tries == 0
    assert bench.store.hosts.get("hpc").failures == 1
    assert len(bench.store.switches.alerts()) == 1


def test_one_case_tries_a_paused_host_and_the_rest_follow_once_it_answers(bench: Any) -> None:
    for _ in range(3):
        bench.case()
    for command in bench.commands():
        bench.retry(command, "no route", host="hpc")
    bench.clock.turn(60)
    bench.clockwork.tick()

    probe = bench.command()
    bench.answer(probe, EventKind.ACCEPTED)
    bench.answer(probe, EventKind.DONE, facts={})

    assert bench.store.hosts.get("hpc").state == "up"
    assert len(bench.commands()) == 3  # the probe's next step and the two that waited
    assert bench.store.switches.alerts() == []


def test_a_host_that_stays_down_is_asked_less_and_less_often(bench: Any) -> None:
    bench.case()
    delays = []
    for _ in range(4):
        bench.retry(bench.command(), "no route", host="hpc")
        delays.append(bench.store.hosts.get("hpc").until - bench.clock.now())
        bench.clock.turn(delays[-1] + 1)
        bench.clockwork.tick()

    assert delays == sorted(delays)
    assert delays[-1] > 4 * delays[0]


def test_the_curators_look_takes_a_host_into_use_again(bench: Any) -> None:
    bench.case()
    bench.retry(bench.command(), "no route", host="hpc")

    bench.intake.take(HostSeen("hpc", True, load=0.5, cores=8))

    assert len(bench.commands()) == 1
    assert bench.store.hosts.get("hpc").load == 0.5


def test_a_full_host_is_tried_when_it_is_due_or_has_room_not_because_it_answers(bench: Any) -> None:
    second = bench.case("second")
    bench.do(bench.command())
    running = bench.command()
    bench.answer(running, EventKind.ACCEPTED)
    first = bench.case("first")
    bench.retry(bench.command(), "no space left", host="hpc", full=True)

    for _ in range(10):
        bench.intake.take(HostSeen("hpc", True, free_bytes=1000))
    bench.answer(running, EventKind.WAIT, seconds=600, note="it runs")  # of another case, which needs no room
    assert bench.commands() == [], "who answers is not yet one who has room"
    assert "host hpc is paused: no space left" in bench.fresh(first).reason
    assert bench.fresh(second).reason == "it runs"
    said = [each.text for each in bench.store.events.latest(limit=100) if each.kind == "host"]
    assert said == ["host hpc paused: no space left"], "one alert, not one for each look"

    bench.clock.turn(bench.store.hosts.get("hpc").until - bench.clock.now() + 1)
    bench.clockwork.tick()
    bench.retry(bench.command(), "no space left", host="hpc", full=True)
    bench.intake.take(HostSeen("hpc", True, free_bytes=200_000_000))
    assert bench.command().case == first.key
    assert not bench.store.switches.alerts()


def test_a_host_that_an_operator_holds_is_not_taken_into_use_by_itself(bench: Any) -> None:
    bench.acts.hold_host("hpc", "new disks")
    case = bench.case()
    bench.intake.take(HostSeen("hpc", True))
    bench.clock.turn(1000)
    bench.clockwork.tick()

    assert bench.commands() == []
    assert "paused by an operator" in bench.fresh(case).reason
    bench.acts.release_host("hpc")
    assert len(bench.commands()) == 1


def test_a_gpu_is_leased_with_the_command_and_free_again_when_the_part_ends(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    first, second = to_run(bench, 2)

    command = bench.command()
    assert [gpu.uuid for gpu in command.gpus] == ["GPU-0"]
    assert bench.fresh(second).state is CaseState.WAITING
    assert "waits for 1 GPU on hpc: 0 of 1 free" in bench.fresh(second).reason

    bench.do(command)

    follow = {each.case: each for each in bench.commands()}
    assert follow[first.key].step == "archive"
    assert follow[second.key].gpus[0].uuid == "GPU-0"


def test_who_waits_longest_for_gpus_is_served_first_and_nobody_overtakes(make_bench: Any) -> None:
    bench = make_bench(gpus=2)
    cases = to_run(bench, 3)
    assert bench.commands() == []
    bench.gpus(2)
    order = []
    for _ in range(3):
        (command,) = [each for each in bench.commands() if each.step == "run"]
        order.append(command.case)
        bench.do(command)

    assert order == [case.key for case in cases]


def test_priority_goes_before_arrival(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    cases = to_run(bench, 3)
    bench.acts.set_priority(cases[2].id, 5)
    bench.gpus(1)

    assert bench.command().case == cases[2].key


def test_a_foreign_process_keeps_a_gpu_from_being_given(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    (case,) = to_run(bench)
    bench.gpus(1, busy=1)
    assert bench.commands() == []
    assert bench.fresh(case).state is CaseState.WAITING

    bench.gpus(1)

    assert len(bench.commands()) == 1


def test_the_processes_of_the_lease_that_just_ended_are_not_foreign(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    to_run(bench, 2)
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.gpus(1, busy=1)  # our own run, as the driver shows it
    bench.clock.turn(1)

    bench.answer(command, EventKind.DONE, facts={})

    assert any(each.step == "run" for each in bench.commands())


def test_somebody_else_who_came_while_a_run_had_the_gpu_keeps_it_from_the_next(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    to_run(bench, 2)
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.gpus(1, foreign=1)
    bench.clock.turn(1)

    bench.answer(command, EventKind.DONE, facts={})

    assert not any(each.step == "run" for each in bench.commands())
    bench.gpus(1)
    assert any(each.step == "run" for each in bench.commands())


def test_a_gpu_that_is_held_back_is_not_leased_and_a_renumbered_one_keeps_its_lease(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(2)
    bench.acts.hold_gpu("GPU-0", held=True)
    to_run(bench)

    assert bench.command().gpus[0].uuid == "GPU-1"


def test_a_host_carries_no_more_jobs_than_its_limit(make_bench: Any) -> None:
    bench = make_bench(jobs=2)
    cases = to_run(bench, 3)
    commands = bench.commands()
    assert len(commands) == 2
    assert "runs 2 of 2 jobs" in bench.fresh(cases[2]).reason

    bench.do(commands[0])

    assert any(each.case == cases[2].key for each in bench.commands())


def test_who_waits_for_runs_of_unknown_fate_is_told_what_ends_them(make_bench: Any) -> None:
    bench = make_bench(jobs=1)
    first, second = to_run(bench, 2)
    (command,) = bench.commands()

    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.BUG, reason="TypeError", traceback="")

    waits = bench.fresh(second)
    assert waits.reason == "host hpc runs 1 of 1 jobs, and of 1 nobody knows whether it has ended"
    assert waits.hint == f"mqi exec kill {first.key} run"


def test_a_drain_begins_nothing_new_says_so_and_lets_what_runs_go_on(bench: Any) -> None:
    (running,) = to_run(bench)
    command = bench.command()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.WAIT, seconds=1.0, note="computing")
    bench.acts.drain("new disks")
    waiting = bench.case()
    bench.clock.turn(2)
    bench.clockwork.tick()

    assert [each.case for each in bench.commands()] == [running.key]
    assert "no new work is begun: new disks" in bench.fresh(waiting).reason
    bench.acts.drain("")
    assert [each.case for each in bench.commands()] == [waiting.key]


def test_a_case_that_still_waits_for_the_same_thing_keeps_the_time_since_when_it_does(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(0)
    case = bench.case()
    bench.do(bench.command())
    since = bench.fresh(case).updated_at
    assert bench.fresh(case).reason == "waits for 1 GPU on hpc: none was found there"
    bench.clock.turn(30)
    bench.gpus(0)  # a look, which asks anew whether it can go on
    assert bench.fresh(case).updated_at == since
    bench.clock.turn(30)
    bench.gpus(1, busy=1)
    assert bench.fresh(case).reason == "waits for 1 GPU on hpc: 0 of 1 free"
    assert bench.fresh(case).updated_at == bench.clock.now()


def leases(bench: Any) -> list[int | None]:
    """Return who has each GPU."""
    return [gpu.lease for gpu in bench.store.gpus.all()]


def want(bench: Any, gpus: int) -> None:
    """Let cases from now on ask for so many GPUs."""
    options = bench.workflow.step("run").options
    object.__setattr__(bench.workflow.step("run"), "options", options.model_copy(update={"gpus": gpus}))


def test_who_needs_two_gpus_is_not_starved_by_those_who_need_one(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(2)
    to_run(bench, 2)
    running = bench.commands()
    want(bench, 2)
    (large,) = to_run(bench)
    want(bench, 1)
    to_run(bench, 2)
    assert bench.commands() == []

    bench.do(running[0])  # one is free now, and nobody behind may take it
    assert [each for each in bench.commands() if each.step == "run"] == []
    bench.do(running[1])

    command = next(each for each in bench.commands() if each.step == "run")
    assert command.case == large.key
    assert len(command.gpus) == 2
    bench.do(command)
    assert len([each for each in bench.commands() if each.step == "run"]) == 2


def test_who_asks_for_more_gpus_than_there_are_says_so_and_stands_in_nobodys_way(make_bench: Any) -> None:
    bench = make_bench(gpus=3)
    bench.gpus(2)
    (greedy,) = to_run(bench)
    assert bench.commands() == []
    want(bench, 1)
    (small,) = to_run(bench)

    assert [each.case for each in bench.commands()] == [small.key]
    assert bench.fresh(greedy).reason == "it asks for 3 GPUs, and hpc has 2"
    bench.gpus(4)
    assert [each.case for each in bench.commands()] == [greedy.key]


def test_a_gpu_that_somebody_else_computes_on_is_not_waited_for_by_the_others(make_bench: Any) -> None:
    bench = make_bench(gpus=2)
    bench.gpus(2, busy=1)
    (large,) = to_run(bench)
    want(bench, 1)
    (small,) = to_run(bench)

    (command,) = bench.commands()
    assert command.case == small.key
    bench.do(command)
    bench.commands()
    bench.gpus(2)
    assert [each.case for each in bench.commands()] == [large.key]


def test_a_more_urgent_case_does_not_wait_behind_one_that_came_first(make_bench: Any) -> None:
    bench = make_bench(gpus=2)
    bench.gpus(2)
    want(bench, 1)
    to_run(bench)
    bench.commands()
    want(bench, 2)
    to_run(bench)  # waits: one is free
    want(bench, 1)
    urgent = bench.case()
    bench.acts.set_priority(urgent.id, 10)
    bench.do(bench.command())

    assert [each.case for each in bench.commands()] == [urgent.key]


def test_a_run_of_unknown_fate_counts_among_the_jobs_but_not_against_its_own_retry(make_bench: Any) -> None:
    bench = make_bench(jobs=1)
    case, other = to_run(bench, 2)
    (command,) = bench.commands()
    bench.answer(command, EventKind.ACCEPTED)
    bench.answer(command, EventKind.BUG, reason="TypeError", traceback="")

    assert bench.store.parts.jobs_on("hpc") == 1
    assert bench.commands() == [], "its run may live: the host is full"
    bench.acts.retry(case.id)

    again = bench.command()
    assert (again.case, again.attempt) == (case.key, 2)
    assert bench.store.parts.jobs_on("hpc") == 1, "one part, one run: the new attempt ends the old one"
    bench.do(again)
    assert bench.store.parts.jobs_on("hpc") == 1
    assert bench.fresh(other).reason.startswith("queued")


def test_more_parts_than_are_woken_at_once_all_follow_once_their_host_answers(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_cli.dispatch.WOKEN_AT_ONCE", 2)
    cases = [bench.case() for _ in range(7)]
    for command in bench.commands():
        bench.retry(command, "no route", host="hpc")
    bench.intake.take(HostSeen("hpc", True))
    for _ in range(3):
        bench.clock.turn(1)
        bench.clockwork.tick()

    assert [bench.fresh(case).state for case in cases] == [CaseState.RUNNING] * 7


def test_a_gpu_that_became_free_without_a_word_is_found_by_the_clock(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1, busy=1)
    cases = to_run(bench, 2)
    assert [bench.fresh(case).state for case in cases] == [CaseState.WAITING] * 2
    bench.store.gpus.saw("hpc", (GpuSeen("GPU-0", 0),), now=bench.clock.now())

    bench.clock.turn(11)
    bench.clockwork.tick()

    assert sorted(bench.fresh(case).state for case in cases) == [CaseState.RUNNING, CaseState.WAITING]


def test_a_jump_of_the_wall_clock_makes_a_look_at_the_gpus_neither_older_nor_younger(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    case = bench.case()
    bench.clock.jump(3600)
    bench.clockwork.tick()
    bench.do(bench.command())
    first = bench.command()
    assert (first.step, len(first.gpus)) == ("run", 1)
    bench.do(first)
    assert bench.fresh(case).step == "archive"

    bench.clock.jump(-2 * 86_400)
    bench.clockwork.tick()
    bench.commands()
    bench.clock.turn(700)
    later = bench.case()
    bench.do(bench.command())
    assert "the last look at the GPUs of hpc is" in bench.part(later).reason


def test_a_lease_of_a_part_that_ended_is_given_free_after_a_while(make_bench: Any) -> None:
    """Nothing of ours leaves such a lease; a state database that was mended by hand may."""
    bench = make_bench(gpus=1)
    bench.gpus(2)
    case, _ = to_run(bench, 2)
    done, other = bench.commands()
    part = bench.part(case)
    bench.do(done)
    with bench.store.transaction():
        bench.store.gpus.lease(part.id, ["GPU-0"])

    bench.gpus(2)
    assert leases(bench)[0] == part.id, "it has only just ended"
    bench.clock.turn(61)
    bench.gpus(2)

    assert leases(bench)[0] is None
    assert leases(bench)[1] is not None, f"{other.case} runs on"
    bench.clock.turn(1000)
    bench.gpus(2)
    assert leases(bench)[1] is not None


def test_what_was_known_of_a_host_goes_when_the_config_no_longer_has_it(bench: Any) -> None:
    bench.intake.take(HostSeen("old", False, "no route"))
    bench.gpus(1, host="old")
    bench.gpus(1, host="hpc")

    bench.clockwork.start_anew()

    assert "old" not in [host.name for host in bench.store.hosts.all()]
    assert [gpu.host for gpu in bench.store.gpus.all()] == ["hpc"]


def test_gpus_that_a_part_has_are_not_forgotten_with_their_host(make_bench: Any) -> None:
    bench = make_bench(gpus=1)
    bench.gpus(1)
    to_run(bench)
    bench.config.hosts.clear()

    bench.clockwork.start_anew()

    assert [gpu.lease is not None for gpu in bench.store.gpus.all()] == [True]
