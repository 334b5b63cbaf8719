"""An upload brings exactly the case's files to the host, or says why not."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from mqi_cli import CaseRef, Done, GiveUp, Host, HostFull, HostRefused, RetryLater, Wait, build_manifest
from mqi_cli.hosts.sshd import OpenSSHServer
from sftp.bench import (
    KEY,
    ODD_NAMES,
    UPLOAD,
    Bench,
    DamagesWhatArrived,
    DamagesWhatIsWritten,
    FilesThrough,
    HasLittleRoom,
    HostThrough,
    contents,
    fill,
    flip_a_byte,
    has_little_room,
    sample_case,
    tells_no_room,
)


def test_a_real_case_arrives_whole_and_proven(bench: Bench) -> None:
    fill(bench.source, sample_case())

    done = bench.upload()

    assert contents(bench.input) == contents(bench.source)
    assert isinstance(done, Done)
    manifest = build_manifest(bench.source)
    assert done.facts["files"] == 223
    assert done.facts["bytes"] == done.facts["sent_bytes"] == manifest.size
    assert done.facts["fingerprint"] == manifest.fingerprint
    assert bench.leftovers() == []


def test_any_operator_can_prove_the_input_with_sha256sum(bench: Bench) -> None:
    fill(bench.source, sample_case() | ODD_NAMES)

    bench.upload()

    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "../.input.sha256"], cwd=bench.input, check=True)
    record = json.loads((bench.root / ".input.json").read_text())
    assert record["fingerprint"] == build_manifest(bench.source).fingerprint


def test_odd_names_empty_files_and_empty_directories_arrive(bench: Bench) -> None:
    fill(bench.source, ODD_NAMES | {"nothing": b"", "sub/nothing": b""}, empty=["hollow", "deep/er/hollow"])

    bench.upload()

    assert contents(bench.input) == contents(bench.source)


def test_times_come_along_and_a_program_stays_one_but_gets_no_further_rights(bench: Bench) -> None:
    fill(bench.source, {"program.sh": b"#!/bin/sh\n", "data": b"1"})
    (bench.source / "program.sh").chmod(0o4777)
    (bench.source / "data").chmod(0o606)
    (bench.source / "sub" / "hollow").mkdir(parents=True)
    os.utime(bench.source / "program.sh", (1_600_000_000, 1_600_000_000))
    for name in ("sub/hollow", "sub"):
        os.utime(bench.source / name, (1_500_000_000, 1_500_000_000))

    bench.upload()

    found = (bench.input / "program.sh").stat()
    assert found.st_mtime == 1_600_000_000
    assert found.st_mode & 0o7777 == 0o750
    assert (bench.input / "data").stat().st_mode & 0o7777 == 0o640
    assert [(bench.input / each).stat().st_mtime for each in ("sub", "sub/hollow")] == [1_500_000_000] * 2


def test_an_upload_that_is_done_is_proven_again_and_sends_nothing(bench: Bench) -> None:
    fill(bench.source, sample_case())
    bench.upload()

    done = bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 0
    assert done.facts["files"] == 223
    assert bench.leftovers() == []


def test_a_done_upload_needs_the_source_no_more(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    case = bench.case()
    bench.upload(case=case)
    (bench.source / "a").unlink()

    assert isinstance(bench.upload(case=case), Done)


def test_an_input_that_was_damaged_is_replaced(bench: Bench) -> None:
    fill(bench.source, {"a": b"12345", "b": b"2"})
    bench.upload()
    flip_a_byte(bench.input / "a")

    bench.upload()

    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


def test_an_input_with_a_stray_file_is_replaced(bench: Bench) -> None:
    fill(bench.source, {"a": b"12345"})
    bench.upload()
    (bench.input / "stray.ptn").write_bytes(b"x")

    bench.upload()

    assert contents(bench.input) == contents(bench.source)


def test_an_input_of_other_content_is_replaced(bench: Bench) -> None:
    fill(bench.source, {"a": b"old", "gone": b"x"})
    bench.upload()
    (bench.source / "gone").unlink()
    fill(bench.source, {"a": b"new"})

    bench.upload()

    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


def test_a_byte_that_the_disk_got_wrong_is_found_and_the_file_sent_again(bench: Bench) -> None:
    fill(bench.source, sample_case())
    name = next(path.name for path in bench.source.rglob("*.ptn"))
    size = build_manifest(bench.source).size
    files = functools.partial(DamagesWhatIsWritten, name=name, times=[7])
    host = HostThrough(bench.host, files, far=DamagesWhatArrived(name, [7]))

    done = bench.upload(host=host)

    assert contents(bench.input) == contents(bench.source)
    assert isinstance(done, Done)
    assert size < done.facts["sent_bytes"] < 2 * size


def test_a_disk_that_stays_wrong_is_never_taken_for_done(bench: Bench) -> None:
    fill(bench.source, {"a.ptn": b"12345", "b.ptn": b"12345"})
    files = functools.partial(DamagesWhatIsWritten, name="a.ptn", times=[0] * 9)
    host = HostThrough(bench.host, files, far=DamagesWhatArrived("a.ptn", [0] * 9))

    with pytest.raises(RetryLater, match=r"of 2 files: 1 differ") as caught:
        bench.upload(host=host)

    assert not bench.input.exists()
    assert "a.ptn" not in caught.value.message + caught.value.hint
    assert isinstance(bench.upload(), Done), "a good disk later mends it"


def test_a_source_that_is_not_what_was_accepted_is_not_sent(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    case = bench.case()
    fill(bench.source, {"late": b"2"})

    with pytest.raises(GiveUp, match="not what was accepted: it now holds 2 files"):
        bench.upload(case=case)

    assert not bench.input.exists()


def test_a_file_that_changes_between_hashing_and_sending_is_never_done(bench: Bench) -> None:
    fill(bench.source, {"a": b"1" * 50_000, "b": b"2" * 9_000_000})
    case = bench.case()
    ctx = bench.context("upload")

    def change(done: float) -> None:
        if done:
            (bench.source / "b").write_bytes(b"3" * 9_000_000)

    ctx.on_progress = change

    # at once by the hash that it was accepted with, or by a second look
    with pytest.raises((GiveUp, RetryLater), match=r"changed while it was (sent|read)|not what was accepted"):
        UPLOAD.run(case, ctx)

    assert not bench.input.exists()


def test_a_source_with_a_link_is_held_and_the_reason_names_no_file(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    (bench.source / "secret-name").symlink_to("/etc/passwd")

    with pytest.raises(GiveUp, match="1 symbolic link") as caught:
        bench.upload(case=bench.case(fingerprint=""))

    assert "secret-name" not in caught.value.message + caught.value.hint


def test_a_source_that_is_away_is_tried_again_later(local_bench: Bench) -> None:
    fill(local_bench.source, {"a": b"1"})
    case = local_bench.case()
    local_bench.source.rename(local_bench.source.with_name("elsewhere"))

    with pytest.raises(RetryLater, match="not there"):
        local_bench.upload(case=case)


def test_a_source_without_permission_is_held(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(local_bench.source, {"a": b"1"})
    case = local_bench.case()

    def refuse(*args: object, **more: object) -> object:
        raise PermissionError(13, "Permission denied", "secret-name")

    monkeypatch.setattr("mqi_sftp.source.build_manifest", refuse)  # the tests may run as root, whom nothing refuses

    with pytest.raises(GiveUp, match="can't be read: Permission denied") as caught:
        local_bench.upload(case=case)

    assert "secret-name" not in caught.value.message


def test_a_directory_that_nobody_accepted_can_be_sent_by_hand(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})

    done = bench.upload(case=bench.case(fingerprint=""))
    again = bench.upload(case=bench.case(fingerprint=""))

    assert contents(bench.input) == contents(bench.source)
    assert isinstance(done, Done)
    assert isinstance(again, Done)
    assert again.facts["sent_bytes"] == 0


def test_too_little_room_on_the_host_is_said_before_anything_is_sent(bench: Bench) -> None:
    fill(bench.source, sample_case())

    with pytest.raises(HostFull, match=r"no room for this case: 0\.5 MB"):
        bench.upload(host=HostThrough(bench.host, HasLittleRoom, far=has_little_room))

    assert not any(path.is_file() for path in bench.root.rglob("*"))
    assert isinstance(bench.upload(), Done), "it goes on once there is room"


def test_a_worker_that_stops_leaves_what_it_sent_to_the_next_turn(bench: Bench) -> None:
    fill(bench.source, sample_case(scale=30))  # more than is under way at a time
    total = build_manifest(bench.source).size
    ctx = bench.context("upload")
    ctx.stop = lambda: bool(ctx.told) and ctx.told[-1] > total / 2

    stopped = UPLOAD.run(bench.case(), ctx)
    done = bench.upload()

    assert isinstance(stopped, Wait)
    assert stopped.seconds == 0
    assert isinstance(done, Done)
    assert 0 < done.facts["sent_bytes"] < total * 0.8
    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


def test_progress_rises_to_the_total_and_stays_there(local_bench: Bench) -> None:
    fill(local_bench.source, sample_case())
    ctx = local_bench.context("upload")

    UPLOAD.run(local_bench.case(), ctx)

    assert ctx.told == sorted(ctx.told)
    assert ctx.told[-1] == build_manifest(local_bench.source).size


def test_files_that_are_there_are_not_written_again(bench: Bench) -> None:
    fill(bench.source, sample_case())
    staged = bench.root / ".incoming-0-1"
    case = bench.case()
    bench.upload(case=case)
    bench.input.rename(staged)
    victim = next(staged.rglob("*.ptn"))
    size = victim.stat().st_size
    victim.unlink()

    done = bench.upload(case=case)

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == size
    assert contents(bench.input) == contents(bench.source)


def test_what_is_left_of_several_earlier_turns_is_taken_over_or_removed(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    for name in (".incoming-0-3", ".incoming-0-4", ".replaced-0-2"):
        fill(bench.root / name, {"junk/x.ptn": b"junk"}, empty=["hollow"])
    (bench.root / ".incoming-0-4" / "link").symlink_to("/etc")
    fill(bench.root, {".beginning-0-3": b"x", ".unrelated": b"kept"})

    bench.upload()

    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []
    assert (bench.root / ".unrelated").exists()
    assert Path("/etc/passwd").exists()


def test_a_host_that_refuses_is_not_a_reason_to_blame_the_case(local_bench: Bench) -> None:
    class Refuses(HostThrough):
        def files(self) -> object:
            raise HostRefused("host far does not let us in", host="far")

    fill(local_bench.source, {"a": b"1"})

    with pytest.raises(HostRefused):
        local_bench.upload(host=Refuses(local_bench.host))


def test_the_key_is_the_only_name_of_the_case_on_the_host(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    case = CaseRef(KEY, "Doe^John/plan", 1, "s", bench.source, build_manifest(bench.source).fingerprint)

    bench.upload(case=case)

    found = [path.name for path in Path(bench.host.base_dir).rglob("*")]
    assert not any("Doe" in name for name in found)


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_disk_that_fills_up_on_the_host_pauses_it_and_the_upload_goes_on_once_there_is_room(
    tmp_path: Path, make_host: Callable[..., Host], kind: str
) -> None:
    class TellsNoRoom(FilesThrough):
        """A server that can't say beforehand how much room is left."""

        def space(self, path: PurePosixPath) -> None:
            return None

    host = make_host(kind)
    place = Path(host.base_dir)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        bench = Bench(tmp_path, host)
        fill(bench.source, {f"{number}": bytes([number]) * 50_000 for number in range(12)})
        fill(place, {"filler": b"x" * 700_000})
        with pytest.raises(HostFull):
            bench.upload(host=HostThrough(host, TellsNoRoom, far=tells_no_room))
        assert not bench.input.exists()
        (place / "filler").unlink()
        done = bench.upload()
        arrived = contents(bench.input)
    finally:
        host.close()
        subprocess.run(["umount", "--lazy", str(place)], check=True)

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] < 600_000
    assert arrived == contents(bench.source)


@pytest.mark.parametrize("lines", [["MaxSessions 1"], ["MaxSessions 2"]])
def test_a_server_that_allows_few_channels_is_slower_and_no_failure(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host], lines: list[str]
) -> None:
    bench = Bench(tmp_path, make_host("ssh", server=sshd.variant(*lines)))
    fill(bench.source, sample_case())

    assert isinstance(bench.upload(), Done)
    assert contents(bench.input) == contents(bench.source)
