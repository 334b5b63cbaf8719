"""Rounds: cheap for cases at rest, fair among many, and every change found within a bounded time."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import CaseSeen, CaseState
from mqi_cli.config.model import CompleteWhen
from mqi_scanner.config import ScannerSection


def completes(findings: list[Any]) -> list[CaseSeen]:
    return [each for each in findings if isinstance(each, CaseSeen) and each.fingerprint]


class CountedCalls:
    """Counts the directory scans and the `stat` calls of the scanner."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scans = self.stats = self.opens = 0
        scandir, stat, open_file = os.scandir, Path.stat, os.open

        def counted_scandir(*args: Any) -> Any:
            self.scans += 1
            return scandir(*args)

        def counted_stat(*args: Any, **options: Any) -> Any:
            self.stats += 1
            return stat(*args, **options)

        def counted_open(*args: Any, **options: Any) -> Any:
            self.opens += 1
            return open_file(*args, **options)

        monkeypatch.setattr("os.scandir", counted_scandir)
        monkeypatch.setattr(Path, "stat", counted_stat)
        monkeypatch.setattr("mqi_scanner.proof.os.open", counted_open)


def test_two_thousand_cases_at_rest_cost_a_stat_each_and_no_scan_of_their_own(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2000):
        case = world.incoming / f"c{number}"
        case.mkdir()
        (case / "a").touch()
        (case / "b").touch()
    world.accept(after=30)
    assert len(world.ctx.rows) == 2000
    world.ctx.take()
    calls = CountedCalls(monkeypatch)
    assert world.look(after=10) == []
    assert calls.scans == 1  # of the source
    assert calls.stats <= 2000 + 10
    assert calls.opens == 0
    assert world.scan.round.unchanged == 2000


