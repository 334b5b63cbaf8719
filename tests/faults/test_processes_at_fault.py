"""Processes that freeze, die, are stopped in the middle or started twice."""

from __future__ import annotations

import json
import os
import signal
import time

from faults.checker import check
from faults.plant import CREW, Plant, crew
from mqi_cli.errors import EXIT_ALREADY_RUNNING
from servers.house import wait_for


def test_a_worker_that_freezes_is_overtaken_and_its_late_report_changes_nothing(
    plant: Plant, rabbitmq_first: str
) -> None:
    lane = "ssh-exec" if rabbitmq_first else "sftp"
    plant.configure(broker=rabbitmq_first, seconds=2)
    plant.drop(1, size=200_000 if lane == "sftp" else 2000)
    with crew(plant, *CREW) as processes:
        if lane == "sftp":
            wait_for(lambda: list(plant.far.glob("*/*")), "the upload to begin", pause=0.01, stand=plant.stand)
        else:
            plant.wait_starts(1)
        processes.freeze(lane)
        frozen = processes.running.pop(lane)
        processes.start(lane)  # a new one in its place, as on another machine
        processes.running["frozen"] = frozen
        plant.wait_done()
        processes.kill("frozen", signal.SIGCONT)
        done = plant.starts()
        time.sleep(2)  # for what it still has to say
        assert plant.starts() == done
        assert plant.all_in("done")
    check(plant)


def test_a_second_conductor_and_a_second_daemon_are_refused(plant: Plant) -> None:
    plant.configure()
    with plant.daemon():
        wait_for(lambda: "conductor" in plant.children(), "the conductor", stand=plant.stand)
        assert "conductor is running already" in plant.mqi("conductor", "run", code=EXIT_ALREADY_RUNNING)
        plant.mqi("daemon", "start", code=EXIT_ALREADY_RUNNING)
    check(plant)


def test_a_stop_in_the_middle_drains_in_time_and_the_work_goes_on_at_the_next_start(
    plant: Plant, either_broker: str
) -> None:
    plant.configure(broker=either_broker, seconds=4, more="workers: {sftp: {threads: 1}, ssh-exec: {threads: 2}}")
    plant.drop(4, size=300_000)
    with plant.daemon():
        plant.wait_starts(1)
        began = time.monotonic()
        plant.mqi("daemon", "stop")
        assert time.monotonic() - began < 30, "stop_within is 8 s, on a machine with other things to do"
    assert not plant.all_in("done")
    with plant.daemon():
        plant.wait_done()
    check(plant)


def test_a_daemon_that_is_killed_takes_its_processes_along_and_its_runs_are_adopted(
    plant: Plant, either_broker: str
) -> None:
    plant.configure(broker=either_broker, seconds=5)
    plant.drop(2)
    with plant.daemon():
        plant.wait_starts(1)
        pid = int(json.loads(plant.mqi("daemon", "status", "--json"))["pid"])
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not ours(plant), "all of the daemon's processes to be gone", limit=20)
        plant.mqi("daemon", "start")
        plant.wait_done()
    check(plant)


def ours(plant: Plant) -> list[str]:
    """Return the command lines of mqi's own processes; a run on the host is none."""
    return [line for line in plant.processes().values() if "mqi_cli" in line]


def test_a_worker_that_cannot_live_is_told_while_the_others_go_on(plant: Plant) -> None:
    plant.configure(more="workers: {archiver: {memory: 1MB}}")  # which no process gets by with
    plant.drop(1)
    with plant.daemon():
        plant.wait_starts(1)
        wait_for(lambda: "it grew to" in plant.mqi("daemon", "logs", "daemon", code=None), "the reason", limit=40)
        plant.configure()
        plant.mqi("daemon", "reload")
        plant.wait_done()
    check(plant)
