"""A download brings exactly the run's results to their place, and never touches what is not its own."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mqi_sftp.download
from mqi_cli import CaseRef, Done, GiveUp, HostError, HostFault, RetryLater, Wait, build_manifest, survey
from mqi_sftp.fetch import FetchPlan, plan_fetch
from mqi_sftp.in_place import Occupant
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Fence
from mqi_sftp.results import Placed
from mqi_sftp.tree import Tree
from sftp.bench import (
    DOWNLOAD,
    KEY,
    ODD_NAMES,
    Bench,
    DamagesWhatIsRead,
    FilesThrough,
    GrowsWhileRead,
    HostThrough,
    contents,
    damages_what_is_sent,
    fill,
    flip_a_byte,
    peak_of,
    remove,
)

RESULTS = {"dose_1.raw": b"\1" * 300_000, "dose_2.raw": b"\2" * 10, "log/run.txt": b"ok\n", "nothing": b""}


def the_run_is_made_anew(bench: Bench) -> None:
    """Let results be fetched, and then a further attempt of the run leave others."""
    fill(bench.outputs, {"a": b"old"})
    bench.download()
    bench.run_attempt = 2
    fill(bench.outputs, {"a": b"new"})


def test_results_arrive_whole_and_proven(bench: Bench) -> None:
    fill(bench.outputs, RESULTS | ODD_NAMES, empty=["hollow/er"])

    done = bench.download()

    assert contents(bench.destination) == contents(bench.outputs)
    assert isinstance(done, Done)
    manifest = build_manifest(bench.outputs)
    assert done.facts["fingerprint"] == manifest.fingerprint
    assert done.facts["files"] == len(RESULTS | ODD_NAMES)
    assert done.facts["bytes"] == done.facts["fetched_bytes"] == manifest.size
    assert bench.leftovers() == []


def test_results_keep_their_times_and_are_readable_by_the_group(bench: Bench) -> None:
    fill(bench.outputs, {"sub/a": b"1"})
    os.utime(bench.outputs / "sub/a", (1_600_000_000, 1_600_000_000))

    bench.download()

    assert (bench.destination / "sub/a").stat().st_mtime == 1_600_000_000
    assert (bench.destination / "sub/a").stat().st_mode & 0o7777 == 0o640
    assert (bench.destination / "sub").stat().st_mode & 0o7777 == 0o750
    assert bench.destination.stat().st_mode & 0o7777 == 0o750


def test_the_whole_work_directory_comes_when_nothing_narrower_is_named(bench: Bench) -> None:
    bench.origin = ""
    fill(bench.outputs, {"csv/a": b"1", "dose/b": b"2"})

    bench.download()

    assert contents(bench.destination) == contents(bench.outputs)


def test_the_finished_attempt_is_fetched_not_another(bench: Bench) -> None:
    fill(bench.outputs, {"dose": b"of attempt 1, half written"})
    bench.run_attempt = 2
    fill(bench.outputs, {"dose": b"of attempt 2"})

    bench.download()

    assert (bench.destination / "dose").read_bytes() == b"of attempt 2"


def test_a_download_that_is_done_finds_its_results_in_place(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    bench.download()

    done = bench.download()

    assert isinstance(done, Done)
    assert done.facts["fetched_bytes"] == 0
    assert bench.leftovers() == []


def test_an_empty_directory_in_the_way_is_no_obstacle(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    bench.destination.mkdir(parents=True)

    bench.download()

    assert contents(bench.destination) == contents(bench.outputs)


def test_other_content_in_the_way_is_left_as_it_is(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    fill(bench.destination, {"thesis.txt": b"precious"})

    with pytest.raises(GiveUp, match="holds something else"):
        bench.download()

    assert contents(bench.destination) == {"thesis.txt": b"precious"}
    assert bench.leftovers() == []


@pytest.mark.parametrize("function", ["prove_here", "check_replaceable"])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_came_into_the_place_meanwhile_is_left_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, function: str
) -> None:
    fill(bench.outputs, RESULTS)
    place = bench.destination
    if function == "check_replaceable":  # with nothing in the way it is not asked
        place.mkdir(parents=True)

    def take_place() -> None:
        if place.exists():
            place.rmdir()
        if kind == "directory":
            fill(place, {"thesis.txt": b"precious"})
        elif kind == "file":
            place.write_bytes(b"precious")
        else:
            place.symlink_to("/etc")

    real = getattr(mqi_sftp.download, function)

    def then_take_place(*given: Any) -> None:
        real(*given)
        take_place()

    with monkeypatch.context() as patch, pytest.raises(GiveUp, match="holds something else"):
        patch.setattr(mqi_sftp.download, function, then_take_place)
        bench.download()
    if kind == "directory":
        assert contents(place) == {"thesis.txt": b"precious"}
    else:
        assert place.is_symlink() or place.read_bytes() == b"precious"
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()

    done = bench.download()

    assert isinstance(done, Done)
    assert contents(place) == contents(bench.outputs) and bench.leftovers() == []


class WritesHere(FilesThrough):
    """A host whose listing takes long: somebody writes to the place for results meanwhile."""

    place: Path

    def list_many(self, *given: Any, **more: Any) -> Any:
        fill(self.place, {"dose_1.raw": b"mine now"})
        return super().list_many(*given, **more)


def test_what_is_written_there_while_the_host_lists_is_not_taken_for_the_results(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.outputs, RESULTS)
    local_bench.download()
    monkeypatch.setattr(WritesHere, "place", local_bench.destination, raising=False)

    with pytest.raises(GiveUp, match="holds something else"):
        local_bench.download(host=HostThrough(local_bench.host, WritesHere))

    assert (local_bench.destination / "dose_1.raw").read_bytes() == b"mine now"


@pytest.mark.parametrize("look", ["in place", "left by a turn"])
def test_of_many_files_that_are_here_no_second_list_is_kept(local_bench: Bench, look: str) -> None:
    count = 3000
    fill(local_bench.outputs, {f"{number % 30}/{number:0150d}": b"" for number in range(count)})
    manifest = build_manifest(local_bench.outputs)
    landing = Landing(local_bench.destination, KEY, "download", "", Fence(1, 1))
    landing.path.mkdir(parents=True)
    local_bench.outputs.rename(landing.results)
    tree = Tree(tuple(survey(landing.results)))
    occupant = Occupant.look(landing.results, Meter(None))
    plans: list[FetchPlan] = []

    if look == "in place":
        placed = Placed(local_bench.context("download"), local_bench.case())
        peak = peak_of(
            lambda: occupant.resembles(tree) and occupant.is_results(manifest.fingerprint, placed, Meter(None))
        )
    else:
        peak = peak_of(lambda: plans.append(plan_fetch(landing, manifest, Meter(None))))

    assert peak < 80 * count + (1 << 20)  # what a file is read in
    assert occupant.resembles(tree) and occupant.fingerprint == manifest.fingerprint
    assert all(plan.keep == manifest.files and not plan.drop for plan in plans)


def test_what_was_moved_aside_and_not_replaced_is_never_removed(bench: Bench) -> None:
    """A turn was killed right after it had moved something away that was written to just then."""
    fill(bench.outputs, RESULTS)
    left = bench.destination.parent / f".mqi-{KEY}.download._.1-1.part"
    fill(left / "results", RESULTS)
    fill(left / "replaced", {"thesis.txt": b"precious"})
    fill(bench.destination, {"more.txt": b"precious too"})

    with pytest.raises(GiveUp, match="holds something else"):
        bench.download(turn=2)

    assert contents(bench.destination) == {"more.txt": b"precious too"}
    (kept,) = bench.destination.parent.glob("case.before-*")
    assert contents(kept) == {"thesis.txt": b"precious"}
    remove(bench.destination)
    bench.download(turn=3)
    assert contents(bench.destination) == contents(bench.outputs)
    assert contents(kept) == {"thesis.txt": b"precious"}


def test_results_of_a_part_that_lie_deeper_here_than_can_be_are_refused_at_once(bench: Bench) -> None:
    fill(bench.outputs, {"/".join(["d"] * 64) + "/f": b"1"})
    with pytest.raises(GiveUp, match=r"directory nested deeper|directories nested deeper"):
        bench.download()


def test_what_is_not_ours_among_what_an_earlier_turn_left_is_begun_anew(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    left = bench.destination.parent / f".mqi-{KEY}.download._.1-1.part" / "results"
    fill(left, {"dose_1.raw": RESULTS["dose_1.raw"], "log/run.txt": b"other"})
    (left / "link").symlink_to("/etc/passwd")

    done = bench.download(turn=2)

    assert isinstance(done, Done)
    assert contents(bench.destination) == contents(bench.outputs)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_file_or_a_link_in_the_way_is_left_as_it_is(local_bench: Bench, kind: str) -> None:
    fill(local_bench.outputs, RESULTS)
    place = local_bench.destination
    place.parent.mkdir(parents=True)
    if kind == "file":
        place.write_bytes(b"precious")
    else:
        place.symlink_to("/etc" if kind == "link" else "/nowhere")

    with pytest.raises(GiveUp, match="holds something else"):
        local_bench.download()

    assert place.is_symlink() or place.read_bytes() == b"precious"


def test_results_of_an_earlier_run_of_the_case_are_replaced(bench: Bench) -> None:
    fill(bench.outputs, RESULTS | {"old": b"old"})
    bench.download()
    bench.run_attempt = 2
    fill(bench.outputs, {"dose_1.raw": b"new"})

    bench.download(attempt=2)

    assert contents(bench.destination) == {"dose_1.raw": b"new"}
    assert bench.leftovers() == []


def test_results_that_somebody_changed_since_are_not_replaced(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    bench.download()
    fill(bench.destination, {"my notes.txt": b"precious"})
    bench.run_attempt = 2
    fill(bench.outputs, {"dose_1.raw": b"new"})

    with pytest.raises(GiveUp, match="holds something else"):
        bench.download(attempt=2)

    assert (bench.destination / "my notes.txt").read_bytes() == b"precious"


def test_earlier_results_whose_place_is_taken_while_they_are_replaced_stay_in_sight(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = local_bench
    the_run_is_made_anew(bench)
    rename = Path.rename

    def finds_it_taken(self: Path, target: Path) -> Path:
        if self.name == "results" and target == bench.destination:
            fill(target, {"thesis.txt": b"precious"})
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(GiveUp, match="holds something else"):
        patch.setattr(Path, "rename", finds_it_taken)
        bench.download(attempt=2, turn=1)

    assert contents(bench.destination) == {"thesis.txt": b"precious"}
    assert contents(bench.destination.with_name(f"case.before-{KEY}-2-1")) == {"a": b"old"}


def test_a_crash_while_earlier_results_are_replaced_loses_neither(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = local_bench
    the_run_is_made_anew(bench)
    rename = Path.rename

    def dies(self: Path, target: Path) -> Path:
        if self.name == "results" and target == bench.destination:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            bench.download(attempt=2)
    assert not bench.destination.exists()

    with pytest.raises(GiveUp):
        bench.download(attempt=3, host=HostThrough(bench.host, LostResults))
    assert contents(bench.destination) == {"a": b"old"}

    done = bench.download(attempt=4)

    assert contents(bench.destination) == {"a": b"new"}
    assert isinstance(done, Done)
    assert done.facts["fetched_bytes"] == 0
    assert bench.leftovers() == []


# without a shell the proof itself comes over the damaged way: equal damage twice is beyond what can be noticed
@pytest.mark.parametrize("host", ["local", "ssh"], indirect=True)
def test_a_byte_changed_on_the_way_is_found(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    host = HostThrough(bench.host, DamagesWhatIsRead, far=damages_what_is_sent)

    with pytest.raises(RetryLater, match=r"otherwise than it was hashed|of 4 fetched files: 2 differ") as caught:
        bench.download(host=host)

    assert not bench.destination.exists()
    assert "dose" not in caught.value.message + caught.value.hint
    assert isinstance(bench.download(), Done)
    assert contents(bench.destination) == contents(bench.outputs)


def test_results_that_still_grow_are_not_taken(bench: Bench) -> None:
    fill(bench.outputs, {"a": b"1" * 1000, "z": b"2"})
    files = functools.partial(GrowsWhileRead, target=bench.outputs / "z")
    host = HostThrough(bench.host, files, far=lambda program: program.replace("all) ", "all) echo >> ./z; "))

    with pytest.raises((RetryLater, HostError)):
        bench.download(host=host)

    assert not bench.destination.exists()


def test_a_local_disk_that_keeps_a_byte_wrong_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from mqi_sftp import download

    fill(bench.outputs, RESULTS)
    prove = download.prove_here

    def damages(landing: Landing, *more: object) -> None:
        flip_a_byte(landing.results / "dose_2.raw")
        prove(landing, *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(download, "prove_here", damages)
        with pytest.raises(RetryLater, match="of 4 fetched files: 1 differ"):
            bench.download()
    assert not bench.destination.exists()

    assert isinstance(bench.download(), Done)
    assert contents(bench.destination) == contents(bench.outputs)


def test_links_and_special_files_are_refused_by_count(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    (bench.outputs / "secret-name").symlink_to("/etc/passwd")
    (bench.outputs / "log" / "up").symlink_to("..")
    os.mkfifo(bench.outputs / "pipe")

    with pytest.raises(GiveUp, match=r"1 special file .*, 2 symbolic links") as caught:
        bench.download()

    assert "secret-name" not in caught.value.message + caught.value.hint
    assert not bench.destination.exists()


@pytest.mark.parametrize("name", [b"line\nbreak", b"esc\x1b[31m", b"back\\slash"])
def test_names_that_no_checksum_file_can_hold_are_refused(bench: Bench, name: bytes) -> None:
    fill(bench.outputs, RESULTS)
    Path(os.fsdecode(os.fsencode(bench.outputs) + b"/" + name)).write_bytes(b"x")

    with pytest.raises(GiveUp, match="1 name with control characters or backslashes"):
        bench.download()


def test_names_that_are_not_utf_8_are_refused(bench: Bench) -> None:
    fill(bench.outputs, RESULTS)
    Path(os.fsdecode(os.fsencode(bench.outputs) + b"/\xff\xfe")).write_bytes(b"x")

    with pytest.raises((GiveUp, HostFault)):
        bench.download()

    assert not bench.destination.exists()


def test_directories_without_end_are_refused(bench: Bench) -> None:
    fill(bench.outputs, {"/".join(["d"] * 70) + "/x": b"1", "y": b"2"})

    with pytest.raises(GiveUp, match="nested deeper than 64"):
        bench.download()


class LostResults(FilesThrough):
    """A host from which the results are gone."""

    def stat(self, path: Any) -> None:
        return None


class EscapingNames(FilesThrough):
    """A server that names files which lead out of their directory."""

    def listing(self, path: Any) -> Any:
        import dataclasses

        for each in self.inner.listing(path):
            yield dataclasses.replace(each, name="../../../escaped") if each.name == "dose_2.raw" else each


def test_a_name_that_leads_out_is_never_written_there(local_bench: Bench) -> None:
    fill(local_bench.outputs, RESULTS)

    with pytest.raises(GiveUp, match="1 name that leads elsewhere"):
        local_bench.download(host=HostThrough(local_bench.host, EscapingNames))

    assert not list(local_bench.directory.rglob("escaped"))


def test_nothing_to_fetch_is_never_done(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="not a directory on far"):
        bench.download()

    fill(bench.outputs, {}, empty=["hollow"])
    with pytest.raises(GiveUp, match="left no file"):
        bench.download()

    ctx = bench.context("download")
    ctx.earlier = []
    with pytest.raises(GiveUp, match="step simulate of this case has not finished"):
        DOWNLOAD.run(bench.case(fingerprint="f"), ctx)


def test_a_place_inside_the_source_is_refused(local_bench: Bench) -> None:
    bench = local_bench
    fill(bench.outputs, RESULTS)
    case = CaseRef(KEY, "patient/case", 1, "s", bench.directory / "source" / "patient" / "case", "f")
    case.directory.mkdir(parents=True)

    for place in (
        bench.directory / "source" / "results" / "case",
        case.directory / "out",
        bench.directory / "source",
    ):
        ctx = bench.context("download")
        ctx.options = ctx.options.model_copy(update={"to": place})
        with pytest.raises(GiveUp, match="inside the source"):
            DOWNLOAD.run(case, ctx)


def test_a_second_revision_has_a_place_of_its_own(local_bench: Bench) -> None:
    bench = local_bench
    fill(bench.outputs, RESULTS)
    bench.download()

    bench.download(case=CaseRef(KEY, "case", 2, "source", bench.source, "f"))

    assert contents(bench.destination.with_name("case.r2")) == contents(bench.outputs)


def test_a_full_disk_here_waits_without_using_up_tries(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(local_bench.outputs, RESULTS)

    with monkeypatch.context() as patch:
        patch.setattr("mqi_sftp.fetch.room_missing", lambda *args, **more: 5_000_000)
        waiting = local_bench.download()

    assert isinstance(waiting, Wait)
    assert waiting.note == "the disk for the results has 5.0 MB too little room"
    assert isinstance(local_bench.download(), Done)
    assert local_bench.leftovers() == []


def test_a_disk_that_fills_up_meanwhile_waits_too(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(local_bench.outputs, RESULTS)

    def full(_place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "secret-name")

    with monkeypatch.context() as patch:
        patch.setattr("mqi_sftp.download.sync_file_system", full)
        waiting = local_bench.download()

    assert isinstance(waiting, Wait)
    assert waiting.note == "the disk for the results is full"
    assert isinstance(local_bench.download(), Done)


def test_another_error_of_this_machine_is_tried_again_without_its_path(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.outputs, RESULTS)

    def broken(_place: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", "secret-name")

    monkeypatch.setattr("mqi_sftp.download.sync_file_system", broken)

    with pytest.raises(RetryLater, match="can't be written here: Input/output error") as caught:
        local_bench.download()

    assert "secret-name" not in caught.value.message


def test_a_full_disk_of_the_state_is_waited_for_by_its_own_name(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.outputs, RESULTS)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "secret-name")

    with monkeypatch.context() as patch:
        patch.setattr("mqi_sftp.results.os.fsync", full)
        waiting = local_bench.download()

    assert isinstance(waiting, Wait)
    assert waiting.note == "the disk that holds mqi's state is full"
    assert not local_bench.destination.exists()
    assert isinstance(local_bench.download(), Done)
    assert local_bench.leftovers() == []


def test_another_error_of_the_disk_of_the_state_is_not_told_as_one_of_the_results(local_bench: Bench) -> None:
    fill(local_bench.outputs, RESULTS)
    notes = local_bench.directory / "data" / "placed" / f"{KEY}.download._.json"
    notes.mkdir(parents=True)

    with pytest.raises(RetryLater, match=r"notes .* can't be read: Is a directory") as caught:
        local_bench.download()

    assert "state.path" in caught.value.hint


def test_a_name_that_is_too_long_for_this_machine_s_disk_is_not_tried_again_and_again(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.outputs, RESULTS)

    def takes_short_names(_place: Path) -> None:
        raise OSError(errno.ENAMETOOLONG, "File name too long", "secret-name")

    monkeypatch.setattr("mqi_sftp.download.sync_file_system", takes_short_names)

    with pytest.raises(GiveUp, match="longer name") as caught:
        local_bench.download()

    assert "secret-name" not in caught.value.message


@pytest.fixture
def one_mebibyte(bench: Bench) -> Iterator[Path]:
    """A disk for results that holds no more."""
    place = bench.destination.parent
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems can't be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("host", ["ssh"], indirect=True)
def test_a_really_full_disk_is_noticed_and_used_again_once_there_is_room(bench: Bench, one_mebibyte: Path) -> None:
    fill(one_mebibyte, {"filler": b"x" * 900_000})
    fill(bench.outputs, RESULTS)

    assert isinstance(bench.download(), Wait)
    (one_mebibyte / "filler").unlink()
    assert isinstance(bench.download(), Done)
    assert contents(bench.destination) == contents(bench.outputs)


@pytest.mark.parametrize(
    "left",
    [
        {"results/other": b"x" * 800_000},
        {"results/large": b"x" * 800_001},
        {"results/large": b"x" * 800_000},
        {"results/large": b"x" * 800_000, "results/a\nb": b""},
        {"begun/name": b"other", "begun/file": b"x" * 800_000},
    ],
    ids=["of another name", "of another size", "of another content", "of no case", "begun"],
)
def test_what_an_earlier_turn_left_and_is_of_no_use_takes_no_room(
    bench: Bench, one_mebibyte: Path, left: dict[str, bytes]
) -> None:
    fill(bench.outputs, {"large": b"y" * 800_000})
    fill(one_mebibyte / f".mqi-{KEY}.download._.1-0.part", left)

    assert isinstance(bench.download(), Done)
    assert contents(bench.destination) == contents(bench.outputs)
    assert bench.leftovers() == []


def test_a_worker_that_stops_leaves_what_it_fetched_to_the_next_turn(bench: Bench) -> None:
    # more than is under way at a time
    fill(bench.outputs, {f"{number}": bytes([number]) * 500_000 for number in range(20)})
    ctx = bench.context("download")
    ctx.stop = lambda: bool(ctx.told) and ctx.told[-1] > 7_000_000

    stopped = DOWNLOAD.run(bench.case(fingerprint="f"), ctx)
    done = bench.download()

    assert isinstance(stopped, Wait)
    assert isinstance(done, Done)
    assert 0 < done.facts["fetched_bytes"] < 9_000_000
    assert contents(bench.destination) == contents(bench.outputs)


def test_a_case_outside_every_source_has_a_place_that_is_its_own(local_bench: Bench) -> None:
    fill(local_bench.outputs, RESULTS)

    local_bench.download(case=CaseRef(KEY, "/somewhere/else/Doe", 1, "", Path("/somewhere/else/Doe"), "f"))

    assert contents(local_bench.destination.with_name(f"Doe.{KEY}")) == contents(local_bench.outputs)


def test_a_name_that_would_lead_out_of_its_place_is_refused(local_bench: Bench) -> None:
    fill(local_bench.outputs, RESULTS)

    with pytest.raises(GiveUp, match="gives no usable path"):
        local_bench.download(case=CaseRef(KEY, "../Doe", 1, "s", local_bench.source, "f"))
