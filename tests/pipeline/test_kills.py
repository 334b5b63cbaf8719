"""Any one process is killed in the middle of a case: the case ends well, and no program was started twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from pipeline.house import House, hashes, wait_for


@pytest.mark.parametrize("process", ["conductor", "ssh-exec", "sftp", "daemon"])
def test_a_killed_process_loses_nothing_and_starts_nothing_twice(house: House, process: str) -> None:
    house.configure(seconds=5)
    with house.daemon():
        case = house.drop_case()
        if process == "sftp":  # in the middle of its work: the first file is there, the run has not begun
            wait_for(lambda: list(house.far.glob("*/*")), "the upload to begin")
        else:
            wait_for(lambda: any(step == "simulate" for _, step, _ in house.starts()), "the run to begin")
        kill(house, process)
        if process == "daemon":
            wait_for(lambda: house.mqi("daemon", "start", code=None).startswith("the daemon is up"), "a new daemon")
        house.wait_state("done", "held", limit=60)
    assert [each["state"] for each in house.cases()] == ["done"]
    assert Counter((key, step) for key, step, _ in house.starts()).most_common(1)[0][1] == 1
    assert {step for _, step, _ in house.starts()} == {"interpret", "simulate"}
    assert hashes(house.results) == house.expected(case)


def kill(house: House, process: str) -> None:
    """Kill as the kernel does when memory is short: one process, without a word."""
    if process == "daemon":
        pid = int(json.loads(house.mqi("daemon", "status", "--json"))["pid"])
    else:
        children = house.children()
        found = [name for name in children if name.startswith(process)]
        assert found, f"no {process} among {sorted(children)}"
        pid = children[found[0]]
    os.kill(pid, signal.SIGKILL)
