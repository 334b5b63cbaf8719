"""Runs through a real Slurm: submitted once, found again after any loss, ended, and never judged by guesswork."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exec.far_side import lines_of, until
from exec.turns import RUN, Bench, Context
from mqi_cli import CaseError, Done, Earlier, GiveUp, RetryLater, Wait
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec import doubt
from mqi_ssh_exec.job_status import OVER
from mqi_ssh_exec.lookout import lookout_of
from mqi_ssh_exec.slurm import Slurm
from mqi_ssh_exec.watching import _end
from servers.slurm import SlurmCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def queue(
    tmp_path: Path, slurm: SlurmCluster, login_node: OpenSSHServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """A case on a host with `scheduler: slurm`. What is waited for at length on a real cluster takes a moment here."""
    for name, seconds in (("SETTLE_FOR", 1.0), ("LOOK_AGAIN", 0.2)):
        monkeypatch.setattr(doubt, name, seconds)
    monkeypatch.setattr("mqi_ssh_exec.run.LOOK_TWICE_FAR", 1)
    monkeypatch.setattr("mqi_ssh_exec.lookout.QUEUE_AGE", 0.3)
    monkeypatch.setattr("mqi_ssh_exec.run.FAULT_PAUSE", 0.3)
    base = tmp_path / "far"
    base.mkdir()
    host = SshHost("far", login_node.host_section(base_dir=str(base), scheduler="slurm"), tmp_path)
    bench = Bench(tmp_path, host, Slurm())
    yield bench
    slurm.clear()
    host.close()
    bench.end_all()


def begun(queue: Bench, ctx: Context, *, within: float = 20.0) -> None:
    """Give turns until the command has written its first line."""
    end = time.monotonic() + within
    while "begun" not in lines_of(queue.ledger):
        queue.drive_once(ctx)
        assert time.monotonic() < end, "it did not begin"
        time.sleep(0.1)


def waits_until(queue: Bench, ctx: Context, text: str, *, within: float = 20.0) -> Wait:
    """Give turns until one waits for this."""
    end = time.monotonic() + within
    while True:
        wait = queue.drive_once(ctx)
        if text in wait.note:
            return wait
        assert time.monotonic() < end, f"{wait.note!r}, not {text!r}"
        time.sleep(0.1)


def long_run(queue: Bench, **options: Any) -> Context:
    """Return the context of a command that says that it begins, and goes on."""
    return queue.context(f"echo begun >> {queue.ledger}; sleep 60", **options)


def test_a_run_is_done_with_its_outputs_and_facts(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = queue.context("echo $SLURM_JOB_NUM_NODES > dose; echo hello", outputs=["dose"], cpus=2, memory="100MB")
    done, waits = queue.drive(ctx)
    assert done.facts["outputs"] == 1 and done.facts["exit_code"] == 0
    assert any("queue of far" in each.note for each in waits)
    assert (queue.job(ctx).tag, "COMPLETED") in slurm.jobs()


def test_it_gets_what_its_step_asks_for(queue: Bench) -> None:
    ctx = queue.context(
        "scontrol show job $SLURM_JOB_ID", cpus=3, memory="256MiB", gpus=2, time_limit="10m", partition="main",
        extra=["--nice=7"],
    )  # fmt: skip
    queue.drive(ctx)
    said = queue.log(ctx)
    assert "CPUs/Task=3" in said and "MinMemoryNode=256M" in said and "gres:gpu:2" in said and "Nice=7" in said
    assert "TimeLimit=00:12:00" in said and "Partition=main" in said and "Requeue=0" in said
    assert f"Comment={queue.job(ctx).tag}" in said and "Meier" not in said


def test_why_it_waits_in_the_queue_is_shown_and_it_can_be_limited(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue, partition="closed", queue_limit="2s")
    waits_until(queue, ctx, "PartitionDown")
    with pytest.raises(GiveUp, match="longer than its queue_limit of 2 s"):
        queue.drive(ctx)
    until(lambda: (queue.job(ctx).tag, "CANCELLED") in slurm.jobs(), what="its job is taken out")
    assert not lines_of(queue.ledger)


def test_a_look_from_before_it_was_submitted_says_nothing_of_a_run(
    queue: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_ssh_exec.lookout.QUEUE_AGE", 60.0)
    ctx = long_run(queue, partition="closed")
    notes = [queue.drive_once(ctx).note for _ in range(3)]
    assert all("in the queue of far" in note for note in notes), notes


def test_of_three_runs_on_two_gpus_one_waits(queue: Bench) -> None:
    first, second, third = (long_run(queue, gpus=1, name=f"step{number}") for number in range(3))
    for ctx in (first, second):
        waits_until(queue, ctx, "running for")
    waits_until(queue, third, "Resources")
    queue.drive(first, cancel=True)
    waits_until(queue, third, "running for")


def test_each_part_of_a_step_is_a_job_of_its_own_and_tells_how_far_it_is(queue: Bench, slurm: SlurmCluster) -> None:
    fan: dict[str, Any] = {"for_each": ["left", "right"], "progress": r"batch (\d+) of (\d+)"}
    command = "echo batch 3 of 4 of {part}; until test -e {work_dir}/../go; do sleep 0.1; done"
    assert RUN.plan
    plan = RUN.plan(queue.case, queue.context(command, **fan))  # type: ignore[arg-type]
    assert isinstance(plan, Done)
    parts = [queue.context(command, part=str(number), **fan) for number in (1, 2)]
    told: dict[str, float] = {}
    for ctx in parts:
        ctx.earlier = [Earlier("simulate", "", 1, plan.facts)]
        ctx.progress = lambda done, total, unit, part=ctx.part, **_: told.update({part: done / total})  # type: ignore[method-assign]
        waits_until(queue, ctx, "running for")
    until(lambda: [queue.drive_once(ctx) for ctx in parts] and told == {"1": 0.75, "2": 0.75})
    for ctx in parts:
        (queue.work(ctx).parent / "go").touch()
        queue.drive(ctx)
    assert len({queue.job(ctx).tag for ctx in parts} & {name for name, _ in slurm.jobs()}) == 2
    assert [queue.log(ctx).split()[-1] for ctx in parts] == ["left", "right"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo no; exit 3", "exit code 3"),
        ("kill -9 $$", "signal 9"),
        ("true", "no file is there for the output `dose`"),
    ],
)
def test_a_failure_is_told_as_anywhere(queue: Bench, command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqi_ssh_exec.run.SETTLE_FOR", 2.0)
    with pytest.raises(GiveUp, match=said):
        queue.drive(queue.context(command, outputs=["dose"]))


def test_outputs_that_a_network_file_system_shows_late_are_waited_for(queue: Bench) -> None:
    ctx = queue.context(": > half", outputs=["dose", "half"])
    waits_until(queue, ctx, "not all of its outputs are to be seen on far yet")
    (queue.work(ctx) / "dose").write_text("1")
    assert "not all of its outputs" in queue.drive_once(ctx).note
    (queue.work(ctx) / "half").write_text("2")
    done = queue.drive(ctx)[0]
    assert done.facts["outputs"] == 2


def test_what_slurm_refuses_holds_the_case_with_slurms_words(queue: Bench) -> None:
    with pytest.raises(GiveUp, match=r"slurm refuses it: .*Invalid partition name"):
        queue.drive(queue.context("true", partition="nowhere"))


def test_a_cancel_in_the_queue_and_one_while_it_runs(queue: Bench, slurm: SlurmCluster) -> None:
    waiting = long_run(queue, name="waiting", partition="closed")
    waits_until(queue, waiting, "PartitionDown")
    queue.drive(waiting, cancel=True)
    running = long_run(queue, name="running")
    begun(queue, running)
    queue.drive(running, cancel=True)
    until(lambda: not queue.living(), what="nothing of it lives")
    until(lambda: not slurm.call("squeue", "--noheader"), what="nothing is in the queue")


def test_a_child_that_ignores_the_request_to_end_is_ended_by_force(queue: Bench) -> None:
    stubborn = f"trap '' TERM; echo begun >> {queue.ledger}; while :; do sleep 1; done"
    ctx = queue.context(f'setsid sh -c "{stubborn}" & sleep 60')
    begun(queue, ctx)
    queue.drive(ctx, cancel=True)
    assert not queue.living()


def test_our_time_limit_ends_it_in_order(queue: Bench) -> None:
    with pytest.raises(GiveUp, match="longer than its time limit of 2 s"):
        queue.drive(long_run(queue, time_limit="2s"))
    until(lambda: not queue.living(), what="nothing of it lives")


def test_somebody_elses_scancel_holds_the_case(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue)
    begun(queue, ctx)
    slurm.call("scancel", f"--name={queue.job(ctx).tag}")
    with pytest.raises(GiveUp, match=r"somebody took it out of its host's queue"):
        queue.drive(ctx)


def test_a_run_that_gives_way_to_something_more_urgent_is_begun_anew(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue, gpus=2)
    begun(queue, ctx)
    slurm.call("sbatch", "--partition=urgent", "--gres=gpu:2", "--output=/dev/null", "--wrap=sleep 2")
    with pytest.raises(RetryLater, match="the queue put something more urgent in its place"):
        queue.drive(ctx)
    second = long_run(queue, gpus=2, attempt=2)
    until(
        lambda: queue.drive_once(second) and lines_of(queue.ledger) == ["begun"] * 2, within=30, what="it begins anew"
    )


def test_a_run_that_slurm_puts_back_is_never_begun_by_slurm_itself(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue)
    begun(queue, ctx)
    number = queue.job(ctx).status().sent
    slurm.call("scontrol", "update", f"jobid={number}", "requeue=1")  # an administrator may, whatever we asked for
    slurm.call("scontrol", "requeue", number)
    with pytest.raises(RetryLater):
        queue.drive(ctx)
    until(
        lambda: not queue.living() and not slurm.call("squeue", "--noheader"), within=40, what="its second start ends"
    )
    assert lines_of(queue.ledger) == ["begun"]


def test_a_look_from_before_it_began_does_not_make_a_run_one_that_was_put_back(
    queue: Bench, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_ssh_exec.lookout.QUEUE_AGE", 60.0)
    ctx = long_run(queue, extra=["--begin=now+3"])
    waits_until(queue, ctx, "BeginTime")
    until(lambda: lines_of(queue.ledger) == ["begun"], within=40, what="it begins")
    tag = queue.job(ctx).tag
    slurm.call("scancel", f"--name={tag}")
    until(lambda: (tag, "CANCELLED") in slurm.jobs(), what="it is cancelled")
    with pytest.raises(GiveUp, match=r"somebody took it out of its host's queue"):
        queue.drive(ctx)


def test_a_controller_that_is_restarted_in_the_middle_changes_nothing(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = queue.context(f"echo begun >> {queue.ledger}; until [ -e {queue.directory}/go ]; do sleep 0.2; done")
    begun(queue, ctx)
    slurm.stop_controller()
    (queue.directory / "go").touch()
    outcome = queue.turn(ctx)
    slurm.start_controller()
    done = outcome if isinstance(outcome, Done) else queue.drive(ctx, within=60)[0]
    assert done.facts["exit_code"] == 0
    assert lines_of(queue.ledger) == ["begun"]


def test_while_the_controller_is_away_nothing_is_submitted_twice(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue, partition="closed")
    waits_until(queue, ctx, "PartitionDown")
    slurm.stop_controller()
    waits_until(queue, ctx, "does not answer")
    fresh = long_run(queue, partition="closed", name="fresh")
    waits_until(queue, fresh, "does not answer")
    slurm.start()
    waits_until(queue, ctx, "PartitionDown", within=40)
    waits_until(queue, fresh, "PartitionDown", within=40)
    tags = [name for name, _ in slurm.jobs()]
    assert sorted(tags) == sorted(set(tags)), "a run is in the queue twice"


def test_a_lost_answer_is_looked_up(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue)
    begun(queue, ctx)
    records = Path(queue.job(ctx).place.records)
    (records / "queued").unlink()
    again = long_run(queue)  # another worker, which knows nothing
    waits_until(queue, again, "running for")
    assert lines_of(queue.ledger) == ["begun"]
    assert [name for name, _ in slurm.jobs()].count(queue.job(ctx).tag) == 1


def test_a_run_whose_records_vanished_in_the_queue_is_found_by_its_name(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue, partition="closed")
    waits_until(queue, ctx, "PartitionDown")
    shutil.rmtree(queue.job(ctx).place.records)
    lookout_of(queue.host).forget(queue.job(ctx).place)
    waits_until(queue, long_run(queue, partition="closed"), "PartitionDown")
    assert [name for name, _ in slurm.jobs()].count(queue.job(ctx).tag) == 1


def test_a_job_that_slurm_runs_twice_starts_the_command_once(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = long_run(queue)
    begun(queue, ctx)
    records = queue.job(ctx).place.records
    slurm.call("sbatch", "--job-name=stray", "--output=/dev/null", str(records / "batch"))
    until(lambda: ("stray", "COMPLETED") in slurm.jobs(), what="the second one has come and gone")
    assert lines_of(queue.ledger) == ["begun"]
    waits_until(queue, ctx, "running for")


def test_a_run_goes_on_when_slurmd_is_killed(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = queue.context(f"echo begun >> {queue.ledger}; until [ -e {queue.directory}/go ]; do sleep 0.2; done")
    begun(queue, ctx)
    slurm.kill_slurmd()
    if slurm.apart:  # Slurm gives the node up; the run lives
        waits_until(queue, ctx, "node1 does not answer: unknown", within=40)
    (queue.directory / "go").touch()
    done = queue.drive(ctx, within=40)[0]
    assert done.facts["exit_code"] == 0 and lines_of(queue.ledger) == ["begun"]


@pytest.mark.soak  # it waits until Slurm itself gives the node up, now and then for minutes; exec/test_doubt has the rule
@pytest.mark.skipif("not __import__('servers.slurm').slurm._spaces_work()", reason="takes root and name spaces")
def test_a_run_on_a_silent_machine_is_not_over_whatever_its_queue_calls_it(queue: Bench, slurm: SlurmCluster) -> None:
    command = f"trap '' TERM; echo begun >> {queue.ledger}; until [ -e {queue.directory}/go ]; do sleep 0.2; done"
    ctx = queue.context(command)
    begun(queue, ctx)
    slurm.kill_slurmd()
    slurm.call("scancel", f"--name={queue.job(ctx).tag}")
    over = {(queue.job(ctx).tag, word) for word in ("CANCELLED", "NODE_FAIL")}  # where the node was given up first
    until(lambda: over & set(slurm.jobs()), within=60, what="the queue calls it over")
    for _ in range(3):
        waits_until(queue, ctx, "node1 does not answer: unknown")
        time.sleep(0.5)
    assert queue.living(), "it goes on"
    with pytest.raises(CaseError, match="can't be ended from"):
        _end(ctx, queue.job(ctx), time.monotonic)  # type: ignore[arg-type]
    slurm.start()  # its daemon ends what the controller calls over
    with pytest.raises(
        (GiveUp, RetryLater), match=r"somebody took it out|an operator ended its run|the machine it ran on"
    ):
        queue.drive(ctx, within=60)
    assert not queue.living()


def test_a_job_that_is_ended_by_force_with_its_runner_is_lost_not_done(queue: Bench) -> None:
    ctx = long_run(queue, outputs=["dose"])
    begun(queue, ctx)
    for pid in queue.living():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(RetryLater, match=r"it left no record of its end|vanished without a trace"):
        queue.drive(ctx)


def test_a_cancel_that_races_with_the_end_has_one_outcome(queue: Bench) -> None:
    for number in range(3):
        ctx = queue.context(f"echo begun >>{queue.ledger}; sleep 0.{number}", name=f"race{number}")
        begun(queue, ctx)
        queue.ledger.unlink()
        queue.drive(ctx, cancel=True)
        status = queue.job(ctx).status()
        assert status.state in OVER and status.reason in ("exit", "cancelled")
        assert replace(queue.job(ctx).status(), now=status.now, clock=status.clock) == status


@pytest.mark.soak  # Slurm looks at its time limits once in half a minute
def test_slurms_own_time_limit_holds_the_case(queue: Bench) -> None:
    ctx = queue.context(f"echo begun >> {queue.ledger}; sleep 600", partition="brief")
    with pytest.raises(GiveUp, match="the queue's own time limit"):
        queue.drive(ctx, within=150)
    until(lambda: not queue.living(), what="nothing of it lives")


def failed_node(queue: Bench, slurm: SlurmCluster) -> Context:
    """Return the context of a run whose machine had a power cut."""
    if not slurm.apart:
        pytest.skip("the node can't be apart from this machine: that takes root and name spaces")
    ctx = long_run(queue)
    begun(queue, ctx)
    waits_until(queue, ctx, "running for")
    slurm.crash_node()
    return ctx


def test_a_node_that_fails_gives_a_new_attempt_only_once_it_is_back(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = failed_node(queue, slurm)
    waits_until(queue, ctx, "says NODE_FAIL of the run, and node1 does not answer: unknown")
    slurm.start()
    with pytest.raises(RetryLater, match="the machine it ran on failed"):
        queue.drive(ctx)
    second = long_run(queue, attempt=2)
    until(lambda: queue.drive_once(second) and len(lines_of(queue.ledger)) == 2, within=40, what="it begins anew")


@pytest.fixture
def queue_of(
    tmp_path: Path, own_sshd: OpenSSHServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[SlurmCluster], Bench]]:
    """Give a function that makes a case on a host of its own with this Slurm."""
    for name in ("SETTLE_FOR", "LOOK_AGAIN"):
        monkeypatch.setattr(doubt, name, 0.5)
    made: list[Bench] = []

    def make(slurm: SlurmCluster) -> Bench:
        own_sshd.environment |= slurm.environment
        own_sshd.start()
        (tmp_path / "far").mkdir()
        section = own_sshd.host_section(base_dir=str(tmp_path / "far"), scheduler="slurm")
        made.append(Bench(tmp_path, SshHost("far", section, tmp_path), Slurm()))
        return made[-1]

    yield make
    for each in made:
        each.host.close()
        each.end_all()


def test_with_accounting_an_end_is_known_that_the_controller_has_forgotten(
    queue_of: Callable[[SlurmCluster], Bench], slurm_with_accounts: SlurmCluster
) -> None:
    slurm = slurm_with_accounts
    queue = queue_of(slurm)
    ctx = long_run(queue, partition="closed")
    waits_until(queue, ctx, "PartitionDown")
    slurm.call("scancel", f"--name={queue.job(ctx).tag}")
    until(lambda: not slurm.jobs(), within=60, what="the controller forgets the job")
    lookout_of(queue.host).forget(queue.job(ctx).place)
    with pytest.raises(GiveUp, match=r"somebody took it out of its host's queue"):
        queue.drive(ctx)


def test_a_run_whose_command_is_killed_for_its_memory_is_held_for_that(
    queue_of: Callable[[SlurmCluster], Bench], slurm: SlurmCluster, own_sshd: OpenSSHServer, tmp_path: Path
) -> None:
    """The kernel kills the command alone, as cgroups make it: the runner writes down the signal, and only the queue knows why."""
    says = tmp_path / "bin" / "squeue"
    says.parent.mkdir()
    says.write_text(f"#!/bin/sh\n{shutil.which('squeue')} \"$@\" | sed 's/|COMPLETED|/|OUT_OF_MEMORY|/'\n")
    says.chmod(0o755)
    own_sshd.environment["PATH"] = f"{says.parent}:{os.environ['PATH']}"
    queue = queue_of(slurm)
    with pytest.raises(GiveUp, match="it took more memory than the step's `memory`"):
        queue.drive(queue.context("kill -9 $$", memory="50MB"))


def test_a_run_that_slurm_ends_itself_for_its_memory_is_held_for_that(
    queue_of: Callable[[SlurmCluster], Bench], slurm_that_counts_memory: SlurmCluster
) -> None:
    queue = queue_of(slurm_that_counts_memory)
    greedy = "python3 -c 'import time; much = bytearray(300 << 20); time.sleep(60)'"
    with pytest.raises(GiveUp, match="it took more memory than the step's `memory`"):
        queue.drive(queue.context(greedy, memory="50MB"))


@pytest.mark.soak  # each waits until Slurm itself gives the node up, and takes it back
def test_absent_is_unknown_for_ten_minutes(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = failed_node(queue, slurm)
    until(lambda: not slurm.jobs(), within=40, what="Slurm forgets the job")
    slurm.start()
    waits_until(queue, ctx, "does not know the run: unknown, for up to 10 min")
    key, since = ctx.facts["since"]
    ctx.facts["since"] = [key, since - doubt.ABSENT_FOR]
    with pytest.raises(RetryLater, match="known nothing of it for a while"):
        queue.drive(ctx)


@pytest.mark.soak  # each waits until Slurm itself gives the node up, and takes it back
def test_an_operator_may_vouch_for_a_machine_that_is_no_more(queue: Bench, slurm: SlurmCluster) -> None:
    ctx = failed_node(queue, slurm)
    assert queue.job(ctx).kill(grace=1, reason="gone", wait=0).state in OVER
    with pytest.raises(RetryLater, match="an operator vouched"):
        queue.drive(ctx)
