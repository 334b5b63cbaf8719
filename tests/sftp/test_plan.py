"""What has to be moved, decided without a host."""

from __future__ import annotations

import pytest

from mqi_cli import Entry, Manifest, ManifestFile
from mqi_sftp.plan import (
    BATCH_BYTES,
    BATCH_FILES,
    FILE_MODE,
    OPEN_MODE,
    RESUME_FROM,
    Fence,
    Mark,
    batches,
    compare,
    directories_of,
    has_room,
    newest,
    plan_upload,
    whole_mtime,
)

BIG = 3 * RESUME_FROM
MANIFEST = Manifest((ManifestFile("a/b/one", 5, "1" * 64), ManifestFile("big", BIG, "2" * 64)), ("empty",))
MARKS = {"a/b/one": Mark(100, FILE_MODE), "big": Mark(200, FILE_MODE)}


def there(path: str, size: int, *, mode: int = FILE_MODE, mtime: int | None = None) -> Entry:
    return Entry(path, size, (MARKS.get(path, Mark(0, 0)).mtime if mtime is None else mtime) * 10**9, 0, mode)


def folder(path: str) -> Entry:
    return Entry(path, 4096, 0, 0, 0o750, is_dir=True)


def test_all_is_sent_into_an_empty_directory_and_parents_are_made_before_what_lies_in_them() -> None:
    plan = plan_upload(MANIFEST, [], MARKS)

    assert [each.path for each in plan.send] == ["a/b/one", "big"]
    assert plan.make == ("a", "a/b", "empty")
    assert not (plan.keep or plan.resume or plan.drop_files or plan.drop_trees)


def test_a_file_is_kept_only_with_the_mark_of_a_closed_file_and_the_right_size() -> None:
    assert plan_upload(MANIFEST, [there("a/b/one", 5)], MARKS).keep == (MANIFEST.files[0],)

    for unsure in (
        there("a/b/one", 5, mode=OPEN_MODE),
        there("a/b/one", 5, mtime=101),
        there("a/b/one", 4),
    ):
        plan = plan_upload(MANIFEST, [unsure], MARKS)
        assert not plan.keep
        assert plan.drop_files == ("a/b/one",), "it is not written into: a stale worker may hold it open"


def test_a_file_whose_content_was_disproved_is_removed_and_sent_again() -> None:
    plan = plan_upload(MANIFEST, [there("a/b/one", 5), there("big", BIG)], MARKS, wrong=frozenset({"a/b/one"}))

    assert [each.path for each in plan.send] == ["a/b/one"]
    assert plan.drop_files == ("a/b/one",)
    assert [each.path for each in plan.keep] == ["big"]


@pytest.mark.parametrize(("size", "begins_at"), [(RESUME_FROM, 1), (RESUME_FROM * 2 + 7, 2), (BIG + 9, 3)])
def test_a_large_beginning_is_continued_from_a_whole_mebibyte(size: int, begins_at: int) -> None:
    plan = plan_upload(MANIFEST, [there("big", size, mode=OPEN_MODE)], MARKS)

    assert plan.resume == ((MANIFEST.files[1], begins_at * RESUME_FROM),)
    assert not plan.drop_files


def test_what_does_not_belong_is_dropped_each_thing_once() -> None:
    found = [folder("a"), folder("a/b"), folder("odd"), folder("odd/deep"), there("odd/deep/x", 1), there("stray", 1)]

    plan = plan_upload(MANIFEST, found, MARKS)

    assert plan.drop_trees == ("odd",)
    assert plan.drop_files == ("stray",)


def test_a_file_where_a_directory_belongs_and_the_other_way_round_make_room() -> None:
    plan = plan_upload(MANIFEST, [there("a", 1), folder("big"), there("big/x", 1)], MARKS)

    assert plan.drop_files == ("a",)
    assert plan.drop_trees == ("big",)
    assert "a" in plan.make
    assert [each.path for each in plan.send] == ["a/b/one", "big"]


def test_a_name_that_begins_like_a_dropped_directory_is_not_dropped_with_it() -> None:
    manifest = Manifest((ManifestFile("odd.txt", 1, "1" * 64),))

    plan = plan_upload(manifest, [folder("odd"), there("odd.txt", 1)], {"odd.txt": Mark(0, FILE_MODE)})

    assert plan.keep == manifest.files
    assert plan.drop_trees == ("odd",)


def test_two_manifests_are_compared_both_ways() -> None:
    found = Manifest((ManifestFile("big", BIG, "3" * 64), ManifestFile("more", 1, "4" * 64)), ("hollow",))

    difference = compare(MANIFEST, found)

    assert difference.changed == ("big",)
    assert difference.missing == ("a/b/one", "empty/")
    assert difference.extra == ("more", "hollow/")
    assert str(difference) == "1 differ, 2 are missing, 2 are there that should not be"
    assert not compare(MANIFEST, MANIFEST)


def test_a_file_that_could_not_be_hashed_equals_nothing() -> None:
    unread = Manifest((ManifestFile("a", 1, ""),))

    assert unread.fingerprint != Manifest((ManifestFile("a", 1, "1" * 64),)).fingerprint


def test_batches_are_bounded_by_bytes_and_by_files_and_lose_none() -> None:
    entries = [there(f"f{number}", 1) for number in range(BATCH_FILES + 1)]
    entries += [there("huge", BATCH_BYTES * 3), there("last", 1)]

    found = list(batches(entries))

    assert [each for batch in found for each in batch] == entries
    assert all(len(batch) <= BATCH_FILES for batch in found)
    assert all(len(batch) == 1 or sum(each.size for each in batch) <= BATCH_BYTES for batch in found)
    assert list(batches([])) == []


def test_directories_come_from_files_and_from_empty_directories() -> None:
    assert directories_of(Manifest((), ("x/y",))) == ("x", "x/y")


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "fits"),
    [(105, None, True), (104, None, False), (10**9, 10, False), (10**9, 11, True)],
)
def test_room_is_asked_for_with_something_to_spare(free_bytes: int, free_inodes: int | None, fits: bool) -> None:
    assert has_room(free_bytes=free_bytes, free_inodes=free_inodes, size=100, count=10) is fits


def test_times_outside_what_sftp_can_carry_are_brought_inside() -> None:
    assert whole_mtime(-5 * 10**9) == 0
    assert whole_mtime(2**40 * 10**9) == 2**32 - 1
    assert whole_mtime(1_999_999_999) == 1


def test_fences_are_ordered_by_attempt_then_turn_as_numbers() -> None:
    assert Fence.parse("2-10") == Fence(2, 10)
    assert Fence(2, 10) > Fence(2, 9) < Fence(10, 1)
    assert str(Fence(3, 4)) == "3-4"
    assert [Fence.parse(text) for text in ("", "2", "2-", "a-1", "1-2-3", "-1-2")] == [None] * 6


def test_the_newest_earlier_fence_is_taken_over_and_a_later_one_is_noticed() -> None:
    assert newest({Fence(1, 9): "a", Fence(1, 10): "b"}, Fence(2, 1)) == ("b", False)
    assert newest({Fence(2, 2): "later"}, Fence(2, 1)) == (None, True)
    assert newest({Fence(2, 1): "mine"}, Fence(2, 1)) == (None, False)
