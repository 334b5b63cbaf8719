"""Runs that a resident program starts: the helper's records, gate and rules, and a stronger proof that nothing is left."""

from __future__ import annotations

import ast
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exec.far_side import FarSide, QuickSide, alive, lines_of, until
from mqi_ssh_exec import far_runner, quick
from mqi_ssh_exec.far_runner import BEGUN, DEFERRED
from mqi_ssh_exec.helper_calls import submit_call
from mqi_ssh_exec.job_status import JobState, read_report

SURROUNDINGS = """
env | grep -v '^_=\\|^PWD=\\|^OLDPWD=\\|^SHLVL=' | sort
umask; pwd; readlink /proc/$$/fd/0
set -- $(cat /proc/$$/stat); [ $5 = $6 ] && echo it leads its own group
"""


@pytest.fixture
def side(tmp_path: Path) -> Iterator[QuickSide]:
    made = QuickSide(tmp_path, os.environ["PATH"])
    yield made
    made.kill_all()


def test_a_run_ends_with_one_answer_and_its_outputs(side: QuickSide) -> None:
    order = side.order("mkdir dose; echo 1 > dose/a.raw; : > dose/b.raw; echo 22 > result; echo said")
    answer = side.quickly(order, attempt=1, wait=10, outputs=("dose/*.raw", "result", "none*", "dose"))
    status = read_report(answer.decode())
    assert (status.state, status.reason, status.code, status.left, status.log_bytes) == (
        JobState.FINISHED, "exit", 0, 0, 5,
    )  # fmt: skip
    assert status.matched == ((2, 1, 2), (1, 0, 3), (0, 0, 0), (2, 1, 2))
    assert status.peak_memory
    assert status.cpu_seconds is not None
    by_helper = side.status()
    assert (by_helper.code, by_helper.pid, by_helper.log_bytes) == (status.code, status.pid, status.log_bytes)


def test_links_that_lead_nowhere_are_passed_over_either_way(side: QuickSide) -> None:
    order = side.order("mkdir dose; ln -s /nowhere a.raw; ln -s /nowhere dose/a; echo 1 >b.raw; echo 22 >dose/b")
    outputs = ("*.raw", "a.raw", "dose", "dose/*", "*")
    status = read_report(side.quickly(order, attempt=1, wait=10, outputs=outputs).decode())
    assert status.matched == ((1, 0, 2), (0, 0, 0), (1, 0, 3), (1, 0, 3), (2, 0, 5))
    by_helper = side.ask("outputs", "0", *outputs).splitlines()[1:]
    assert by_helper == ["output={} {} {}".format(*each) for each in status.matched]


def test_a_command_finds_the_same_surroundings_either_way(side: QuickSide, tmp_path: Path) -> None:
    quickly = side.submit(SURROUNDINGS, wait=10)
    by_shell = FarSide.submit(side, SURROUNDINGS, attempt=2, wait=10)
    assert (quickly.code, by_shell.code) == (0, 0)
    logs = [(side.records(attempt) / "log" / "0").read_text() for attempt in (1, 2)]
    one, other = (re.sub(rf"/\.?{attempt}\b", "/N", log).splitlines() for attempt, log in enumerate(logs, 1))
    assert one == other


def test_a_command_inherits_none_of_the_signals_that_python_ignores(side: QuickSide) -> None:
    side.submit("grep ^SigIgn /proc/self/status", wait=10)
    ignored = int((side.records() / "log" / "0").read_text().split()[1], 16)
    # others may be ignored by whoever started these tests; signals 32 and 33, the C library's own, can't be taken back
    assert not [each for each in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (each - 1) & 1]


def test_of_submissions_both_ways_at_once_one_starts_it(side: QuickSide) -> None:
    order = side.order('echo start >>"$LEDGER"; sleep 0.3')

    def submit(number: int) -> None:
        if number % 2:
            side.quickly(order, attempt=1, wait=5)
        else:
            side.call(submit_call(side.far_helper, side.place(), order, wait=5))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(submit, range(8)))
    assert lines_of(side.ledger) == ["start"]
    assert side.status().code == 0


