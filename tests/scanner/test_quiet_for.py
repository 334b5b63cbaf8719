"""`complete_when: {quiet_for: …}`: nothing is taken while anything about it still changes."""

from __future__ import annotations

import os
from typing import Any

from mqi_cli import CaseSeen, CaseVanished, build_manifest


def completes(findings: list[Any]) -> list[CaseSeen]:
    return [each for each in findings if isinstance(each, CaseSeen) and each.fingerprint]


def test_a_case_is_complete_once_it_was_quiet_for_the_time(world: Any) -> None:
    world.write("c1/a.ptn")
    assert not completes(world.look())
    assert not completes(world.look(after=29))
    assert world.notes() == {"c1": "quiet for 29 of 30 s"}
    (seen,) = completes(world.look(after=1))
    manifest = build_manifest(world.incoming / "c1")
    assert (seen.name, seen.fingerprint, seen.files, seen.size) == ("c1", manifest.fingerprint, 1, 7)
    assert world.look(after=100) == []


def test_a_slow_copy_over_many_rounds_is_never_taken_early(world: Any) -> None:
    for step in range(40):
        world.write(f"c1/field/{step // 4}.ptn", b"x" * (1 + step % 4))  # files grow, then the next one begins
        if step == 20:
            world.restart()
        assert not completes(world.look(after=25)), step
    assert not completes(world.look(after=25))
    (seen,) = completes(world.look(after=5))
    assert seen.files == 10


def test_one_look_is_never_enough_even_without_a_waiting_time(world: Any) -> None:
    world.use(complete_when=world.ctx.sources[0].complete_when.model_copy(update={"quiet_for": 0.0}))
    world.write("c1/a")
    assert not completes(world.look())
    assert completes(world.look())


def test_old_times_that_a_copier_preserves_do_not_count(world: Any) -> None:
    world.write("c1/a", mtime=1_000_000_000)
    assert not completes(world.look())
    world.write("c1/b", mtime=1_000_000_000)
    assert not completes(world.look(after=29))
    assert not completes(world.look(after=29))
    assert completes(world.look(after=1))


def test_a_file_that_is_replaced_by_one_of_equal_size_and_time_starts_the_wait_again(world: Any) -> None:
    file = world.write("c1/a", "first", mtime=1_000_000_000)
    world.look()
    other = world.write("c1/.b", "other", mtime=1_000_000_000)
    other.rename(file)
    assert not completes(world.look(after=30))
    assert completes(world.look(after=30))


def test_a_file_under_a_temporary_name_keeps_a_case_open_however_quiet_it_is(world: Any) -> None:
    world.write("c1/a.ptn")
    world.write("c1/field/b.ptn.part")
    for _ in range(3):
        assert not completes(world.look(after=100))
    assert world.notes() == {"c1": "1 file still under a temporary name"}
    (world.incoming / "c1/field/b.ptn.part").rename(world.incoming / "c1/field/b.ptn")
    assert not completes(world.look(after=100))
    assert completes(world.look(after=30))


def test_an_empty_directory_settles_and_is_never_complete(world: Any) -> None:
    (world.incoming / "c1/field").mkdir(parents=True)
    for _ in range(4):
        assert not completes(world.look(after=100))
    assert world.notes() == {"c1": "it holds no file yet"}
    world.write("c1/field/a")
    assert not completes(world.look(after=100))
    assert completes(world.look(after=30))


def test_cases_begin_at_the_configured_depth(world: Any) -> None:
    world.use(depth=2)
    world.write("patient/study1/a")
    world.write("patient/study2/b")
    world.write("patient/stray")
    world.look()
    assert [each.name for each in completes(world.look(after=30))] == ["patient/study1", "patient/study2"]


def test_a_case_that_vanishes_while_it_settles_is_reported_once(world: Any) -> None:
    world.write("c1/a")
    world.look()
    (world.incoming / "c1/a").unlink()
    (world.incoming / "c1").rmdir()
    assert world.look(after=10) == [CaseVanished("incoming", "c1")]
    assert world.look(after=10) == []


def test_a_finished_case_that_is_taken_away_is_no_news(world: Any) -> None:
    file = world.write("c1/a")
    world.accept()
    file.unlink()
    file.parent.rmdir()
    world.ctx.take()
    assert world.look() == []


def test_a_source_with_manual_is_not_looked_at(world: Any) -> None:
    world.use(complete_when=type(world.ctx.sources[0].complete_when).model_validate({"manual": True}))
    world.write("c1/a")
    assert world.look() == []
    assert world.scan.round.looked_at == 0


def test_what_changes_while_it_is_read_settles_again(world: Any, monkeypatch: Any) -> None:
    world.write("c1/a")
    world.write("c1/b")
    world.look()
    real = os.fdopen
    written: list[str] = []

    def late_writer(descriptor: int, *args: Any, **options: Any) -> Any:
        if not written:
            written.append("c1/c")
            world.write("c1/c")
        return real(descriptor, *args, **options)

    monkeypatch.setattr("mqi_scanner.proof.os.fdopen", late_writer)
    assert not completes(world.look(after=30))
    assert world.notes() == {"c1": "it changed while it was read"}
    assert not completes(world.look(after=10))
    (seen,) = completes(world.look(after=30))
    assert seen.files == 3


def test_a_file_that_grows_while_it_is_read_settles_again(world: Any, monkeypatch: Any) -> None:
    file = world.write("c1/a", b"x" * 100)
    world.look()
    real = os.fdopen

    def grow(descriptor: int, *args: Any, **options: Any) -> Any:
        stream = real(descriptor, *args, **options)
        with file.open("ab") as more:
            more.write(b"y")
        return stream

    monkeypatch.setattr("mqi_scanner.proof.os.fdopen", grow)
    assert not completes(world.look(after=30))
    monkeypatch.undo()
    assert not completes(world.look(after=29))
    assert completes(world.look(after=30))
