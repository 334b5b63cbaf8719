"""`mqi exec kill` of a whole step with several parts: none of them begins any more, with a daemon and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servers.house import House, wait_for

_CONFIG = """\
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}, limits: {{jobs: 1}}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
ssh_exec: {{poll: 200ms, kill_after: 1s}}
workflows:
  qa:
    - run: {{name: simulate, host: here, for_each: [a, b, c], command: "echo {{part}} >>{ledger}; test -e {go} || sleep 300"}}
daemon: {{lease: 3s, retry_first: 1s, stop_within: 10s}}
"""


@pytest.fixture
def ledger(house: House) -> Path:
    """Where each part notes that it began; the house's workflow is one step with three parts, one at a time."""
    ledger = house.directory / "ledger"
    house.config.write_text(_CONFIG.format(far=house.far, ledger=ledger, go=house.directory / "go"))
    return ledger


def begun(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def parts(house: House) -> list[tuple[str, str]]:
    shown = json.loads(house.mqi("case", "show", "case", "--json"))
    return [(step["part"], step["state"]) for step in shown["steps"] if step["part"]]


def states(house: House) -> dict[str, str]:
    return {each["name"]: each["state"] for each in house.cases()}


def add(house: House, name: str = "case") -> None:
    case = house.directory / "incoming" / name
    case.mkdir(parents=True)
    (case / "a.ptn").write_text("x")
    house.mqi("case", "add", str(case))


def test_the_runs_of_all_parts_are_ended_and_the_case_is_held(house: House, ledger: Path) -> None:
    with house.daemon():
        add(house)
        wait_for(lambda: begun(ledger) == ["a"], "the first part to begin")

        said = house.mqi("exec", "kill", "case", "simulate", "--yes")
        assert "ended: nothing of attempt 1 of part 1 runs on here" in said
        assert "the case is held" in said
        assert house.wait_state("held", limit=15)["reason"] == "0 of 3 parts done, part 1 and 2 more cancelled"
        assert begun(ledger) == ["a"]
        assert "held: simulate: 0 of 3 parts done" in house.mqi("case", "log", "case")

        (house.directory / "go").touch()
        add(house, "later")  # one part at a time: what is left of the first case would go before it
        wait_for(lambda: states(house)["later"] == "done", "the later case to be done")
        assert begun(ledger) == ["a", "a", "b", "c"], "a part began in the place of what was ended"
        house.mqi("case", "retry", "case")
        wait_for(lambda: states(house)["case"] == "done", "the case to be done")
    assert begun(ledger) == ["a", *"abcabc"]


def test_without_a_daemon_the_case_is_held_at_once(house: House, ledger: Path) -> None:
    with house.daemon():
        add(house)
        wait_for(lambda: begun(ledger) == ["a"], "the first part to begin")
        house.mqi("daemon", "stop")
        house.mqi("exec", "kill", "case", "simulate", "--yes")

    assert parts(house) == [("1", "cancelled"), ("2", "cancelled"), ("3", "cancelled")]
    assert states(house) == {"case": "held"}
    (house.directory / "go").touch()
    with house.daemon():
        add(house, "later")  # one part at a time: what is left of the first case would go before it
        wait_for(lambda: states(house)["later"] == "done", "the later case to be done")
    assert begun(ledger) == ["a", "a", "b", "c"]
    assert states(house) == {"case": "held", "later": "done"}


def test_without_a_daemon_a_case_that_is_being_cancelled_is_cancelled_once_its_runs_are_ended(
    house: House, ledger: Path
) -> None:
    with house.daemon():
        add(house)
        wait_for(lambda: begun(ledger) == ["a"], "the first part to begin")
        house.mqi("daemon", "stop")
        assert "is ended first" in house.mqi("case", "cancel", "case", "--yes")

        said = house.mqi("exec", "kill", "case", "simulate", "--yes")

    assert "ended: nothing of attempt 1 of part 1 runs on here" in said
    assert "the case is cancelled" in said
    assert [each["state"] for each in house.cases()] == ["cancelled"]
