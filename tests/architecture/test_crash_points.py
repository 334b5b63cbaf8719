"""Crash points: every name stands in one place of the program, and without the variable they do nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mqi_cli
from mqi_cli import crash_points

SOURCE = Path(mqi_cli.__file__).parent


def test_every_crash_point_stands_in_the_program_once_and_no_other_does() -> None:
    found = [
        name
        for file in SOURCE.rglob("*.py")
        if file.name != "crash_points.py"
        for name in re.findall(r'crash_point\("([^"]+)"\)', file.read_text())
    ]
    assert sorted(found) == sorted(crash_points.POINTS)


def test_a_crash_point_kills_at_the_count_and_with_marks_once_only(tmp_path: Path) -> None:
    text = "from mqi_cli.crash_points import crash_point\nfor n in range(3):\n    print(n, flush=True)\n    crash_point('relay.sent')"

    def run(**environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert run() == (0, "0\n1\n2\n")
    assert run(MQI_CRASH_AT="relay.sent:2") == (-9, "0\n1\n")
    assert run(MQI_CRASH_AT="relay.sent:2", MQI_CRASH_MARKS=str(tmp_path)) == (-9, "0\n1\n")
    assert [each.name for each in tmp_path.iterdir()] == ["relay.sent"]
    assert run(MQI_CRASH_AT="relay.sent:2", MQI_CRASH_MARKS=str(tmp_path)) == (0, "0\n1\n2\n")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relay\.snet"):
        crash_points.parse_points("relay.sent,relay.snet:2")