def test_what_hides_from_its_session_and_its_environment_is_found_and_ended(side: QuickSide) -> None:
    if not shutil.which("setsid"):
        pytest.skip("setsid is not installed")
    status = side.submit(
        "env -i setsid sh -c 'sleep 300 & echo $! > child' </dev/null >/dev/null 2>&1 & sleep 0.3", wait=10
    )
    assert status.state is JobState.FINISHED
    assert status.left == 1
    assert not alive(int((side.work() / "child").read_text()))


def test_strays_of_a_part_whose_records_are_gone_are_the_helpers_to_judge(side: QuickSide) -> None:
    side.submit('echo start >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(side.ledger))
    shutil.rmtree(side.part)
    order = side.order('echo start >>"$LEDGER"')
    for attempt in (1, 2):
        assert side.quickly(order, attempt=attempt, wait=1) == DEFERRED
    assert lines_of(side.ledger) == ["start"]


def test_beside_an_earlier_attempt_nothing_is_started(side: QuickSide) -> None:
    side.submit('echo start >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(side.ledger))
    assert side.quickly(side.order('echo start >>"$LEDGER"'), attempt=2, wait=1) == DEFERRED
    assert not side.records(2).exists()
    side.kill()
    assert read_report(side.quickly(side.order("exit 3"), attempt=2, wait=10).decode()).code == 3


def test_while_an_earlier_attempt_may_still_begin_nothing_is_started(side: QuickSide) -> None:
    side.records(1).mkdir(parents=True)  # it was submitted, and its gate is open
    assert side.quickly(side.order('echo start >>"$LEDGER"'), attempt=2, wait=1) == DEFERRED
    assert not side.ledger.exists()


def test_behind_a_closed_gate_nothing_is_started(side: QuickSide, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = quick.Resident("blind", quick.runner().text.replace(b"run.look()", b"pass"))  # as if both looked at once
    monkeypatch.setattr(quick, "runner", lambda: blind)
    for _ in range(2):
        side.quickly(side.order('echo start >>"$LEDGER"'), attempt=1, wait=5)
    assert lines_of(side.ledger) == ["start"]


def test_a_kernel_that_gives_no_orphans_leaves_all_to_the_helper(
    side: QuickSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = quick.Resident("without", quick.runner().text.replace(b"SUBREAPER = 36", b"SUBREAPER = 3600"))
    monkeypatch.setattr(quick, "runner", lambda: without)
    assert side.quickly(side.order("exit 0"), attempt=1, wait=1) == DEFERRED
    assert not side.records().exists()
    assert side.submit("exit 4", wait=10).code == 4


def test_a_run_that_goes_on_is_adopted(side: QuickSide) -> None:
    assert side.quickly(side.order("sleep 300"), attempt=1, wait=0) == BEGUN
    status = side.submit("sleep 300")
    assert (status.state, status.processes) == (JobState.RUNNING, 2)
    assert side.kill().reason == "operator"


def test_a_log_that_finds_no_space_is_marked_as_the_helper_marks_it(side: QuickSide) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))  # the runner inherits it
    try:
        order = side.order("head -c 3000000 /dev/zero; sleep 300", log_limit=1_000_000)
        assert side.quickly(order, attempt=1, wait=0) == BEGUN
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    until(lambda: side.status().log_lost)
    assert side.status().state is JobState.RUNNING
    assert side.kill().log_lost


def test_the_program_is_written_for_an_old_python() -> None:
    text = Path(far_runner.__file__).read_text()
    ast.parse(text, feature_version=(3, 6))
    assert "mqi_cli" not in text
    assert "__future__" not in text


def test_who_only_looks_for_a_runs_mark_is_not_taken_for_one_of_its_processes(side: QuickSide) -> None:
    looking = subprocess.Popen(["sleep", "60"], env={**os.environ, "MARK": f"MQI_JOB={side.records()};"})
    try:
        status = side.submit("true", wait=10)
        assert (status.state, status.left) == (JobState.FINISHED, 0)
        assert looking.poll() is None
    finally:
        looking.kill()
        looking.wait()
