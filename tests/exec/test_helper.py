"""The helper by itself, in dash, bash and busybox: once and only once, proven dead, nothing foreign touched."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from exec.far_side import FarSide, alive, lines_of, processes_below, start_time, until
from mqi_ssh_exec.helper_calls import submit_call, survey_call
from mqi_ssh_exec.job_status import JobState, read_report, read_survey

STUBBORN = """
trap '' TERM
(trap '' TERM; setsid sh -c 'echo $$ >>"$LEDGER"; trap "" TERM; sleep 300' & sleep 300) &
echo $$ >>"$LEDGER"
sleep 300
"""


def test_a_command_runs_in_an_empty_directory_and_its_end_is_recorded(far_side: FarSide) -> None:
    status = far_side.submit("ls -A | wc -l; pwd; echo oops >&2; touch made; exit 3", wait=5)
    assert (status.state, status.reason, status.code, status.left) == (JobState.FINISHED, "exit", 3, 0)
    assert status.cpu_seconds is not None
    log = (far_side.records() / "log" / "0").read_text().split()
    assert log == ["0", str(far_side.work()), "oops"]
    assert os.listdir(far_side.work()) == ["made"]


def test_a_command_has_no_input_and_no_terminal(far_side: FarSide) -> None:
    status = far_side.submit("cat; test -t 1 && echo terminal; tty; exit 0", wait=5)
    assert status.code == 0
    assert (far_side.records() / "log" / "0").read_text() == "not a tty\n"


def test_submitted_again_it_is_adopted(far_side: FarSide) -> None:
    command = 'echo start >>"$LEDGER"; sleep 0.5; echo end >>"$LEDGER"'
    first = far_side.submit(command)
    assert first.state is JobState.RUNNING
    again = far_side.submit(command)
    assert (again.state, again.pid) == (JobState.RUNNING, first.pid)
    assert far_side.submit(command, wait=5).state is JobState.FINISHED
    assert far_side.submit("echo another >>$LEDGER", wait=5).state is JobState.FINISHED
    assert lines_of(far_side.ledger) == ["start", "end"]


def test_of_many_submissions_at_once_one_starts_it(far_side: FarSide) -> None:
    order = far_side.order('echo start >>"$LEDGER"; sleep 0.5')
    calls = [far_side.spawn(submit_call(far_side.far_helper, far_side.place(), order, wait=5)) for _ in range(8)]
    answers = [call.communicate(timeout=60) for call in calls]
    assert {read_report(out.decode()).state for out, _ in answers} == {JobState.FINISHED}
    assert lines_of(far_side.ledger) == ["start"]


def test_half_a_command_does_not_run(far_side: FarSide) -> None:
    order = far_side.order('echo start >>"$LEDGER"\necho all of it >>"$LEDGER"')
    call = submit_call(far_side.far_helper, far_side.place(), order, wait=0)
    program = far_side.spawn(type(call)(call.argv, call.stdin[:22]))
    out, _ = program.communicate(timeout=30)
    assert (program.returncode, out) == (1, b"error=incomplete\n")
    assert far_side.status().state is JobState.CLAIMED
    assert far_side.submit('echo whole >>"$LEDGER"', wait=5).state is JobState.FINISHED
    assert lines_of(far_side.ledger) == ["whole"]


def test_a_submission_that_was_ended_by_force_is_taken_up(far_side: FarSide) -> None:
    order = far_side.order('echo start >>"$LEDGER"; sleep 0.2')
    call = submit_call(far_side.far_helper, far_side.place(), order, wait=0)
    for delay in (0.0, 0.01, 0.03, 0.06):
        program = far_side.spawn(call)
        try:
            program.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()
    assert far_side.submit('echo start >>"$LEDGER"', wait=5).state is JobState.FINISHED
    assert lines_of(far_side.ledger) == ["start"]


def test_ending_a_run_ends_all_that_it_started(far_side: FarSide) -> None:
    assert far_side.submit(STUBBORN).state is JobState.RUNNING
    until(lambda: len(lines_of(far_side.ledger)) == 2)
    pids = [int(line) for line in lines_of(far_side.ledger)]
    status = far_side.kill()
    assert (status.state, status.reason) == (JobState.FINISHED, "operator")
    assert not [pid for pid in pids if alive(pid)]
    until(lambda: not processes_below(far_side.part), what="its logger and its watch end too")


def test_a_run_is_ended_at_its_time_limit(far_side: FarSide) -> None:
    status = far_side.submit(STUBBORN, time_limit=1, wait=15)
    assert (status.state, status.reason) == (JobState.FINISHED, "time")
    until(lambda: not processes_below(far_side.part))


def test_what_a_command_leaves_behind_is_ended_before_its_end_counts(far_side: FarSide) -> None:
    status = far_side.submit('setsid sh -c "trap : TERM; while :; do sleep 1; done" & sleep 0.3; exit 0', wait=15)
    assert (status.state, status.code) == (JobState.FINISHED, 0)
    assert status.left >= 1
    until(lambda: not processes_below(far_side.part))


def test_a_quick_run_with_a_time_limit_leaves_no_watch_behind(far_side: FarSide) -> None:
    for attempt in range(1, 6):
        assert far_side.submit("exit 0", attempt=attempt, time_limit=1000, wait=5).code == 0
    until(lambda: not processes_below(far_side.part))


def test_a_run_that_is_ended_by_force_with_its_runner_is_lost_not_done(far_side: FarSide) -> None:
    far_side.submit('echo start >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(far_side.ledger))
    for pid in processes_below(far_side.part):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_below(far_side.part))
    assert far_side.status().state is JobState.LOST
    assert far_side.submit("exit 0", wait=5).state is JobState.LOST


def test_a_run_that_outlives_its_runner_is_neither_lost_nor_done(far_side: FarSide) -> None:
    far_side.submit('echo $$ >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(far_side.ledger))
    os.kill(far_side.runner(), signal.SIGKILL)
    until(lambda: far_side.status().state is JobState.HEADLESS)
    busy = far_side.submit("exit 0", attempt=2)
    assert busy.busy and busy.attempt == 1
    assert far_side.kill(reason="lost").reason == "lost"
    assert not alive(int(lines_of(far_side.ledger)[0]))
    assert far_side.submit("exit 0", attempt=2, wait=5).code == 0


def test_a_stopped_runner_is_ended_too(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    os.kill(far_side.runner(), signal.SIGSTOP)
    assert far_side.kill().state is JobState.FINISHED
    until(lambda: not processes_below(far_side.part))


@pytest.fixture
def bystander() -> subprocess.Popen[bytes]:
    """A process of ours that no run started."""
    return subprocess.Popen(["sleep", "300"])


def test_a_process_that_got_the_same_number_is_not_taken_for_the_run(
    far_side: FarSide, bystander: subprocess.Popen[bytes]
) -> None:
    try:
        far_side.submit("sleep 300")
        far_side.runner()
        far_side.kill_all()
        far_side.rewrite_started(pid=str(bystander.pid))
        assert far_side.status().state is JobState.LOST
        far_side.kill()
        assert bystander.poll() is None
        far_side.rewrite_started(pid=str(bystander.pid), start=start_time(bystander.pid), boot="of-yesterday")
        assert far_side.status().state is JobState.LOST
        far_side.kill()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_run_of_before_a_restart_is_lost(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    far_side.runner()
    far_side.kill_all()
    far_side.rewrite_started(boot="of-yesterday")
    assert far_side.status().state is JobState.LOST


def test_a_run_of_another_machine_is_unknown_and_stands_in_the_way(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    far_side.runner()
    far_side.kill_all()
    far_side.rewrite_started(boot="another", node="login2")
    status = far_side.status()
    assert (status.state, status.node) == (JobState.UNKNOWN, "login2")
    assert far_side.kill(wait=0).state is JobState.UNKNOWN
    busy = far_side.submit("exit 0", attempt=2)
    assert busy.busy and busy.state is JobState.UNKNOWN
    assert not far_side.work(2).exists()
    assert far_side.kill(reason="gone", wait=0).reason == "gone"  # somebody vouches for it
    assert far_side.submit("exit 0", attempt=2, wait=5).code == 0


def test_gone_is_no_word_for_a_run_that_can_be_looked_at(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    assert far_side.kill(reason="gone").state is JobState.FINISHED
    until(lambda: not processes_below(far_side.part))


def test_a_later_attempt_does_not_begin_while_an_earlier_one_runs(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    busy = far_side.submit('echo second >>"$LEDGER"', attempt=3)
    assert (busy.busy, busy.attempt, busy.state) == (True, 1, JobState.RUNNING)
    far_side.kill()
    assert far_side.submit('echo second >>"$LEDGER"', attempt=3, wait=5).code == 0
    assert lines_of(far_side.ledger) == ["second"]


def test_an_earlier_attempt_never_begins_once_a_later_one_has(far_side: FarSide) -> None:
    assert far_side.submit("exit 0", attempt=3, wait=5).code == 0
    for attempt in (1, 2):
        status = far_side.submit('echo stale >>"$LEDGER"', attempt=attempt, wait=1)
        assert (status.state, status.reason) == (JobState.FINISHED, "superseded")
    assert not far_side.ledger.exists()


def test_a_run_whose_records_were_removed_still_stands_in_the_way(far_side: FarSide) -> None:
    far_side.submit('echo $$ >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(far_side.ledger))
    subprocess.run(["rm", "-rf", str(far_side.part)], check=True)
    busy = far_side.submit("exit 0", attempt=2)
    assert (busy.busy, busy.attempt, busy.state) == (True, 1, JobState.HEADLESS)
    far_side.kill(attempt=1)
    assert far_side.submit("exit 0", attempt=2, wait=5).code == 0


def test_a_run_that_has_not_begun_can_be_forbidden(far_side: FarSide) -> None:
    assert far_side.kill(reason="cancelled").reason == "cancelled"
    assert far_side.submit('echo start >>"$LEDGER"', wait=1).reason == "cancelled"
    assert not far_side.ledger.exists()


def test_what_is_in_the_work_directory_keeps_a_run_from_starting(far_side: FarSide) -> None:
    far_side.work().mkdir(parents=True)
    (far_side.work() / "stale").touch()
    assert far_side.submit('echo start >>"$LEDGER"', wait=5).reason == "not_empty"
    assert not far_side.ledger.exists()


def test_a_large_log_is_kept_within_its_limit_with_its_beginning_and_end(far_side: FarSide) -> None:
    command = "echo first line; head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo last line"
    status = far_side.submit(command, log_limit=1_000_000, wait=30)
    assert status.code == 0
    assert status.log_bytes > 30_000_000 and not status.log_complete
    kept = sum(each.stat().st_size for each in (far_side.records() / "log").iterdir())
    assert kept <= 1_200_000
    assert far_side.ask("search", "first line", "last line", "neither") == "found=1\nfound=1\nfound=0\nlog_cut=1\n"
    assert (
        far_side.ask("search", "/^first +line$/", "/(neither|nor)/", "/first line")
        == "found=1\nfound=0\nfound=0\nlog_cut=1\n"
    )
    assert far_side.ask("line", "/l[aeiou]st/").startswith("line=")
    tail = far_side.ask("log", str(status.log_bytes - 10), "100")
    assert tail == f"from={status.log_bytes - 10}\n\nlast line\n"
    gap = far_side.ask("log", "900000", "5")
    assert int(gap.partition("\n")[0].removeprefix("from=")) > 29_000_000


def test_a_line_that_ends_in_a_carriage_return_is_matched_without_it(far_side: FarSide) -> None:
    far_side.submit(r"printf 'first\r\n50 %%\rbad thing\r\nbad thing\r\nworse\r\r\n\r\n\000zero\r\nlast\r'", wait=10)
    patterns = ["/^bad thing$/", "/^worse$/", "/^$/", "/zero$/", "/^last$/", "/^[^x]bad/", "/%.bad thing$/", "/^.{4}$/"]
    answer = far_side.ask("search", *patterns, "/\r$/", "/^50 %$/", "thing\r", "bad thing")
    assert answer.split() == [f"found={each}" for each in (1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1)] + ["log_cut=0"]
    assert far_side.ask("line", "/^bad thing$/").rstrip() == "line=3 bad thing"


def test_a_log_is_read_while_it_is_written(far_side: FarSide) -> None:
    far_side.submit("printf one; sleep 300")
    until(lambda: far_side.status().log_bytes == 3)
    assert far_side.ask("log", "0", "2") == "from=0\n\non"
    assert far_side.ask("log", "2", "100") == "from=2\n\ne"
    assert far_side.ask("log", "3", "100") == "from=3\n\n"


def test_how_long_a_run_has_run_is_counted_without_the_wall_clock(far_side: FarSide) -> None:
    far_side.submit("sleep 60")
    until(lambda: far_side.status().ran, what="a second has passed")
    record = far_side.place().records / "started"
    text = Path(record).read_text()
    began = next(int(line.removeprefix("at=")) for line in text.splitlines() if line.startswith("at="))
    Path(record).write_text(
        text.replace(f"at={began}", f"at={began - 86400}")
    )  # as it stands when the clock has jumped
    status = far_side.status()
    assert status.now - (status.started or 0) > 86000 and status.seconds < 3600
    assert status.clock <= float(Path("/proc/uptime").read_text().split()[0])


def test_outputs_are_counted_whatever_their_names(far_side: FarSide) -> None:
    far_side.submit("exit 0", wait=5)
    work = far_side.work()
    (work / "dose").mkdir()
    for name in ("a.raw", "with space.raw", "new\nline.raw", "-e.raw", "*.raw", "$(touch gotcha).raw", "ü.raw"):
        (work / "dose" / name).write_text("12345")
    (work / "empty.raw").touch()
    (work / "link.raw").symlink_to("dose/a.raw")
    answer = far_side.ask("outputs", "0", "dose/*.raw", "dose", "*.raw", "none/*", "dose/$(touch gotcha).raw")
    assert answer.splitlines() == [
        "stable=1",
        "output=7 0 35",
        "output=7 0 35",
        "output=2 1 5",
        "output=0 0 0",
        "output=1 0 5",
    ]
    assert not (work / "gotcha").exists()


def test_links_that_lead_nowhere_are_passed_over_wherever_they_sort(far_side: FarSide) -> None:
    far_side.submit("exit 0", wait=5)
    work = far_side.work()
    (work / "dose").mkdir()
    for name in ("a.raw", "c.raw", "dose/a.raw", "alone.txt"):
        (work / name).symlink_to("/nowhere")
    (work / "b.raw").write_text("12345")
    (work / "dose" / "b.raw").write_text("123")
    answer = far_side.ask("outputs", "0", "*.raw", "dose/*", "dose", "*.txt", "a.raw", "*")
    counted = ["output=1 0 5", "output=1 0 3", "output=1 0 3", "output=0 0 0", "output=0 0 0", "output=2 0 8"]
    assert answer.splitlines() == ["stable=1", *counted]


def test_outputs_that_still_change_are_not_stable(far_side: FarSide) -> None:
    far_side.submit("exit 0", wait=5)
    grow = subprocess.Popen(["sh", "-c", f"while sleep 0.05; do echo x >>{far_side.work()}/grows; done"])
    try:
        until(lambda: (far_side.work() / "grows").exists())
        assert far_side.ask("outputs", "1", "grows").startswith("stable=0\n")
    finally:
        grow.kill()
        grow.wait()


def test_wrong_arguments_are_refused(one_side: FarSide) -> None:
    for arguments in (["status"], ["status", "/p", "x", "0"], ["status", "p", "1", "0"], ["fly", "/p", "1"], []):
        done = subprocess.run(["sh", str(one_side.helper), *arguments], capture_output=True, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (1, b"error=usage\n")


def test_200_megabytes_of_output_pass_quickly_and_are_bounded(one_side: FarSide, tmp_path: Path) -> None:
    status = one_side.submit("head -c 200000000 /dev/zero", log_limit=8_000_000, wait=30)
    assert (status.code, status.log_bytes) == (0, 200_000_000)
    assert sum(each.stat().st_size for each in (one_side.records() / "log").iterdir()) < 9_000_000


def test_a_file_system_without_space_for_the_log_does_not_stop_the_run(far_side: FarSide) -> None:
    far_side.environment["LIMITED"] = "1"
    # Files of this run's processes may grow to 64 KiB; dd then fails as it does on a full disk.
    command = "ulimit -f unlimited 2>/dev/null; head -c 3000000 /dev/zero; exit 0"
    order = far_side.order(command, log_limit=1_000_000)
    call = submit_call(far_side.far_helper, far_side.place(), order, wait=10)
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 128; exec sh "$@"', "sh", *call.argv[1:]]
    program = subprocess.run(limited, input=call.stdin, capture_output=True, env=far_side.environment, timeout=60)
    status = read_report(program.stdout.decode())
    assert (status.state, status.code, status.log_complete) == (JobState.FINISHED, 0, False)


def test_a_run_whose_log_finds_no_space_is_told_as_one_that_goes_on_without_it(
    far_side: FarSide, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    order = far_side.order(f"head -c 3000000 /dev/zero; until [ -e {go} ]; do sleep 0.1; done", log_limit=1_000_000)
    call = submit_call(far_side.far_helper, far_side.place(), order, wait=0)
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 128; exec sh "$@"', "sh", *call.argv[1:]]
    subprocess.run(limited, input=call.stdin, capture_output=True, env=far_side.environment, timeout=60, check=True)
    until(lambda: far_side.status().log_lost)
    assert far_side.status().state is JobState.RUNNING
    place = far_side.place()
    seen = read_survey(far_side.call(survey_call(far_side.far_helper, [place])))[str(place.part), 1]
    assert seen.log_lost and 0 < seen.log_bytes < 100_000
    go.touch()
    ended = far_side.status(wait=10)
    assert (ended.state, ended.code, ended.log_lost) == (JobState.FINISHED, 0, True)
    assert not far_side.submit("echo well", attempt=2, wait=10).log_lost


def test_the_beginning_and_the_end_are_written_down_with_all_that_identifies_the_run(one_side: FarSide) -> None:
    one_side.submit("sleep 0.3; exit 5", time_limit=60)
    pid = one_side.runner()
    begun = dict(line.split("=", 1) for line in (one_side.records() / "started").read_text().splitlines())
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    assert (begun["group"], begun["start"]) == (stat[2], stat[19])
    assert begun["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert begun["node"] == os.uname().nodename and begun["at"].isdigit() and begun["space"].startswith("pid:")
    until(lambda: (one_side.records() / "exit").exists())
    ended = dict(line.split("=", 1) for line in (one_side.records() / "exit").read_text().splitlines() if "=" in line)
    assert (ended["reason"], ended["code"]) == ("exit", "5") and ended["ended"].isdigit() and "cpu" in ended
    if Path("/usr/bin/time").exists():
        assert int(ended["memory"]) > 0
    assert not list(one_side.records().glob("*.tmp"))
