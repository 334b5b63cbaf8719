"""What a queue's programs print, what is made of it, and what config check knows: on captured text, without a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from mqi_cli import Batch, Call, Completed, Queued, QueueState, Refusal, Resources, Stage, Step
from mqi_cli.config.model import LocalHostSection
from mqi_ssh_exec.job_status import JobState, JobStatus, read_report, read_survey
from mqi_ssh_exec.lookout import Lookout
from mqi_ssh_exec.options import RunOptions, check_run
from mqi_ssh_exec.plugin import mqi_schedulers, mqi_stages
from mqi_ssh_exec.queue_view import QueueLook, asks_queue, with_queue
from mqi_ssh_exec.slurm import STATES, Slurm

SLURM = Slurm()
TAG = "mqi-cabcdefghij-simulate-031ed29a-1"
OTHER = TAG.removesuffix("1") + "2"

# squeue 22.05 --format=%i|%j|%T|%N|%r
SQUEUE = f"""\
14|{TAG}|RUNNING|node1|None
15|{OTHER}|PENDING||Resources
16|interactive|RUNNING|node1|None
4|mqi-cabcdefghij-early-031ed29a-1|FAILED||BadConstraints
"""


def said(text: str, code: int = 0, error: str = "") -> Completed:
    return Completed(code, text.encode(), error.encode())


def test_the_queue_is_read_by_tag_and_others_jobs_are_left_alone() -> None:
    known = SLURM.read_look(said(SQUEUE))
    assert known is not None and set(known) == {TAG, OTHER, "mqi-cabcdefghij-early-031ed29a-1"}
    assert known[TAG] == Queued("14", TAG, QueueState.RUNNING, "RUNNING", "None", "node1")
    assert known[OTHER].state is QueueState.PENDING and known[OTHER].reason == "Resources"


def test_of_two_jobs_of_one_name_the_living_one_counts_then_the_younger() -> None:
    known = SLURM.read_look(said(f"9|{TAG}|PENDING||Priority\n14|{TAG}|CANCELLED||None\n"))
    assert known is not None and known[TAG].id == "9"
    known = SLURM.read_look(said(f"9|{TAG}|TIMEOUT||None\n14|{TAG}|FAILED||None\n"))
    assert known is not None and known[TAG].id == "14"
    known = SLURM.read_look(said(f"9|{TAG}|RUNNING|node1|None\n14|{TAG}|PENDING||Priority\n"))
    assert known is not None and known[TAG].id == "9", "the one that waits hides the one that runs"


def test_a_queue_that_gives_no_answer_is_not_an_empty_one() -> None:
    silent = said("", 1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert SLURM.read_look(silent) is None
    assert SLURM.read_look(said("")) == {}


def test_the_accounting_is_read_where_there_is_one() -> None:
    # sacct 22.05 --parsable2 --allocations --format=JobIDRaw,JobName,State,NodeList,ExitCode
    past = SLURM.read_look_back(said(f"14|{TAG}|CANCELLED by 0|None assigned|0:0\n15|{OTHER}|NODE_FAIL|node1|0:0\n"))
    assert past is not None
    assert (past[TAG].state, past[TAG].word) == (QueueState.CANCELLED, "CANCELLED")
    assert past[OTHER].state is QueueState.NODE and (past[TAG].node, past[OTHER].node) == ("", "node1")
    refused = "sacct: error: Problem talking to the database: Connection refused"
    assert SLURM.read_look_back(said("", 1, refused)) is None
    assert SLURM.read_look_back(said("", 1, "Slurm accounting storage is disabled")) is None
    assert SLURM.read_look_back(said("")) == {}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "pending"), ("RUNNING", "running"), ("COMPLETING", "running"), ("SUSPENDED", "running"),
        ("COMPLETED", "ended"), ("FAILED", "ended"), ("CANCELLED", "cancelled"), ("TIMEOUT", "timeout"),
        ("DEADLINE", "timeout"), ("OUT_OF_MEMORY", "memory"), ("NODE_FAIL", "node"), ("BOOT_FAIL", "node"),
        ("PREEMPTED", "preempted"), ("REQUEUED", "requeued"), ("REQUEUE_HOLD", "requeued"), ("SPECIAL_EXIT", "requeued"),
    ],
)  # fmt: skip
def test_each_state_has_its_meaning(word: str, state: str) -> None:
    assert STATES[word] == QueueState(state)


def test_a_state_of_a_later_slurm_is_taken_for_a_run_that_lives() -> None:
    known = SLURM.read_look(said(f"14|{TAG}|TELEPORTING|node1|None\n"))
    assert known is not None and known[TAG].state is QueueState.RUNNING


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", Refusal.NEVER),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", Refusal.NEVER),
        ("sbatch: error: Invalid --time specification", Refusal.NEVER),
        ("sbatch: unrecognized option '--foo'", Refusal.NEVER),
        ("sh: 1: sbatch: not found", Refusal.NEVER),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", Refusal.LATER),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", Refusal.LATER),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
         "accounting/QOS policy (job submit limit, user's size and/or time limits)", Refusal.LATER),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Refusal.UNKNOWN),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", Refusal.UNKNOWN),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
         "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Refusal.UNKNOWN),
        ("", Refusal.UNKNOWN),
    ],
)  # fmt: skip
def test_a_refusal_is_told_from_a_lost_answer(text: str, refusal: Refusal) -> None:
    assert SLURM.refusal(text) is refusal


@pytest.mark.parametrize(
    ("text", "number"), [("14\n", "14"), ("14;cluster\n", "14"), ("welcome to hpc\n14\n", "14"), ("", ""), ("?", "")]
)
def test_the_id_is_read(text: str, number: str) -> None:
    assert SLURM.read_id(text) == number


@pytest.mark.parametrize(
    ("text", "answers"), [("idle\n", True), ("mixed\nmixed\n", True), ("down\n", True), ("down*\n", False), ("", False)]
)
def test_a_node_answers_or_not(text: str, answers: bool) -> None:
    assert SLURM.node_answers(said(text)) is answers


def test_the_call_to_sbatch_says_what_the_step_asks_for_and_no_name() -> None:
    wanted = Resources(2, 4, 3_000_000_000, 7210, "gpu", "physics", ("--constraint=a100",))
    batch = Batch(TAG, "exec true", PurePosixPath("/scratch/100%/queue.log"), wanted)
    argv = SLURM.launch(batch)
    assert argv is not None
    for each in (
        "--gres=gpu:2", "--cpus-per-task=4", "--mem=2929688K", "--time=122", "--partition=gpu", "--account=physics",
        f"--job-name={TAG}", f"--comment={TAG}", "--no-requeue", "--output=/scratch/100%%/queue.log",
    ):  # fmt: skip
        assert each in argv
    script = SLURM.script(batch).decode()
    assert script.startswith("#!/bin/sh\n#SBATCH --constraint=a100\n") and script.endswith("exec true\n")


QUEUED = JobStatus(JobState.QUEUED, 1, sent="14")
BEGUN = JobStatus(JobState.UNKNOWN, 1, sent="14", started=5.0, node="node1.cluster")


def look(state: QueueState, **changes: Any) -> QueueLook:
    return QueueLook({TAG: replace(Queued("14", TAG, state, state.name), **changes)})


def test_what_the_queue_says_completes_what_the_records_say() -> None:
    assert with_queue(QUEUED, look(QueueState.PENDING, reason="Resources"), TAG).waits_for == "Resources"
    assert with_queue(QUEUED, look(QueueState.RUNNING), TAG).state is JobState.STARTING
    assert with_queue(BEGUN, look(QueueState.RUNNING), TAG).state is JobState.RUNNING
    ended = with_queue(BEGUN, look(QueueState.PREEMPTED), TAG)
    assert (ended.state, ended.reason, ended.word) == (JobState.ENDED, "preempted", "PREEMPTED")


def test_unknown_stays_unknown_while_the_queue_is_silent_and_absent_is_not_over() -> None:
    silent = with_queue(BEGUN, QueueLook(None), TAG)
    assert silent.state is JobState.UNKNOWN and not silent.answered
    assert with_queue(BEGUN, QueueLook({}), TAG).state is JobState.ABSENT
    past = QueueLook({}, {TAG: Queued("14", TAG, QueueState.TIMEOUT, "TIMEOUT")})
    assert with_queue(BEGUN, past, TAG).reason == "timeout"


def test_what_only_the_accounting_calls_running_is_absent() -> None:
    runaway = {TAG: Queued("14", TAG, QueueState.RUNNING, "RUNNING")}
    assert with_queue(BEGUN, QueueLook({}, runaway), TAG).state is JobState.ABSENT
    assert with_queue(BEGUN, QueueLook(None, runaway), TAG).state is JobState.RUNNING  # the queue itself is silent


def test_the_queue_never_overrules_a_record() -> None:
    done = JobStatus(JobState.FINISHED, 1, sent="14", reason="exit", code=0)
    assert not asks_queue(done)
    cut_short = replace(done, reason="terminated", code=None)
    assert asks_queue(cut_short) and with_queue(cut_short, look(QueueState.TIMEOUT), TAG).reason == "timeout"
    assert with_queue(cut_short, QueueLook({}), TAG) == cut_short


def test_why_a_command_was_ended_by_a_signal_the_queue_may_know() -> None:
    killed = JobStatus(JobState.FINISHED, 1, sent="14", reason="exit", code=137)
    for each in (killed, replace(killed, code=None, signal=9)):
        assert asks_queue(each)
        assert with_queue(each, look(QueueState.MEMORY), TAG).reason == "memory"
        assert with_queue(each, look(QueueState.ENDED), TAG) == each
    assert not asks_queue(replace(killed, code=3)) and not asks_queue(replace(killed, sent=""))


def test_an_end_by_a_signal_is_not_judged_while_the_queue_is_silent() -> None:
    cut_short = JobStatus(JobState.FINISHED, 1, sent="14", reason="terminated")
    waits = with_queue(cut_short, QueueLook(None, why="connect failure"), TAG)
    assert (waits.state, waits.answered, waits.silence) == (JobState.RUNNING, False, "connect failure")


def test_a_run_that_began_and_stands_in_the_queue_again_was_put_back() -> None:
    put_back = with_queue(BEGUN, look(QueueState.PENDING), TAG)
    assert (put_back.state, put_back.reason) == (JobState.ENDED, "requeued")


class Queue:
    """A scheduler and its host in one. It counts its calls and knows what it is told."""

    name = "fake"

    def __init__(self, known: dict[str, Queued] | None) -> None:
        self.known = known
        self.looks = 0
        self.asked_back: list[Sequence[str]] = []

    def look(self) -> Call:
        return Call(("look",))

    def look_back(self, tags: Sequence[str]) -> Call:
        self.asked_back.append(tags)
        return Call(("look_back",))

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.looks += argv[0] == "look"
        return Completed(0 if self.known is not None else 1, b"", b"the controller is away\n")

    def read_look(self, _: Completed) -> dict[str, Queued] | None:
        return self.known

    def read_look_back(self, completed: Completed) -> dict[str, Queued] | None:
        return {} if self.known is not None else None


@pytest.mark.parametrize("kind", ["known", "absent", "silent"])
def test_however_many_runs_ask_a_queue_is_asked_once_in_an_interval(kind: str) -> None:
    tags = [f"mqi-{number}" for number in range(50)]
    known = {tag: Queued("1", tag, QueueState.RUNNING, "RUNNING") for tag in tags}
    queue: Any = Queue({"known": known, "absent": {}, "silent": None}[kind])
    clock = [1000.0]
    lookout = Lookout(elapsed=lambda: clock[0])

    def ask(age: float) -> set[str]:
        return {lookout.queue(queue, queue, tag, age=age).why for tag in tags}

    for _ in range(2):  # only from the second on does it know of all who ask
        clock[0] += 15.0
        ask(15.0)
    queue.looks, queue.asked_back = 0, []
    for step in range(30):  # every second of half a minute
        clock[0] += 1.0
        assert ask(15.0) == {"the controller is away" if kind == "silent" else ""}
        if kind != "silent":
            assert queue.looks == (step + 1) // 15
    assert queue.looks <= 7 and len(queue.asked_back) == (0 if kind == "known" else queue.looks)
    assert all(len(each) == 50 for each in queue.asked_back)


def test_a_claim_that_is_about_to_be_made_takes_no_old_look() -> None:
    queue: Any = Queue({})
    lookout = Lookout(elapsed=lambda: clock[0])
    clock = [1000.0]
    lookout.queue(queue, queue, TAG)
    lookout.queue(queue, queue, TAG, fresh=True)
    assert queue.looks == 2
    queue.known = None
    for _ in range(10):  # but who does not answer is not asked by everybody in turn
        assert lookout.queue(queue, queue, TAG, fresh=True).known is None
    assert queue.looks == 3


def test_a_run_that_the_queue_has_put_back_is_over_and_nothing_is_waited_for() -> None:
    ended = with_queue(JobStatus(JobState.FINISHED, 1, sent="14", reason="terminated"), look(QueueState.PENDING), TAG)
    assert (ended.state, ended.reason) == (JobState.FINISHED, "requeued")
    about_to_end = with_queue(JobStatus(JobState.LOST, 1, sent="14"), look(QueueState.RUNNING), TAG)
    assert about_to_end.state is JobState.RUNNING


def test_a_claim_whose_answer_was_lost_counts_as_sent() -> None:
    assert read_report("state=claimed\nattempt=1\nsent=?\n").state is JobState.QUEUED
    assert read_report("state=claimed\nattempt=1\n").state is JobState.CLAIMED


def test_a_survey_is_read_with_the_sizes_of_logs() -> None:
    text = (
        "job=1 /s/c1/work/a/_\nstate=running\nattempt=1\nnow=9\npid=7\nnode=n\nstarted=4\n"
        "job=2 /s/c2/work/a/_\nstate=finished\nattempt=2\nnow=9\nreason=exit\ncode=0\nlog=3\nlog_cut=0\n"
        "sizes=\n  120 /s/c1/work/a/_/.1.job/log/0\n 40 /s/c1/work/a/_/.1.job/log/4096\n 160 total\n"
    )
    seen = read_survey(text)
    running, finished = seen["/s/c1/work/a/_", 1], seen["/s/c2/work/a/_", 2]
    assert (running.state, running.log_bytes, running.seconds) == (JobState.RUNNING, 4136, 5.0)
    assert (finished.state, finished.code, finished.log_bytes) == (JobState.FINISHED, 0, 3)
    with pytest.raises(ValueError, match="no end"):
        read_survey(text.partition("sizes=")[0])


def test_a_survey_brings_the_ends_of_logs_and_takes_nothing_in_them_for_a_report() -> None:
    text = (
        "job=1 /s/c1/work/a/_\nstate=running\nattempt=1\njob=2 /s/c2/work/a/_\nstate=running\nattempt=2\n"
        "sizes=\n 120 /s/c1/work/a/_/.1.job/log/0\ntails=\n"
        "==> /s/c1/work/a/_/.1.job/log/0 <==\nbatch 1 of 2\njob=2 /s/c2/work/a/_\nstate=finished\n"
        " 999 /s/c2/work/a/_/.2.job/log/0\n\n==> /s/c2/work/a/_/.2.job/log/0 <==\nbatch 2 of 2\n\n==> /dev/null <==\n"
    )
    seen = read_survey(text)
    one, two = seen["/s/c1/work/a/_", 1], seen["/s/c2/work/a/_", 2]
    assert one.tail.startswith("batch 1 of 2\njob=2")
    assert two.tail.startswith("batch 2 of 2\n")
    assert (two.state, two.log_bytes) == (JobState.RUNNING, 0)


def check(host: str, **options: Any) -> list[str]:
    run: Stage = mqi_stages()[0]
    hosts = {"far": LocalHostSection(type="local", base_dir="/x", scheduler=host)}
    step = Step("simulate", run, RunOptions(host="far", **{"command": "true", **options}))
    return check_run([step], 0, hosts)


def test_config_check_knows_what_needs_a_queue() -> None:
    for key, value in (("cpus", 2), ("memory", "1GB"), ("partition", "gpu"), ("account", "a"), ("extra", ["--x"]),
                       ("queue_limit", "1h")):  # fmt: skip
        assert any(f"`{key}`: host far has no queue" in each for each in check("direct", **{key: value}))
        assert check("slurm", **{key: value}) == []
    assert any("$CUDA_VISIBLE_DEVICES" in each for each in check("slurm", gpus=1, command="run {gpu_ids}"))
    assert check("slurm", gpus=1, time_limit="1h") == []


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--array=1-3", "--array"),
        ("--array 1-3", "--array"),
        ("--ar=1-3", "--array (--ar)"),
        ("-a 1-3", "--array (-a)"),
        ("-a0-3", "--array (-a0-3)"),
        ("-Ha1-3", "--array (-Ha1-3)"),
        ("--nice=7 --array=1-3", "--array"),
        ("  --nice 7\t-a1-3", "--array (-a1-3)"),
        ("--comment='x y' \"--array\"=1-3", "--array"),
        ("--comment=it\\'s --arr\\ay=1-3", "--array"),
        ("--comment='it\\'s' -QOa1", "--array (-QOa1)"),
        ("--clusters=other", "--clusters"),
        ("--cluster other", "--clusters (--cluster)"),
        ("--cl=other", "--clusters (--cl)"),
        ("--cluster-constraint=x", "--cluster-constraint"),
        ("-Mother", "--clusters (-Mother)"),
        ("-p gpu -sM other", "--clusters (-sM)"),
        ("--wait", "--wait"),
        ("--wai", "--wait (--wai)"),
        ("-W", "--wait (-W)"),
        ("-HW", "--wait (-HW)"),
        ("--wrap=true", "--wrap"),
        ("--requeue", "--requeue"),
        ("--hold --req", "--requeue (--req)"),
        ("--test-only", "--test-only"),
        ("--nice --version", "--version"),
        ("hetjob", "hetjob"),
        ("--nice=7 HetJob", "HetJob"),
        ("--comment='my packjob'", "packjob"),
    ],
)
def test_what_would_make_other_than_one_job_is_refused_however_it_is_written(line: str, option: str) -> None:
    (problem,) = check("slurm", extra=["--nice=3", line])
    assert problem.startswith(f"`extra`: {option} in `{line}`: a run is one job")


@pytest.mark.parametrize(
    "line",
    [
        "--constraint=a100",
        "--account=x",
        "-A x",
        "-Aarray",
        "-pM",
        "--mail-type=END",
        '--comment="see -a"',
        "--comment='--array=1-3 --wait'",
        "--comment see\\ -a",
        "--nice=-5",
        "--nice=7 # not --array=1-3",
        "--wait-all-nodes=1",
        "--wckey=a",
        "--no-requeue",
        "--hold -H -O -vv",
        "--reservation=a --time-min=1:00",
    ],
)
def test_what_only_looks_like_it_is_passed_on(line: str) -> None:
    assert check("slurm", extra=[line]) == []


def test_a_quotation_that_is_not_closed_is_refused() -> None:
    assert check("slurm", extra=["--comment='see"]) == ["`extra`: `--comment='see`: a quotation mark is not closed"]


def test_the_words_of_slurmstepd_tell_a_job_that_took_too_much_memory() -> None:
    # slurm 22.05 with JobAcctGatherParams=OverMemoryKill, and with cgroups
    killed = "slurmstepd-node1: error: StepId=1.batch exceeded memory limit (322961408 > 52428800), being killed\n"
    cgroup = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch. Some of your processes may have been killed\n"
    assert SLURM.read_log(killed) is SLURM.read_log(cgroup) is QueueState.MEMORY
    assert SLURM.read_log("slurmstepd-node1: error: *** JOB 14 ON node1 CANCELLED AT 2026-11-28T22:00:00 ***\n") is None


def test_both_schedulers_keep_the_contract() -> None:
    assert [each.name for each in mqi_schedulers()] == ["direct", "slurm"]
    direct = mqi_schedulers()[0]
    assert direct.launch(Batch(TAG, "true", PurePosixPath("/x"))) is None
