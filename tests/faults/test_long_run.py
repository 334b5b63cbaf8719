"""The daemon under kills and load for long: it comes back each time, and neither memory nor descriptors nor files grow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.checker import Allowed, check
from faults.plant import Plant, crew
from faults.test_random_kills import go_on_to_the_end
from servers.house import wait_for
from servers.rabbitmq import RabbitNode

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_the_daemon_and_its_processes_killed_at_random_moments(plant: Plant, broker: str) -> None:
    plant.configure(broker=broker, seconds=0.5)
    random = plant.random
    with plant.daemon():
        for number in range(40):
            if number % 3 == 0:
                plant.drop(1)
            time.sleep(random.uniform(0.0, 1.5))
            status = json.loads(plant.mqi("daemon", "status", "--json", code=None))
            running = [child["pid"] for child in status["children"] if child["pid"]]
            victim = random.choice([*running, status["pid"]])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            if victim == status["pid"]:
                wait_for(lambda: not plant.processes() or not ours(plant), "its processes to end", limit=20)
                plant.mqi("daemon", "start", code=None)
            elif number % 5 == 4:
                plant.mqi("daemon", "reload")  # forgives those that back off
        plant.mqi("daemon", "reload")
        retried = go_on_to_the_end(plant, lambda: None)
    check(plant, Allowed(restarts=frozenset(retried)))


def ours(plant: Plant) -> list[str]:
    return [line for line in plant.processes().values() if "mqi_cli" in line]


@dataclass(frozen=True)
class Size:
    """What one process takes."""

    memory: int  # bytes, resident
    descriptors: int
    threads: int


def sizes(plant: Plant) -> dict[str, Size]:
    """Measure each of the daemon's processes."""
    found = {}
    for name, pid in plant.children().items():
        place = Path(f"/proc/{pid}")
        pages = int((place / "statm").read_text().split()[1])
        found[name] = Size(pages * 4096, len(list((place / "fd").iterdir())), len(list((place / "task").iterdir())))
    return found


def test_nothing_grows_with_the_number_of_cases(plant: Plant, broker: str) -> None:
    plant.configure(broker=broker, more="workers: {sftp: {threads: 4}, ssh-exec: {threads: 4}}")
    with plant.daemon():
        for _ in range(4):
            plant.drop(10)
            plant.wait_done(limit=200)
        before, children = sizes(plant), plant.children()
        for _ in range(16):
            plant.drop(10)
            plant.wait_done(limit=200)
        after = sizes(plant)
        assert plant.children() == children, "no process was replaced"
        for name, size in after.items():
            assert size.memory < before[name].memory * 1.2 + 4_000_000, (name, before[name], size)
            assert size.descriptors <= before[name].descriptors + 3, (name, before[name], size)
            assert size.threads <= before[name].threads + 3, (name, before[name], size)
        for log_of_changes in plant.state.glob("*.db-wal"):
            assert log_of_changes.stat().st_size < 70_000_000
    check(plant)


@pytest.mark.rabbitmq
def test_a_broker_that_is_away_for_minutes_is_caught_up_with_and_does_not_fill_the_logs(
    plant: Plant, rabbitmq: RabbitNode
) -> None:
    plant.configure(broker=plant.broker(rabbitmq), seconds=1)
    with plant.daemon():
        plant.drop(2)
        plant.wait_starts(1)
        rabbitmq.stop()
        plant.drop(2)
        before = log_size(plant)
        time.sleep(200)  # longer than any pause between two tries
        assert log_size(plant) - before < 20_000
        assert "cannot be reached" in plant.mqi("status", code=1)
        rabbitmq.start()
        plant.wait_done(limit=60)
    check(plant)


def log_size(plant: Plant) -> int:
    """Return how many bytes the daemon's logs have."""
    return sum(each.stat().st_size for each in (plant.state / "logs").iterdir())


@pytest.mark.rabbitmq
def test_the_only_worker_of_a_lane_is_frozen_beyond_the_heartbeats_and_goes_on(
    plant: Plant, rabbitmq: RabbitNode
) -> None:
    plant.configure(broker=plant.broker(rabbitmq), seconds=2)
    with crew(plant) as processes:
        plant.drop(2)
        plant.wait_starts(1)
        processes.freeze("ssh-exec")
        time.sleep(75)  # the broker gives a connection up after two heartbeats of 25 s
        processes.kill("ssh-exec", signal.SIGCONT)
        plant.drop(1)
        plant.wait_done()
    check(plant)
