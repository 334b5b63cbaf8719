"""What a command starts is found by its session too, when it has dropped its environment and the runner is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exec.far_side import FarSide, alive, lines_of, processes_below, start_time, until
from exec.turns import Bench
from mqi_cli import RetryLater
from mqi_ssh_exec import quick
from mqi_ssh_exec.job_status import JobState

DROPS_ITS_MARK = 'echo $$ >>"$LEDGER"; cd /; exec env -i sleep 300'


@pytest.fixture(autouse=True)
def left(tmp_path: Path) -> Iterator[None]:
    """End what a test that fails would leave: nothing else finds it."""
    yield
    for line in lines_of(tmp_path / "ledger"):
        if line.isdigit() and alive(int(line)):
            os.kill(int(line), signal.SIGKILL)


def sleeper(side: FarSide) -> int:
    """Return what a command became that dropped its environment: by now nothing but its session tells whose it is."""
    until(lambda: lines_of(side.ledger))
    pid = int(lines_of(side.ledger)[0])
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert b"MQI_JOB" not in Path(f"/proc/{pid}/environ").read_bytes()
    return pid


def end_runner(side: FarSide, spared: int) -> None:
    """End all that looks after a run by force, and spare what the command became."""
    for pid in set(processes_below(side.part)) - {spared}:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(side.runner()))


def test_a_command_that_drops_its_environment_outlives_its_runner_and_no_other_attempt_begins(
    far_side: FarSide,
) -> None:
    far_side.submit(DROPS_ITS_MARK)
    pid = sleeper(far_side)
    end_runner(far_side, pid)
    assert alive(pid)
    status = far_side.status()
    assert (status.state, status.processes) == (JobState.HEADLESS, 1)
    busy = far_side.submit("exit 0", attempt=2)
    assert busy.busy and busy.attempt == 1
    assert not far_side.work(2).exists()
    assert alive(pid)
    assert far_side.kill(reason="lost").reason == "lost"
    assert not alive(pid)
    assert far_side.submit("exit 0", attempt=2, wait=5).code == 0


def test_a_command_whose_runner_dies_before_it_has_begun_never_does(
    far_side: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = quick.runner().text.replace(
        b"            self.write_session(", b"            time.sleep(1); self.write_session("
    )
    assert text != quick.runner().text
    monkeypatch.setattr(quick, "runner", lambda slow=quick.Resident("slow", text): slow)
    helper = far_side.helper.read_bytes()
    far_side.helper.write_bytes(helper.replace(b"inner() {\n", b"inner() {\n    sleep 1\n"))
    assert far_side.helper.read_bytes() != helper
    far_side.submit('echo start >>"$LEDGER"')
    until(lambda: (far_side.records() / "started").exists())
    until(far_side.work().exists)
    os.kill(far_side.runner(), signal.SIGKILL)
    until(lambda: far_side.status().state is JobState.LOST)  # nothing told that it would begin yet
    time.sleep(1.3)
    assert not far_side.ledger.exists()


def test_what_dropped_its_environment_is_ended_also_when_the_leader_of_its_session_is_gone(far_side: FarSide) -> None:
    far_side.submit("""(echo $(sh -c 'echo $PPID') >>"$LEDGER"; cd /; exec env -i sleep 300) & wait""")
    pid = sleeper(far_side)
    end_runner(far_side, pid)
    leader = int((far_side.records() / "session").read_text().split()[0])
    until(lambda: not alive(leader))
    assert far_side.status().state is JobState.HEADLESS
    assert far_side.kill(reason="lost").reason == "lost"
    assert not alive(pid)


def test_a_session_of_another_boot_or_with_a_number_given_again_is_left_alone(far_side: FarSide) -> None:
    far_side.submit("sleep 300")
    far_side.runner()
    record = far_side.records() / "session"
    until(record.exists)
    far_side.kill_all()
    foreign = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        number, start, boot, space = str(foreign.pid), start_time(foreign.pid), *record.read_text().split()[2:]
        broken_off = f"{number} {start} {boot} {space}"
        for text in (
            f"{number} {int(start) - 1} {boot} {space}\n",
            f"{number} {start} of-yesterday {space}\n",
            f"{number} {start} {boot} pid:[1]\n",
            broken_off,
        ):
            record.write_text(text)
            assert far_side.status().state is JobState.LOST
            far_side.kill(wait=0)
            assert foreign.poll() is None
            (far_side.records() / "exit").unlink(missing_ok=True)
    finally:
        foreign.kill()
        foreign.wait()


def test_a_run_that_an_older_helper_started_has_no_session_written_down_and_goes_on(far_side: FarSide) -> None:
    far_side.submit('echo $$ >>"$LEDGER"; sleep 300')
    until(lambda: lines_of(far_side.ledger))
    (far_side.records() / "session").unlink()
    assert far_side.status().state is JobState.RUNNING
    os.kill(far_side.runner(), signal.SIGKILL)
    until(lambda: far_side.status().state is JobState.HEADLESS)
    assert far_side.kill(reason="lost").reason == "lost"


def test_an_attempt_whose_command_dropped_its_environment_is_ended_before_the_next_begins(bench: Bench) -> None:
    command = f"echo $$ >>{bench.ledger}; cd /; exec env -i sleep 300"
    ctx = bench.context(command)
    until(lambda: bench.drive_once(ctx) and lines_of(bench.ledger))
    pid = int(lines_of(bench.ledger)[0])
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    bench.look_again(ctx)
    os.kill(bench.job(ctx).status().pid, signal.SIGKILL)
    with pytest.raises(RetryLater, match="lost its runner"):
        bench.drive(ctx)
    assert not alive(pid)
    later = bench.context(f"echo second >>{bench.ledger}", attempt=2)
    bench.drive(later)
    assert lines_of(bench.ledger) == [str(pid), "second"]
