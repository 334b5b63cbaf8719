"""Workers on other machines take their share with nothing but a config and the broker."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_cli.store import open_store
from scaleout.machines import FILES, Machines, namespaces_work
from servers.house import wait_for
from servers.rabbitmq import RabbitNode

CASES = 30


@pytest.fixture
def machines(sshd: OpenSSHServer, rabbitmq: RabbitNode) -> Iterator[Machines]:
    """Machines that are not set up yet."""
    directory = Path(tempfile.mkdtemp(prefix="mqi-machines-"))
    found = Machines(directory, sshd, rabbitmq)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(directory, ignore_errors=True)


def test_two_other_machines_share_the_work_and_one_that_dies_in_the_middle_loses_nothing(machines: Machines) -> None:
    machines.add("main", seconds=1, processes=1)
    for name in ("box2", "box3"):
        machines.add(name, seconds=1)
        for lane in ("sftp", "ssh-exec"):
            machines.start_worker(name, lane)
    with machines.daemon():
        wait_for(lambda: len(machines.status()["further_workers"]) == 4, "the workers", stand=machines.stand)
        machines.drop_cases(CASES)
        wait_for(lambda: len(machines.starts()) >= CASES // 3, "a third to run", limit=90, stand=machines.stand)
        assert machines.states()["done"] < CASES, "all was over before one died"
        machines.kill("box2")
        wait_for(lambda: machines.states()["done"] == CASES, "the rest", limit=90, pause=0.5, stand=machines.stand)
        machines.stop("box3")
        wait_for(
            lambda: not any("box3" in each["name"] for each in machines.status()["further_workers"]), "box3 to leave"
        )

    assert set(machines.starts().values()) == {1}, "a program was started twice"
    assert len(machines.starts()) == CASES
    for number in range(CASES):
        data = b"".join(f"{number}:{file}".encode() * 500 for file in range(FILES))
        result = machines.directory / "main" / "results" / f"case-{number:02}" / "sum"
        assert result.read_text().split()[0] == hashlib.sha256(data).hexdigest()
    assert not (machines.directory / "box3" / "state" / "state.db").exists(), "it needs no state of its own"
    if namespaces_work():
        assert set(shares(machines)) >= {("sftp", "box2"), ("ssh-exec", "box2"), ("sftp", "box3"), ("ssh-exec", "box3")}


def shares(machines: Machines) -> Counter[tuple[str, str]]:
    """Count the parts that each lane finished on each machine."""
    store = open_store(machines.directory / "main" / "state" / "state.db", read_only=True)
    try:
        actors = [each.actor for each in store.events.latest(limit=10_000) if each.kind == "done"]
    finally:
        store.close()
    return Counter((actor.partition("@")[0], actor.partition("@")[2].rpartition("-")[0]) for actor in actors)


def test_a_machine_with_another_config_does_nothing_wrong_and_says_so_until_one_with_the_same_takes_over(
    machines: Machines,
) -> None:
    machines.add("main")
    machines.add("box2", seconds=0.5)  # its command differs
    machines.add("box3", salt="another-salt")  # cases have other keys there
    machines.start_worker("box2", "ssh-exec")
    machines.start_worker("box3", "sftp")
    with machines.daemon():
        machines.drop_cases(1)
        alert = wait_for(lambda: [each["text"] for each in machines.status()["troubles"] if "says otherwise" in each["text"]],
                         "box3 to be told", stand=machines.stand)  # fmt: skip
        assert "step upload in workflow sums" in alert[0]
        machines.stop("box3")
        machines.configure("box3")
        machines.start_worker("box3", "sftp")
        reason = wait_for(lambda: [each["reason"] for each in machines.cases() if "step run" in each["reason"]
                                   and "says otherwise" in each["reason"]],
                          "box2 to be told", limit=60, stand=machines.stand)  # fmt: skip
        assert "ssh-exec@" in reason[0]
        assert not machines.starts()

        machines.stop("box2")
        machines.configure("box2")
        machines.start_worker("box2", "ssh-exec")
        wait_for(lambda: machines.states()["done"] == 1, "the case", limit=60, pause=0.5, stand=machines.stand)
        assert not [each for each in machines.status()["troubles"] if "says otherwise" in each["text"]]
    assert set(machines.starts().values()) == {1}
