"""Any one process is killed in the middle of a case: the case ends well, and no program was started twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from servers.house import NAME, House, hashes, wait_for


@pytest.mark.parametrize(
    "process",
    ["conductor", "ssh-exec", "sftp", "daemon", pytest.param("ssh-exec-by-rabbitmq", marks=pytest.mark.soak)],
)
def test_a_killed_process_loses_nothing_and_starts_nothing_twice(
    house: House, process: str, request: pytest.FixtureRequest
) -> None:
    process, _, broker = process.partition("-by-")
    house.configure(seconds=4, broker=house.broker(request.getfixturevalue(broker)) if broker else "")
    with house.daemon():
        pid = process_id(house, process)
        case = house.write_case(house.directory / "incoming" / NAME, layers=20 if process == "sftp" else 2)
        if process == "sftp":  # while it copies: the first file is there, the last is not
            wait_for(lambda: list(house.far.glob("*/*")), "the upload to begin", pause=0.01)
        else:
            wait_for(lambda: any(step == "simulate" for _, step, _ in house.starts()), "the run to begin")
        assert "archive" not in {each.name for each in house.directory.iterdir()}
        os.kill(pid, signal.SIGKILL)
        if process == "sftp":
            assert not house.starts(), "the upload was over before the kill"
        if process == "daemon":
            wait_for(lambda: house.mqi("daemon", "start", code=None).startswith("the daemon is up"), "a new daemon")
        house.wait_state("done", "held", limit=60)
    assert [each["state"] for each in house.cases()] == ["done"]
    assert Counter((key, step) for key, step, _ in house.starts()).most_common(1)[0][1] == 1
    assert {step for _, step, _ in house.starts()} == {"interpret", "simulate"}
    assert hashes(house.results) == house.expected(case)


def process_id(house: House, process: str) -> int:
    """Return the id of the daemon or one of its processes, so that it can be killed without a word."""
    if process == "daemon":
        return int(json.loads(house.mqi("daemon", "status", "--json"))["pid"])
    found = [pid for name, pid in house.children().items() if name.startswith(process)]
    assert found, f"no {process} among {sorted(house.children())}"
    return found[0]
