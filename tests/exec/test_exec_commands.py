"""`mqi exec` at the command line, without a daemon: run, interrupted and taken up, status, logs, kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curator import captured
from curator.machines import FakeSmi
from exec.far_side import processes_below, until

CONFIG = """
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
ssh_exec: {{poll: 200ms, kill_after: 1s}}
workflows:
  qa:
    - run: {{name: interpret, host: here, command: "{command}", outputs: [made]}}
    - run: {{name: simulate, host: here, command: "sleep 0.1"}}
"""
COMMAND = (
    "for i in 1 2 3 4 5; do echo line $i; done; printf 'a\\\\033[31mb\\\\n'; echo x >made; test -e {go} || sleep 300"
)


class CommandLine:
    """A case and the command `mqi`."""

    def __init__(self, directory: Path, config: str = "") -> None:
        self.directory = directory
        self.go = directory / "go"
        self.far = directory / "far"
        case = directory / "incoming" / "Meier_Anna"
        case.mkdir(parents=True)
        (case / "a.ptn").write_text("x")
        config = config or CONFIG.format(far=self.far, command=COMMAND.replace("{go}", str(self.go)))
        (directory / "mqi.yaml").write_text(config)
        self.mqi("case", "add", str(case))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'plugins'}"}
        command = [sys.executable, "-m", "mqi_cli", "--config", str(self.directory / "mqi.yaml"), *arguments]
        return subprocess.Popen(
            command, cwd=self.directory, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def mqi(self, *arguments: str, code: int | None = 0) -> str:
        """Run a command and return what it printed, on both streams."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert code is None or process.returncode == code, out + err
        return out + err

    def status(self) -> dict[str, object]:
        row: dict[str, object] = json.loads(self.mqi("exec", "status", "Meier", "interpret", "--json"))[0]
        return row


@pytest.fixture
def line(tmp_path: Path) -> Iterator[CommandLine]:
    """A case that an operator works on by hand."""
    made = CommandLine(tmp_path)
    yield made
    for pid in processes_below(made.far):
        os.kill(pid, signal.SIGKILL)


GPU_CONFIG = """
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
ssh_exec: {{poll: 200ms}}
curator: {{gpu_command: [{smi}]}}
workflows:
  qa:
    - run: {{name: simulate, host: here, gpus: 1, command: "echo on $CUDA_VISIBLE_DEVICES"}}
"""


def test_a_run_on_a_gpu_needs_no_daemon_that_has_looked_at_gpus_before(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path / "smi")
    smi.answers(captured.TWO_A100_MIG_COLUMN, f"{captured.A}, 977\n{captured.B}, 978\n")
    line = CommandLine(tmp_path, GPU_CONFIG.format(far=tmp_path / "far", smi=smi.program))
    said = line.mqi("exec", "run", "Meier", "--step", "simulate", code=2)
    assert "simulate can't begin: waits for 1 GPU on here: 0 of 2 free" in said
    smi.answers(captured.TWO_A100_MIG_COLUMN, f"{captured.A}, 977\n")  # the other one is free by now
    line.mqi("exec", "run", "Meier", "--step", "simulate")
    assert line.mqi("exec", "logs", "Meier", "simulate") == f"on {captured.B}\n"


def test_a_run_is_interrupted_taken_up_and_ended_by_hand(line: CommandLine) -> None:
    assert "has not begun" in line.mqi("exec", "logs", "Meier", code=1)
    by_hand = line.start("exec", "run", "Meier")
    until(lambda: processes_below(line.far))
    until(lambda: list(line.far.glob("*/work/interpret/_/1/made")))
    by_hand.send_signal(signal.SIGINT)
    out, err = by_hand.communicate(timeout=30)
    assert by_hand.returncode != 0 and "not finished" in out + err
    status = line.status()
    assert (status["state"], status["attempt"], status["host"]) == ("running", 1, "here")
    assert "give --yes" in line.mqi("exec", "kill", "Meier", code=2)
    assert line.mqi("exec", "logs", "Meier", "-n", "2") == "line 5\na\\x1b[31mb\n"
    following = line.start("exec", "logs", "Meier", "--follow", "--lines", "0")
    assert "ended: nothing of attempt 1 runs on here" in line.mqi("exec", "kill", "Meier", "--yes")
    out, err = following.communicate(timeout=30)
    assert (following.returncode, out.splitlines()[:2], err) == (0, ["line 1", "line 2"], "")
    assert line.status()["state"] == "finished (operator)"
    assert "an operator ended it" in line.mqi("case", "why", "Meier", code=None)
    line.go.touch()
    assert "exit code 0 after" in line.mqi("exec", "run", "Meier")
    assert line.status()["attempt"] == 2
    assert "finished (operator)" in line.mqi("exec", "status", "Meier", "interpret", "--attempt", "1")
    assert "no attempt 3" in line.mqi("exec", "logs", "Meier", "interpret", "--attempt", "3", code=2)
    assert "nothing of step interpret runs" in line.mqi("exec", "kill", "Meier", "interpret")
    until(lambda: not processes_below(line.far))


def test_a_step_of_a_case_that_is_done_fails_when_it_is_done_again_and_nothing_says_that_the_case_is_held(
    line: CommandLine,
) -> None:
    line.go.touch()
    line.mqi("exec", "run", "Meier")
    line.mqi("exec", "run", "Meier")
    assert line.mqi("case", "why", "Meier").count("failed") == 0
    config = line.directory / "mqi.yaml"
    config.write_text(config.read_text().replace("outputs: [made]", "outputs: [never]"))

    line.mqi("exec", "run", "Meier", "--step", "interpret", code=1)

    log = line.mqi("case", "log", "Meier")
    assert "interpret failed when it was done again: " in log
    assert "its attempt 1 still counts, and the case stays done" in log
    assert "held" not in log
    why = line.mqi("case", "why", "Meier")
    assert "all steps of qa are finished; interpret was done again since and failed: " in why
    assert json.loads(line.mqi("case", "list", "--all", "--json"))[0]["state"] == "done"


def test_a_run_of_unknown_fate_has_none_once_kill_has_proven_it_over(line: CommandLine) -> None:
    line.go.touch()
    line.mqi("exec", "run", "Meier")
    line.mqi("exec", "run", "Meier")  # the other step: the case is done
    with contextlib.closing(sqlite3.connect(line.directory / "state" / "state.db")) as database, database:
        # as a bug while it was judged would have left it, and a second try that its stage never began
        database.execute("UPDATE part SET state = 'failed', waiting_for = 'end' WHERE step = 'interpret'")
        columns = [each[1] for each in database.execute("PRAGMA table_info(part)")]
        taken = ", ".join("2" if each == "attempt" else each for each in columns if each != "id")
        database.execute(
            f"INSERT INTO part ({', '.join(columns[1:])}) SELECT {taken} FROM part WHERE step = 'interpret'"
        )
    assert "mqi exec kill" in line.mqi("case", "rerun", "Meier", "--yes", code=2)

    said = line.mqi("exec", "kill", "Meier", "interpret")

    assert "nothing of step interpret lives any more" in said
    line.mqi("case", "rerun", "Meier", "--yes")
