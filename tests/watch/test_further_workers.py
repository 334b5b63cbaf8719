"""Which workers `mqi status` and `mqi watch` show besides the daemon's own."""

from __future__ import annotations

from mqi_cli.further_workers import SILENT_AFTER, further_workers
from mqi_cli.store.records import WorkerRow

NOW = 1_000_000.0


def worker(lane: str, machine: str, pid: int, *, silent: float = 1.0) -> WorkerRow:
    return WorkerRow(f"{lane}@{machine}-{pid}", lane, machine, pid, 0, NOW - 5000, NOW - silent)


def shown(*workers: WorkerRow) -> list[str]:
    """Return who is shown on machine `qa1`, where 7 is the daemon's own worker and 8 runs as well."""
    found = further_workers(workers, {7}, machine="qa1", now=NOW, alive={7, 8}.__contains__)
    return [each.name for each in found]


def test_those_of_other_machines_and_those_begun_by_hand_are_shown() -> None:
    assert shown(worker("sftp", "qa1", 7), worker("sftp", "qa1", 8), worker("sftp", "qa2", 7)) == [
        "sftp@qa1-8",
        "sftp@qa2-7",
    ]


def test_one_of_this_machine_that_was_killed_is_not_shown() -> None:
    assert shown(worker("sftp", "qa1", 9)) == []


def test_a_silent_one_elsewhere_is_shown_unless_another_works_in_its_place() -> None:
    silent = worker("sftp", "qa2", 5, silent=SILENT_AFTER)
    assert shown(silent) == ["sftp@qa2-5"]
    assert shown(silent, worker("sftp", "qa2", 6)) == ["sftp@qa2-6"]
    assert shown(silent, worker("archiver", "qa2", 6)) == ["sftp@qa2-5", "archiver@qa2-6"]
