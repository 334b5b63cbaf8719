"""Whatever is killed, and whenever: two runs of one part never live at once, and none that was cut short counts as done."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from exec.far_side import FarSide, lines_of, processes_below
from mqi_ssh_exec.helper_calls import submit_call
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus

ATTEMPTS, STARTS = 9, 5  # what must have happened before a test ends

# The lock ends with its last holder, and everything that the command starts holds it.
COMMAND = """
exec 9>"$MARK/alive"
flock -n 9 || echo "overlap" >>"$LEDGER"
echo "start $ATTEMPT" >>"$LEDGER"
sleep 0.$PART & (setsid sleep 0.4 &) ; wait
echo "end $ATTEMPT" >>"$LEDGER"
"""


def submit(side: FarSide, attempt: int, random_: random.Random) -> JobStatus | None:
    """Submit an attempt, and sometimes end the submission itself by force on its way."""
    command = COMMAND.replace("$ATTEMPT", str(attempt)).replace("$PART", str(random_.randint(1, 6)))
    if random_.random() < 0.5:
        return side.submit(command, attempt=attempt)
    program = side.spawn(submit_call(side.far_helper, side.place(attempt), side.order(command), wait=0))
    try:
        program.wait(random_.random() * 0.15)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
    program.communicate()
    return None


def kill_something(side: FarSide, random_: random.Random) -> None:
    """End one process, or all, of what runs."""
    living = processes_below(side.part)
    random_.shuffle(living)
    for pid in living[: random_.choice([1, 1, 2, len(living)])]:
        try:
            os.kill(pid, random_.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        except ProcessLookupError:
            continue


@pytest.mark.skipif(not shutil.which("flock"), reason="flock tells whether two live at once")
@pytest.mark.parametrize("seed", range(2))
def test_two_attempts_never_live_at_once(seed: int, one_side: FarSide) -> None:
    random_ = random.Random(seed)
    side, attempt, done = one_side, 1, 0
    end = time.monotonic() + 60
    while attempt < ATTEMPTS or len(starts(side)) < STARTS:
        assert time.monotonic() < end, "too little happens"
        act = random_.random()
        if act < 0.5:
            submit(side, random_.choice([attempt, attempt, attempt, max(1, attempt - 1)]), random_)
        elif act < 0.75:
            kill_something(side, random_)
        elif act < 0.85:
            side.kill(attempt=attempt, reason="lost", wait=1)
        status = side.status(attempt=attempt)
        if status.state in OVER or random_.random() < 0.05:
            if status.state is JobState.FINISHED and status.reason == "exit" and status.code == 0:
                done += 1
                assert f"end {attempt}" in lines_of(side.ledger), "it counts as done, but was cut short"
            attempt += 1
    assert "overlap" not in lines_of(side.ledger)
    assert len(starts(side)) == len(set(starts(side))), "an attempt was started twice"


def starts(side: FarSide) -> list[str]:
    """Return the starts that the ledger has."""
    return [line for line in lines_of(side.ledger) if line.startswith("start")]
