"""Full disks, a locked or vanished database file, a backup put back: the work stops, says why, and goes on by itself."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.checker import check
from faults.plant import Plant, crew
from servers.house import wait_for


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of so many megabytes."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "mqi-test", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a disk of a few megabytes can't be mounted here (that takes root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def tear(file: Path) -> None:
    """Damage each page of a database but the first, as a disk does that dies."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with file.open("r+b") as pages:
        for page in range(1, file.stat().st_size // 4096):
            pages.seek(4096 * page)
            pages.write(b"\xff" * 64)


def fill(place: Path) -> Path:
    """Write a file until the disk is full."""
    ballast = place / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return ballast


@pytest.mark.parametrize("what", ["results", "archive"])
def test_a_full_disk_for_results_or_archives_is_waited_for_and_leaves_no_part_of_a_file(
    plant: Plant, what: str
) -> None:
    with small_disk(plant.directory / "disk", 3):
        place = plant.directory / "disk" / what
        place.mkdir()
        plant.configure(**{what: f"disk/{what}"})  # type: ignore[arg-type]
        plant.drop(2, size=100_000)
        ballast = fill(plant.directory / "disk")
        with crew(plant):
            step = {"results": "download", "archive": "archive"}[what]
            wait_for(lambda: reasons(plant, step), f"{step} to say why it waits", limit=60, stand=plant.stand)
            assert not [each for each in place.rglob("*") if each.is_file() and each.stat().st_size]
            ballast.unlink()
            plant.mqi("case", "list", "--all")
            for name in plant.dropped:  # or wait: it looks again by itself, less and less often
                plant.mqi("case", "retry", name, code=None)
            plant.wait_done()
        check(plant)


def reasons(plant: Plant, step: str) -> list[str]:
    """Return why cases wait at a step, if for want of room."""
    with plant.store() as store:
        rows = [row for row in store.cases.listing(limit=10) if row.step == step]
    assert not [row for row in rows if str(row.state) == "held"], [row.reason for row in rows]
    return [row.reason for row in rows if "space" in row.reason or "room" in row.reason or "full" in row.reason]


def test_a_full_disk_under_the_state_stops_the_work_and_loses_nothing(plant: Plant) -> None:
    with small_disk(plant.state, 8):
        plant.configure(seconds=1)
        plant.drop(3)
        with crew(plant):
            plant.wait_starts(1)
            ballast = fill(plant.state)
            logs = plant.directory / "conductor.log"
            wait_for(lambda: "full" in logs.read_text(), "the conductor to say so", limit=40, stand=logs.read_text)
            plant.drop(1)
            ballast.unlink()
            plant.wait_done()
        check(plant)
        lines = sum(file.read_text().count("WARNING") for file in plant.directory.glob("*.log"))
        assert lines < 40, "the logs do not fill the disk"


def test_a_state_database_that_another_program_keeps_locked_for_longer_than_is_waited_loses_nothing(
    plant: Plant,
) -> None:
    plant.configure(seconds=1)
    plant.drop(3)
    with crew(plant, before="from mqi_cli.store import database\ndatabase.BUSY_SECONDS = 1"):  # 30 else
        plant.wait_starts(1)
        other = sqlite3.connect(plant.state / "state.db", timeout=20, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(4)  # the lock itself is what is tried out
        other.execute("ROLLBACK")
        other.close()
        assert "database is locked" in (plant.directory / "conductor.log").read_text()
        plant.wait_done()
    check(plant)


def test_a_queue_file_that_is_removed_in_the_middle_loses_nothing(plant: Plant) -> None:
    plant.configure(seconds=1)
    plant.drop(4)
    with crew(plant):
        plant.wait_starts(1)
        for file in plant.state.glob("queue.db*"):
            if file.is_file():
                file.unlink()
        plant.wait_done()
    check(plant)


def test_a_backup_taken_under_load_and_put_back_after_a_crash_repeats_nothing(plant: Plant, either_broker: str) -> None:
    plant.configure(broker=either_broker, seconds=4)
    plant.drop(3)
    with crew(plant) as processes:
        plant.wait_starts(3)
        plant.mqi("db", "backup", str(plant.state / "backups"))
        (copy,) = (plant.state / "backups").glob("*.db")
        for name in list(processes.running):
            processes.kill(name)
            processes.running.pop(name).wait(20)
    tear(plant.state / "state.db")
    plant.mqi("db", "check", code=6)
    plant.mqi("db", "restore", str(copy), "--yes")
    with crew(plant):
        plant.wait_done()
    check(plant)
