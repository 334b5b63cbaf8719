"""A daemon that is away while its runs end: all of them are taken up, none is run again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer
from servers.house import House, wait_for

RUNS = 20
_CONFIG = """\
state: {{path: state/state.db}}
hosts:
  far:
    type: ssh
    hostname: 127.0.0.1
    port: {port}
    user: {user}
    key_file: {key_file}
    known_hosts: {known_hosts}
    base_dir: {far}
    scheduler: {scheduler}
    limits: {{jobs: 50}}
sources:
  - {{path: incoming, complete_when: {{marker: READY}}, workflow: only_runs}}
workflows:
  only_runs:
    - run:
        host: far
        command: "echo {{case_key}} >>{ledger}; until [ -e {go} ]; do sleep 0.5; done; echo done >result"
        outputs: [result]
        poll: 1s
scanner: {{interval: 1s}}
daemon: {{lease: 3s, retry_first: 1s, stop_within: 10s}}
workers: {{ssh-exec: {{threads: 4}}}}
"""


def away_while_they_end(house: House, server: OpenSSHServer, scheduler: str) -> None:
    """Kill the daemon while runs are on, let them end, start it again, and look at what became of them."""
    section, go = server.host_section(), house.directory / "go"
    fields = {name: getattr(section, name) for name in ("port", "user", "key_file", "known_hosts")}
    house.config.write_text(
        _CONFIG.format(**fields, far=house.far, scheduler=scheduler, ledger=house.ledger_file, go=go)
    )
    house.config.chmod(0o600)
    for number in range(RUNS):
        case = house.directory / "incoming" / f"case-{number}"
        case.mkdir()
        (case / "data").write_text("x")
        (case / "READY").touch()
    with house.daemon():
        wait_for(lambda: len(ledger(house)) == RUNS, "all runs to begin", limit=120)
        pid = int(json.loads(house.mqi("daemon", "status", "--json"))["pid"])
        os.kill(pid, signal.SIGKILL)
        go.touch()
        exits = "c*/work/run/_/.1.job/exit"
        wait_for(lambda: len(list(house.far.glob(exits))) == RUNS, "all runs to end without the daemon", limit=60)
        house.mqi("daemon", "start")
        wait_for(lambda: states(house) == ["done"] * RUNS, "all cases to be done", limit=90, pause=0.5)
    assert sorted(set(ledger(house))) == sorted(ledger(house)), "a run was started again"
    assert not list(house.far.glob("c*/work/run/_/.2.job")), "a second attempt was made"


def ledger(house: House) -> list[str]:
    """Return the key of each start."""
    return house.ledger_file.read_text().split() if house.ledger_file.exists() else []


def states(house: House) -> list[str]:
    """Return the cases' states."""
    return [case["state"] for case in house.cases()]


@pytest.mark.timeout(300)
def test_20_runs_that_end_while_the_daemon_is_dead_are_adopted(house: House, sshd: OpenSSHServer) -> None:
    away_while_they_end(house, sshd, "direct")


@pytest.mark.timeout(300)
def test_20_jobs_of_slurm_that_end_while_the_daemon_is_dead_are_adopted(
    house: House, login_node: OpenSSHServer, slurm: object
) -> None:
    del slurm
    away_while_they_end(house, login_node, "slurm")
    assert Path(house.far).is_dir()
