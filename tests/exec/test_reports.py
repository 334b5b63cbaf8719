"""What the helper and a program write, read back: reports, probes, logs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqi_cli import Completed, GiveUp, RetryLater, Verdict
from mqi_ssh_exec.checks import read_probe
from mqi_ssh_exec.job import Output, Outputs
from mqi_ssh_exec.job_status import JobState, JobStatus, read_report
from mqi_ssh_exec.log_lines import MOST_LINE, LineReader
from mqi_ssh_exec.options import RunOptions
from mqi_ssh_exec.verdict import examine, judge, span

FINISHED = """state=finished
attempt=2
now=1795464850
pid=27980
node=login1
started=1795464845
reason=exit
code=0
status=0
ended=1795464849
left=1
log_lost=0
cpu=1m0.080000s 0m0.090000s
memory=2132
log=20250009
log_cut=1
"""


def test_a_report_is_read() -> None:
    status = read_report(FINISHED)
    assert status == JobStatus(
        state=JobState.FINISHED, attempt=2, now=1795464850.0, started=1795464845, ended=1795464849, pid=27980,
        node="login1", reason="exit", code=0, left=1, cpu_seconds=60.17, peak_memory=2132 * 1024,
        log_bytes=20250009, log_complete=False,
    )  # fmt: skip
    assert status.seconds == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0m0.004s 0m0.001s", 0.01), ("0m00.10s 0m00.20s", 0.3), ("2m1.5s 0m0s", 121.5), ("", None), ("odd", None)],
)
def test_processor_time_is_read_as_each_shell_writes_it(text: str, seconds: float | None) -> None:
    assert read_report(FINISHED.replace("1m0.080000s 0m0.090000s", text)).cpu_seconds == seconds


@given(st.text(max_size=300))
def test_any_answer_is_read_or_refused(text: str) -> None:
    for each in (text, FINISHED.replace("=", f"={text}", 3), "state=running\n" + text):
        try:
            read_report(each)
        except ValueError:
            continue


def _status(**changes: object) -> JobStatus:
    values: dict[str, object] = {"state": JobState.FINISHED, "reason": "exit", "code": 0, "started": 10, "ended": 22}
    return JobStatus(**(values | changes))  # type: ignore[arg-type]


OPTIONS = RunOptions(host="hpc", command="x", outputs=("dose/*.raw",), time_limit=7200.0)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (_status(code=3), "exit code 3 after 12 s"),
        (_status(code=139), "exit code 139 (signal 11 (SIGSEGV)) after 12 s"),
        (_status(code=None, signal=9), "signal 9 (SIGKILL, out of memory perhaps) ended it after 12 s"),
        (_status(code=None), "its exit code is unknown; it ended after 12 s"),
        (_status(reason="time", code=0), "it ran longer than its time limit of 2 h and was ended"),
        (_status(reason="operator"), "an operator ended its run after 12 s"),
        (_status(reason="no_input"), "the case's input is not on the host"),
    ],
)
def test_ends_that_a_person_must_look_at(status: JobStatus, said: str) -> None:
    with pytest.raises(GiveUp) as caught:
        judge(status, OPTIONS, key="cabcdefghij", step="simulate")
    assert caught.value.message == said
    assert caught.value.hint


@pytest.mark.parametrize("reason", ["terminated", "lost", "superseded", "cancelled", "no_work", "of a later version"])
def test_ends_that_a_new_attempt_can_mend(reason: str) -> None:
    with pytest.raises(RetryLater):
        judge(_status(reason=reason), OPTIONS, key="cabcdefghij", step="simulate")


def test_facts_of_a_run_that_went_well() -> None:
    outputs = Outputs((Output(3, 0, 90),), stable=True)
    facts = examine(
        _status(log_bytes=5, left=2, cpu_seconds=1.5, peak_memory=4096), OPTIONS, [], outputs, key="", step=""
    )
    assert facts == {
        "exit_code": 0, "seconds": 12, "log_bytes": 5, "outputs": 3, "output_bytes": 90, "cpu_seconds": 1.5,
        "peak_memory_bytes": 4096, "left_behind": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (725, "12 min 5 s"), (3600, "1 h"), (7380, "2 h 3 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        (b"probed=1\n", Verdict.OK, "a run needs"),
        (b"missing=setsid\nmissing=/proc\nprobed=1\n", Verdict.FAIL, "setsid, /proc"),
        (b"logind=kills\nprobed=1\n", Verdict.WARN, "KillUserProcesses"),
        (b"Welcome!\n", Verdict.FAIL, "no sensible answer"),
    ],
)
def test_a_probe_is_read(answer: bytes, verdict: Verdict, said: str) -> None:
    check = read_probe("runs on hpc", Completed(0, answer, b""))
    assert check.verdict is verdict and said in check.text
    assert bool(check.mend) is (verdict is not Verdict.OK)


def lines(*pieces: bytes) -> list[str]:
    reader = LineReader()
    return [line for piece in pieces for line in reader.feed(piece)] + list(reader.end())


def test_a_log_is_cut_at_line_ends_wherever_its_pieces_end() -> None:
    assert lines(b"on", b"e\r", b"\ntwo\n10%\r20%\r", b"30%\n\xc3", b"\xbc\tx\xff") == [
        "one", "two", "10%", "20%", "30%", "ü       x�",
    ]  # fmt: skip


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    reader = LineReader()
    got = [line for _ in range(100) for line in reader.feed(b"x" * 1000)]
    assert max(map(len, got)) == MOST_LINE
    assert sum(map(len, [*got, *reader.end()])) == 100_000


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_how_a_log_is_cut_into_pieces_does_not_matter(data: bytes, cuts: list[int]) -> None:
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert lines(*pieces) == lines(data)