def test_after_a_restart_cases_at_rest_are_looked_at_but_not_read(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("c1/a")
    world.accept()
    world.ctx.take()
    world.restart()
    calls = CountedCalls(monkeypatch)
    assert world.look(after=10) == []
    assert calls.opens == 0
    assert world.scan.round.unchanged == 1


def test_a_late_file_is_found_at_once_and_taken_when_it_is_quiet(world: Any) -> None:
    world.write("c1/field/a")
    world.accept()
    first = world.ctx.rows["c1"].fingerprint
    world.write("c1/field/late")
    world.ctx.take()
    (seen,) = world.look(after=10)
    assert not seen.fingerprint
    assert not completes(world.look(after=29))
    (seen,) = completes(world.look(after=1))
    assert seen.fingerprint != first
    assert world.ctx.rows["c1"].revision == 2
    assert world.look(after=10) == []


def test_a_change_that_settles_is_not_forgotten_over_a_restart(world: Any) -> None:
    world.write("c1/a")
    world.accept()
    world.write("c1/late")
    world.look(after=10)
    world.restart()
    assert completes(world.look(after=30))
    assert world.ctx.rows["c1"].revision == 2


def test_the_same_content_again_is_reported_equal_and_read_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.write("c1/a")
    world.accept()
    first = world.ctx.rows["c1"].fingerprint
    file.unlink()
    world.write("c1/a")
    world.accept()
    assert (world.ctx.rows["c1"].fingerprint, world.ctx.rows["c1"].revision) == (first, 1)
    calls = CountedCalls(monkeypatch)
    world.ctx.take()
    for _ in range(5):
        assert world.look(after=3000) == []
    assert calls.opens == 0


def test_a_name_that_comes_again_with_other_content_is_reported_anew(world: Any) -> None:
    world.write("c1/a", "first")
    world.accept()
    (world.incoming / "c1/a").unlink()
    (world.incoming / "c1").rmdir()
    world.look(after=10)
    world.write("c1/a", "other")
    world.accept()
    assert world.ctx.rows["c1"].revision == 2


def test_a_file_rewritten_in_place_is_found_by_the_recheck(world: Any) -> None:
    file = world.write("c1/a", "first")
    world.accept()
    with file.open("r+") as stream:  # the directory's own time stays as it is
        stream.write("other")
    world.ctx.take()
    assert world.look(after=10) == []
    recheck = world.ctx.config.recheck
    assert world.look(after=recheck) != []
    assert completes(world.look(after=30))
    assert world.ctx.rows["c1"].revision == 2


def test_rechecks_of_cases_that_were_met_together_are_spread(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        world.write(f"c{number}/a")
    world.accept()
    calls = CountedCalls(monkeypatch)
    counts = []
    for _ in range(400):
        world.look(after=10)
        counts.append(calls.scans - 1)
        calls.scans = 0
    assert sum(counts) >= 100
    assert max(counts) <= 10


def test_one_huge_case_does_not_keep_the_others_waiting(world: Any) -> None:
    world.ctx.config = ScannerSection(interval=10.0, recheck=3600.0)
    world.write("a-huge/a", b"x" * (64 << 20))
    for number in range(5):
        world.write(f"small{number}/a")
    world.look()
    world.ctx.clock.tick = 0.5  # each chunk of 1 MiB takes half a second: the huge one lasts 30 s
    found = completes(world.look(after=30))
    assert sorted(each.name for each in found) == [f"small{number}" for number in range(5)]
    assert world.notes()["a-huge"].startswith("being read: 0 of 1 files")
    rounds = 0
    while not completes(world.look()):
        rounds += 1
        assert rounds < 20
    assert rounds >= 2  # it went on from where it was, over several rounds
    assert world.ctx.rows["a-huge"].fingerprint


def test_a_case_that_changes_between_two_slices_is_read_anew(world: Any) -> None:
    file = world.write("c1/a", b"x" * (32 << 20))
    world.look()
    world.ctx.clock.tick = 1.0
    world.look(after=30)
    with file.open("r+b") as stream:
        stream.write(b"y")
    world.ctx.clock.tick = 0.0
    assert not completes(world.look(after=10))
    (seen,) = completes(world.look(after=30))
    from mqi_cli import build_manifest

    assert seen.fingerprint == build_manifest(world.incoming / "c1").fingerprint


def test_when_time_runs_out_those_that_waited_longest_come_first(world: Any) -> None:
    world.ctx.config = ScannerSection(interval=1.0, recheck=3600.0)
    world.use(complete_when=CompleteWhen(marker="READY"))
    for number in range(20):
        world.write(f"c{number:02}/a")
        world.write(f"c{number:02}/READY")
    world.ctx.clock.tick = 0.1
    rounds = 0
    while len(world.ctx.rows) < 20:
        world.look()
        rounds += 1
        assert rounds < 60
    assert rounds > 1


def test_among_more_settling_cases_than_a_round_can_look_at_none_is_passed_over(world: Any) -> None:
    world.ctx.config = ScannerSection(interval=1.0, recheck=3600.0)
    for number in range(20):
        world.write(f"c{number:02}/a")
    world.ctx.clock.tick = 0.1
    for _ in range(8):  # each has time for four or five
        world.look()
    assert len(world.ctx.rows) == 20


def test_a_parent_directory_that_cannot_be_read_is_no_proof_that_its_cases_vanished(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.use(depth=2)
    world.write("patient/c1/a")
    world.look()
    real = os.scandir

    def locked_patient(path: Any) -> Any:
        if Path(path).name == "patient":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr("mqi_cli.sources.os.scandir", locked_patient)
    assert world.look(after=10) == []
    monkeypatch.undo()
    assert completes(world.look(after=20))


def test_a_stop_ends_the_round_soon_and_loses_nothing(world: Any) -> None:
    world.write("c1/a")
    world.write("c2/a")
    world.look()
    world.ctx.stop = True
    assert world.look(after=30) == []
    assert world.scan.round.left
    world.ctx.stop = False
    assert len(completes(world.look())) == 2


def test_when_the_state_database_starts_anew_every_case_is_reported_again(world: Any) -> None:
    world.write("c1/a")
    world.accept()
    world.ctx.rows.clear()
    world.look(after=10)
    assert completes(world.look(after=30))


def test_a_running_case_is_not_reported_while_it_stays_as_it_is(world: Any) -> None:
    world.write("c1/a")
    world.accept()
    world.ctx.rows["c1"].state = CaseState.RUNNING
    world.ctx.take()
    assert world.look(after=5000) == []


def test_several_sources_take_turns_and_one_that_fails_stops_no_other(world: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    (other / "x/a").write_text("content")
    world.ctx.sources.append(replace(world.ctx.sources[0], name="other", path=other))
    world.ctx.sources.insert(0, replace(world.ctx.sources[0], name="gone", path=tmp_path / "gone"))
    world.write("c1/a")
    for _ in range(3):
        world.look(after=30)
    assert world.ctx.rows["c1"].fingerprint
    assert world.ctx.rows["x"].fingerprint
