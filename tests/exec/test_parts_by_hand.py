"""A step that fans out, worked on at the command line without a daemon: run, status, logs, kill, part by part."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from exec.far_side import processes_below, until
from exec.test_exec_commands import CommandLine

CONFIG = """
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
ssh_exec: {{poll: 200ms, kill_after: 1s}}
workflows:
  qa:
    - run: {{name: interpret, host: here, command: "printf 'left\\\\nright\\\\n' >beams"}}
    - run:
        name: simulate
        host: here
        for_each: {{output_of: interpret, lines: beams}}
        command: "echo beam {{part}} is {{part_index}}; echo {{part}} >dose; test {{part_index}} = 1 || test -e {go} || sleep 300"
        outputs: [dose]
    - run: {{name: total, host: here, command: "cat {{step.simulate}}/*/dose"}}
"""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[CommandLine]:
    """A case whose second step fans out."""
    made = CommandLine.__new__(CommandLine)
    made.directory, made.go, made.far = tmp_path, tmp_path / "go", tmp_path / "far"
    case = tmp_path / "incoming" / "Meier_Anna"
    case.mkdir(parents=True)
    (case / "a.ptn").write_text("x")
    (tmp_path / "mqi.yaml").write_text(CONFIG.format(far=made.far, go=made.go))
    made.mqi("case", "add", str(case))
    yield made
    for pid in processes_below(made.far):
        os.kill(pid, signal.SIGKILL)


def test_parts_are_run_shown_ended_and_run_again_by_hand(line: CommandLine) -> None:
    line.mqi("exec", "run", "Meier")
    by_hand = line.start("exec", "run", "Meier")
    until(lambda: list(line.far.glob("*/work/simulate/2/1/dose")))
    by_hand.send_signal(signal.SIGINT)
    by_hand.communicate(timeout=30)

    rows = json.loads(line.mqi("exec", "status", "Meier", "simulate", "--json"))
    assert [(row["part"], row["stands_for"], row["state"]) for row in rows] == [
        ("1", "left", "finished"),
        ("2", "right", "running"),
    ]
    assert "name one with --part" in line.mqi("exec", "logs", "Meier", "simulate", code=2)
    assert line.mqi("exec", "logs", "Meier", "simulate", "--part", "1") == "beam left is 1\n"
    ended = line.mqi("exec", "kill", "Meier", "simulate", "--yes")
    assert ended.splitlines() == [  # a word on that part alone
        "ended: nothing of attempt 1 of part 2 runs on here",
        "the case is held; it goes on by: mqi case retry",
    ]
    assert "nothing of step simulate runs on here" in line.mqi("exec", "kill", "Meier", "simulate")
    assert "nothing of step simulate, part 1, runs" in line.mqi("exec", "kill", "Meier", "simulate", "--part", "1")

    assert "1 of 2 parts done, part 2 cancelled" in line.mqi("case", "why", "Meier", code=None)
    assert "step simulate has no part 3" in line.mqi("exec", "run", "Meier", "--part", "3", code=2)
    line.go.touch()
    assert "exit code 0 of 1 part" in line.mqi("exec", "run", "Meier")
    line.mqi("exec", "run", "Meier")
    assert line.mqi("exec", "logs", "Meier", "total").split() == ["left", "right"]
    shown = json.loads(line.mqi("case", "show", "Meier", "--json"))
    simulate = [(each["part"], each["attempt"], each["state"]) for each in shown["steps"] if each["step"] == "simulate"]
    assert simulate == [("", 1, "done"), ("1", 1, "done"), ("2", 1, "cancelled"), ("2", 2, "done")]
    assert shown["state"] == "done"


ONE_FAILS = """
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
workflows:
  qa:
    - run: {{name: simulate, host: here, for_each: [left, middle, right], command: "test {{part}} != middle"}}
"""


def test_by_hand_too_the_other_parts_go_on_when_one_fails(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, ONE_FAILS.format(far=tmp_path / "far"))
    said = line.mqi("exec", "run", "Meier", code=1)
    assert "part 2: exit code 1" in said and "--part 2 shows its last lines" in said
    assert "2 of 3 parts done, part 2 failed: exit code 1" in line.mqi("case", "why", "Meier", code=None)
    log = line.mqi("case", "log", "Meier")
    assert "simulate/3 done in" in log and "simulate/2 failed: exit code 1" in log, "which part it was"
