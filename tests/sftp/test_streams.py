"""Where the far side has a shell and tools, a case travels as one stream: the ways it goes on, gives way and refuses."""

from __future__ import annotations

import errno
import importlib
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import mqi_cli.manifest
from mqi_cli import Copying, Done, Entry, GiveUp, Host, HostError, HostFault, HostFull, RetryLater, Wait, build_manifest
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp import tar_stream
from mqi_sftp.arriving import ArrivingFile
from mqi_sftp.far_side import read_errors
from mqi_sftp.held import Held
from mqi_sftp.landing import Landing
from mqi_sftp.listing import Listing
from mqi_sftp.options import SftpSection
from mqi_sftp.preview import preview_upload
from servers.proxy import TcpProxy
from sftp.bench import (
    DOWNLOAD,
    KEY,
    ODD_NAMES,
    UPLOAD,
    Bench,
    DamagesWhatArrived,
    FilesThrough,
    HostThrough,
    contents,
    fill,
    flip_a_byte,
    peak_of,
    sample_case,
)

LARGE = {"deep/large.raw": random.Random(3).randbytes(6 << 20)}


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqi_sftp.quick.MOST_FILES", -1)


class NoFiles(FilesThrough):
    """A host whose SFTP is not to be used."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError("the stream needs no SFTP")


def test_a_stream_needs_no_sftp_either_way(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, sample_case() | ODD_NAMES, empty=["hollow/er"])
    fill(ssh_bench.outputs, {"a/b": b"1", "large": bytes(5 << 20)})
    host = HostThrough(ssh_bench.host, NoFiles)

    assert isinstance(ssh_bench.upload(host=host), Done)
    assert isinstance(ssh_bench.upload(host=host), Done)
    assert isinstance(ssh_bench.download(host=host), Done)

    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


def test_more_hashes_than_a_pipe_holds_wait_for_the_bytes_that_travel_beside_them(ssh_bench: Bench) -> None:
    # 2,400 hashes are 230 kB, ready before the first large file is through
    names = {f"many/{number:04d}-{'x' * 30}": str(number).encode() for number in range(2400)}
    fill(ssh_bench.outputs, {"large": random.Random(4).randbytes(8 << 20)} | names)

    assert isinstance(ssh_bench.download(), Done)

    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


@pytest.mark.parametrize("tool", ["tar", "xargs", "find"])
def test_a_far_side_that_lacks_a_tool_gets_its_files_one_by_one(ssh_bench: Bench, tool: str) -> None:
    fill(ssh_bench.source, {"a": b"1", "b/c": b"2"})
    fill(ssh_bench.outputs, {"d": b"3"})
    host = HostThrough(ssh_bench.host, far=lambda program: program.replace(f" {tool} ", f" {tool}-is-not-here ", 1))

    assert isinstance(ssh_bench.upload(host=host), Done)
    assert isinstance(ssh_bench.download(host=host), Done)

    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


def test_large_cases_are_hashed_by_several_programs_at_once_and_a_byte_that_changed_is_found(ssh_bench: Bench) -> None:
    data = random.Random(5).randbytes(1 << 20)
    files = {f"d{number % 3}/ with space {number}": data + bytes([number]) for number in range(30)}
    fill(ssh_bench.source, files | ODD_NAMES, empty=["hollow/er", "d1/empty", "d1 "])
    host = HostThrough(ssh_bench.host, far=DamagesWhatArrived("'* with space 7'", [700_000]))

    done = ssh_bench.upload(host=host)

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == done.facts["bytes"] + (1 << 20) + 1, "the damaged file went twice"
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "../.input.sha256"], cwd=ssh_bench.input, check=True)


def test_hashes_of_several_programs_are_put_in_order_whoever_ends_first(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {f"{number:02d}": random.Random(number).randbytes(1 << 20) for number in range(30)})

    def numbers_backwards(program: str) -> str:
        assert "hashed.$$" in program
        return program.replace("hashed.$$", "hashed.$((9999999 - $$))")

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=numbers_backwards))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == done.facts["bytes"], "proven at the first go"


def test_a_process_number_that_comes_again_loses_no_hashes(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {f"{number:02d}": random.Random(number).randbytes(1 << 20) for number in range(30)})

    def numbers_again(program: str) -> str:
        assert "hashed.$$" in program
        assert "-P 4" in program
        return program.replace("hashed.$$", "hashed.1").replace("-P 4", "-P 1")

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=numbers_again))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == done.facts["bytes"], "proven at the first go"


def test_few_files_in_many_directories_are_flushed_as_one(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {f"d{number}/e/f/g/h/file": b"1" for number in range(4)})

    def can_not_flush_one_by_one(program: str) -> str:
        assert "xargs -0 sync -d" in program
        return program.replace("xargs -0 sync -d", "xargs -0 false")

    assert isinstance(ssh_bench.upload(host=HostThrough(ssh_bench.host, far=can_not_flush_one_by_one)), Done)


def test_the_records_are_on_the_disk_before_they_have_their_names(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1"})
    log = ssh_bench.directory / "log"
    told = "".join(f'{each}() {{ echo "{each} $*" >> {log}; command {each} "$@"; }}\n' for each in ("sync", "mv"))

    ssh_bench.upload(host=HostThrough(ssh_bench.host, far=lambda program: told + program))

    lines = [line for line in log.read_text().splitlines() if ".input.json" in line]
    assert [line.split()[0] for line in lines] == ["sync", "mv"]
    assert ".input.sha256" in lines[0]


@pytest.mark.parametrize("quickly", [False, True])
def test_times_hard_links_and_holes_pass_both_ways(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch, quickly: bool
) -> None:
    monkeypatch.setattr("mqi_sftp.quick.MOST_FILES", 64 if quickly else -1)

    def make(place: Path) -> None:
        fill(place, {"d/e/file": b"1", "d/other": b"2"}, empty=["hollow"])
        os.link(place / "d" / "other", place / "linked")
        with (place / "d" / "sparse").open("wb") as sparse:
            sparse.seek(3 << 20)
            sparse.write(b"end")
        for number, each in enumerate(sorted(place.rglob("*"), reverse=True)):  # below first
            os.utime(each, (1_600_000_000 + number, 1_600_000_000 + number))

    def times(place: Path) -> dict[str, int]:
        return {str(each.relative_to(place)): int(each.stat().st_mtime) for each in place.rglob("*")}

    make(ssh_bench.source)
    make(ssh_bench.outputs)

    assert isinstance(ssh_bench.upload(), Done)
    assert isinstance(ssh_bench.download(), Done)

    for there, here in ((ssh_bench.source, ssh_bench.input), (ssh_bench.outputs, ssh_bench.destination)):
        assert contents(here) == contents(there)
        assert {each.stat().st_nlink for each in here.rglob("*") if each.is_file()} == {1}
        differ = {path for path, time in times(there).items() if times(here)[path] != time}
        assert differ == set()


def test_what_the_far_side_can_not_write_is_not_read_as_commands(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    commands = (b"forget -\n./../../outside\n" + b"#" * 8000 + b"\n") * 800
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.source, {"large": commands})
        proxy.cut_after(up=4 << 20)
        with pytest.raises(HostError):
            bench.upload()
    bench = Bench(tmp_path, make_host("ssh"))
    victim = bench.root.parent / "outside"
    victim.write_bytes(b"1")

    def fails_at_once(program: str) -> str:
        assert "append) dd " in program
        return program.replace("append) dd ", "append) false ")

    with pytest.raises(HostFault):
        bench.upload(host=HostThrough(bench.host, far=fails_at_once))

    assert victim.exists()
    assert not bench.input.exists()


def test_the_hash_tool_is_agreed_on_once_and_the_other_one_does_as_well(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1", "b": b"2"})
    remembered = Path(ssh_bench.host.base_dir) / ".mqi" / "hash-tool"

    ssh_bench.upload()
    assert remembered.read_text().strip() in ("openssl dgst -sha256 -r", "sha256sum -b")
    for tool in ("sha256sum -b", "openssl dgst -sha256 -r", "rm -rf /"):
        remembered.write_text(tool + "\n")
        fill(ssh_bench.source, {"c": tool.encode()})
        assert isinstance(ssh_bench.upload(), Done)
        assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert "rm" not in remembered.read_text()


@pytest.mark.parametrize("keyed", ["anew", "as before"])
def test_of_a_new_revision_only_what_changed_is_sent(bench: Bench, keyed: str) -> None:
    large = bytes(range(256)) * 8192 * 3
    fill(bench.source, sample_case() | {"large": large, "empty": b""}, empty=["hollow/er"])
    bench.upload()
    before = bench.input
    if keyed == "anew":  # as intake does it; a case that is uploaded again after a change has the same
        bench.next_revision("cbbbbbbbbbb")
    fill(bench.source, {"late.txt": b"12345"})
    moves = preview_upload(bench.case(), bench.context("upload"))

    done = bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 5
    assert [each.path for each in moves if each.act == "send"] == ["late.txt"]
    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []
    if keyed == "anew":
        assert (before / "large").read_bytes() == large, "an earlier revision is its own"
        assert not (before / "late.txt").exists()


def test_of_what_the_host_holds_of_many_files_no_second_list_is_kept() -> None:
    count = 20_000
    wanted = [Entry(f"n{number:06d}", 1000, number * 10**9, number, 0o640) for number in range(count)]
    found: list[Held] = []

    def read() -> None:
        found.append(Held(wanted))
        for number in range(count):
            found[0].add(b"f 640 1000 %d.5 ./n%06d" % (number & ~1, number))
            found[0].prove(f"n{number:06d}", f"{number:064d}")
        found[0].add(b"f 640 7 0.5 ./other")

    assert peak_of(read) < 60 * count
    assert [(found[0].size_of(at), found[0].is_as_due(at)) for at in (2, 3)] == [(1000, True), (1000, False)]
    assert found[0].sha256(5) == f"{5:064d}"
    assert found[0].bytes == count * 1000 + 7


@pytest.mark.parametrize("hashes", [b"0" * 63 + b"g *./large", b"short", b"\\" + b"0" * 64 + b" *./large", b""])
def test_a_hash_of_an_earlier_revision_that_is_none_proves_nothing(ssh_bench: Bench, hashes: bytes) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    said = f"say hashes && printf '%s\\n' '{hashes.decode()}'; say end" if hashes else "say hashes; say end"

    def lies(program: str) -> str:
        assert "say hashes && hashes; say end" in program
        return program.replace("say hashes && hashes; say end", said)

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=lies))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 5 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


def test_a_large_file_is_not_sent_again_for_its_time_alone(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large": bytes(range(256)) * 8192 * 3, "small": b"1"})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.source, {"late.txt": b"12345"})
    for name in ("large", "small"):
        os.utime(ssh_bench.source / name, (1_700_000_000, 1_700_000_000))
    (ssh_bench.source / "large").chmod(0o755)
    moves = preview_upload(ssh_bench.case(), ssh_bench.context("upload"))

    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 6
    assert sorted(each.path for each in moves if each.act == "send") == ["late.txt", "small"]
    info = (ssh_bench.input / "large").stat()
    assert (info.st_mtime, stat.S_IMODE(info.st_mode)) == (1_700_000_000, 0o750)


def test_a_large_file_that_comes_down_is_read_back_while_it_arrives(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_sftp.stream_down.LARGE", 3 << 20)
    fill(ssh_bench.outputs, {"large": bytes(range(256)) * 4096 * 5, "small": b"1"})
    read: list[str] = []
    real = mqi_cli.manifest.hash_file

    def reading(path: str, **more: Any) -> str:
        read.append(str(path).rpartition("/")[2])
        return real(path, **more)

    monkeypatch.setattr(mqi_cli.manifest, "hash_file", reading)

    ssh_bench.download()

    assert read == ["small"], "all of the large one is read once more at the end"
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


@pytest.mark.parametrize("when", ["while it arrives", "afterwards"])
def test_a_byte_of_a_large_file_that_the_disk_gets_wrong_is_noticed(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("mqi_sftp.stream_down.LARGE", 3 << 20)
    fill(ssh_bench.outputs, {"large": bytes(range(256)) * 4096 * 5})
    write, keep = ArrivingFile.write, Landing.keep_file

    def damaged(sink: ArrivingFile, data: Any) -> int:
        at = sink.tell()
        written = write(sink, data)
        if at <= 2_000_000 < at + written:
            flip_a_byte(sink.path, at=2_000_000)
        return written

    def damaged_later(landing: Landing, path: str, **more: Any) -> None:
        keep(landing, path, **more)
        with (landing.results / path).open("r+b") as stream:
            stream.write(b"X")

    with monkeypatch.context() as patch, pytest.raises(RetryLater, match="1 differ"):
        if when == "while it arrives":
            patch.setattr(ArrivingFile, "write", damaged)
        else:
            patch.setattr(Landing, "keep_file", damaged_later)
        ssh_bench.download()
    assert not ssh_bench.destination.exists()
    ssh_bench.download()
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


def test_a_disk_that_fails_while_a_large_file_arrives_is_told(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_sftp.stream_down.LARGE", 3 << 20)
    monkeypatch.setattr("mqi_sftp.read_back._FLUSH_EVERY", 1 << 20)
    fill(ssh_bench.outputs, {"large": bytes(range(256)) * 4096 * 5})

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(RetryLater, match="can't be written here"):
        patch.setattr("mqi_sftp.read_back.os.fdatasync", fails)
        ssh_bench.download()


class TakenOver(FilesThrough):
    """A host on which somebody takes the staging directory away once the input has been moved aside."""

    def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        self.inner.rename(source, target)
        if target.name.startswith(".replaced-"):
            self.inner.rename(target.parent / target.name.replace("replaced", "incoming"), target.parent / "later")


def test_file_by_file_too_an_owner_that_wakes_while_it_publishes_leaves_what_is_there(local_bench: Bench) -> None:
    fill(local_bench.source, {"large": b"1"})
    local_bench.upload()
    fill(local_bench.source, {"late": b"x"})

    with pytest.raises(HostFault):
        local_bench.upload(host=HostThrough(local_bench.host, TakenOver))

    assert contents(local_bench.input) == {"large": b"1"}


@pytest.mark.parametrize("fault", ["it can't be listed", "it can't be copied"])
def test_an_earlier_revision_that_is_of_no_use_is_no_obstacle(ssh_bench: Bench, fault: str) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.source, {"late": b"x"})
    old, new = {
        "it can't be listed": ('usable "$former" &&', "false &&"),
        "it can't be copied": ('( cd "$base" && [', '( cd "$base" && false && ['),
    }[fault]

    def faulty(program: str) -> str:
        assert old in program
        return program.replace(old, new)

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=faulty))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == (5 << 20) + 1
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_of_earlier_revisions_the_newest_that_can_be_read_is_copied_from(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.input, {"large": b"not to be read"})
    ssh_bench.next_revision("cccccccccca")
    unreadable = 'case $former in *cbbbbbbbbbb*) false;; *) usable "$former";; esac &&'

    def closed(program: str) -> str:
        assert 'usable "$former" &&' in program
        return program.replace('usable "$former" &&', unreadable)

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=closed))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 0
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


def test_an_earlier_revision_that_a_program_made_read_only_leaves_the_new_one_writable(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20), "deep/large": bytes(5 << 20), "deep/small": b"1"})
    ssh_bench.upload()
    for each in (ssh_bench.input / "deep", ssh_bench.input):
        each.chmod(0o550)
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.source, {"deep/small": b"2"})

    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (ssh_bench.input, ssh_bench.input / "deep")} == {0o750}


def test_a_beginning_that_can_not_be_read_there_any_more_is_sent(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.source, {"large": bytes(6 << 20)})

    def vanishes(program: str) -> str:
        assert "\n    begin)\n" in program
        return program.replace("\n    begin)\n", '\n    begin)\n        rm -f "$former/$path"\n')

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=vanishes))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 6 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


@pytest.mark.parametrize("recorded", [True, False])
def test_an_input_that_can_not_be_listed_any_more_is_replaced(ssh_bench: Bench, recorded: bool) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    if not recorded:
        (ssh_bench.root / ".input.json").unlink()
    closed = """
find() { # as if a program had left a directory that only itself can read
    command find "$@" || return 1
    case $(pwd)/$1 in */input|*/input/.) return 1;; esac
}
"""

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=lambda program: closed + program))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 5 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_a_download_that_goes_on_has_the_host_list_no_more_than_a_fresh_one(ssh_bench: Bench, tmp_path: Path) -> None:
    """What it kept of a third list was held beside the manifest: of a hundred thousand files too much."""
    files = {f"d{number % 7}/n{number:04d}": str(number).encode() for number in range(300)} | {"large": bytes(5 << 20)}
    fill(ssh_bench.outputs, files)
    for at, name in enumerate(list(files)[1::2]):
        os.utime(ssh_bench.outputs / name, (1_700_000_000 + at,) * 2)
    left = ssh_bench.destination.parent / f".mqi-{KEY}.download._.1-1.part"
    fill(left / "results", dict(list(files.items())[::2]) | {"large": b"wrong"})
    notes = tmp_path / "listings"

    def notes_each(program: str) -> str:
        assert "\nlist() {\n" in program
        return program.replace("\nlist() {\n", f"\nlist() {{ echo listed >> {notes}\n")

    done = ssh_bench.download(turn=2, host=HostThrough(ssh_bench.host, far=notes_each))

    assert isinstance(done, Done) and done.facts["fetched_bytes"] < (5 << 20) + 1000
    assert notes.read_text().count("listed") == 2
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)
    fetched = list(files)[1::2]
    assert [(ssh_bench.destination / name).stat().st_mtime for name in fetched] == [
        1_700_000_000 + at for at in range(150)
    ]


@pytest.mark.parametrize("foreign", [False, True])
def test_a_former_input_with_closed_directories_goes_and_what_can_not_go_is_told(
    ssh_bench: Bench, foreign: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20), "deep/small": b"1"})
    ssh_bench.upload()
    (ssh_bench.input / "deep").chmod(0o550)
    fill(ssh_bench.source, {"deep/small": b"2"})
    perm = "" if foreign else "! -perm -700"
    closed = f"""
rm() {{ # as an account finds it that is not root
    case "$*" in *.replaced-*) [ -z "$(find .replaced-* -type d {perm})" ] || return 1;; esac
    command rm "$@"
}}
"""

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=lambda program: closed + program))

    assert isinstance(done, Done)
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert bool([each for each in ssh_bench.leftovers() if each.startswith(".replaced")]) == foreign
    assert ("can't be removed on far" in caplog.text) == foreign


class CantBeListed(FilesThrough):
    """A host on which the earlier revision's directories can't be read."""

    def list_many(self, paths: Sequence[PurePosixPath], **more: Any) -> Any:
        if any(KEY in str(each) and "input" in str(each) for each in paths):
            raise HostFault("permission denied", host="far")
        return super().list_many(paths, **more)


def test_file_by_file_too_an_earlier_revision_that_cant_be_read_is_no_obstacle(local_bench: Bench) -> None:
    fill(local_bench.source, {"large": bytes(1 << 20)})
    local_bench.upload()
    local_bench.next_revision("cbbbbbbbbbb")

    done = local_bench.upload(host=HostThrough(local_bench.host, CantBeListed))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 1 << 20


@pytest.mark.parametrize("client", ["the system's", "our own"])
def test_a_far_side_that_stalls_at_the_very_end_of_what_is_sent_ends_in_time(
    tmp_path: Path, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    if client == "our own":
        monkeypatch.setattr("mqi_cli.hosts.openssh.shutil.which", lambda name: None)
    bench = Bench(tmp_path, make_host("ssh"))
    bench.section = SftpSection(verify_timeout="1s")
    fill(bench.source, {f"{number:04d}": bytes([number % 256]) * 8000 for number in range(256)})

    def stalls(program: str) -> str:
        assert "tar -x -o -b 256 -f -" in program
        return program.replace("tar -x -o -b 256 -f -", "sleep 30")

    began = time.monotonic()
    with pytest.raises(HostFault):
        bench.upload(host=HostThrough(bench.host, far=stalls))
    assert time.monotonic() - began < 20


def test_an_owner_that_wakes_while_it_publishes_leaves_what_a_later_one_put_there(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large": bytes(5 << 20)})
    ssh_bench.upload()
    fill(ssh_bench.source, {"late": b"x"})

    def taken_over(program: str) -> str:
        at = 'mv -T "$mine" input || { mv -T'
        assert at in program
        return program.replace(at, 'mv -T "$mine" .later && ' + at)

    with pytest.raises(HostError):
        ssh_bench.upload(host=HostThrough(ssh_bench.host, far=taken_over))

    assert (ssh_bench.input / "large").stat().st_size == 5 << 20, "there is no input any more"
    ssh_bench.upload()
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


def test_a_file_that_changed_without_another_size_or_time_is_sent_too(bench: Bench) -> None:
    fill(bench.source, sample_case() | {"same.raw": b"11111111"})
    os.utime(bench.source / "same.raw", (1_700_000_000, 1_700_000_000))
    bench.upload()
    (bench.source / "same.raw").write_bytes(b"22222222")
    os.utime(bench.source / "same.raw", (1_700_000_000, 1_700_000_000))

    done = bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 8
    assert contents(bench.input) == contents(bench.source)


def test_what_the_host_would_not_copy_is_sent(local_bench: Bench) -> None:
    class CopiesOne(FilesThrough):
        def copy_many(self, place: PurePosixPath, files: Iterable[Copying]) -> Iterator[Copying]:
            yield from self.inner.copy_many(place, list(files)[:1])

    fill(local_bench.source, {"a": b"1", "b": b"22", "c": b"333"})
    local_bench.upload()
    fill(local_bench.source, {"late.txt": b"12345"})

    done = local_bench.upload(host=HostThrough(local_bench.host, CopiesOne))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 10
    assert contents(local_bench.input) == contents(local_bench.source)


def test_a_dry_run_lists_only_what_a_new_revision_would_send(bench: Bench) -> None:
    fill(bench.source, sample_case())
    bench.upload()
    fill(bench.source, {"late.txt": b"12345"})

    moves = preview_upload(bench.case(), bench.context("upload"))

    sent = bench.upload()
    assert isinstance(sent, Done)
    assert sum(each.size for each in moves if each.act == "send") == sent.facts["sent_bytes"]


def test_the_way_that_files_take_is_told(
    ssh_bench: Bench, make_host: Callable[..., Host], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told(bench: Bench) -> str:
        caplog.clear()
        with caplog.at_level("INFO", logger="mqi.stage"):
            bench.upload()
            bench.download()
        return caplog.text

    fill(ssh_bench.source, {"a": b"1"})
    fill(ssh_bench.outputs, {"b": b"2"})
    text = told(ssh_bench)
    assert "one stream to far over the system's ssh, proven there by" in text
    assert "one stream from far over the shared connection" in text

    (tmp_path / "other").mkdir()
    without = Bench(tmp_path / "other", make_host("sftp_only"))
    fill(without.source, {"a": b"1"})
    fill(without.outputs, {"b": b"2"})
    text = told(without)
    assert "no stream to far" in text
    assert "its files go over SFTP" in text


def test_a_large_download_goes_on_in_its_middle(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.outputs, LARGE | {"other": b"1"})

        proxy.cut_after(down=4 << 20)
        with pytest.raises(HostError):
            bench.download()
        done = bench.download()

    assert isinstance(done, Done)
    assert 0 < done.facts["fetched_bytes"] < 6 << 20
    assert contents(bench.destination) == contents(bench.outputs)
    assert bench.leftovers() == []


def fails_while_hashing(bench: Bench) -> None:
    def fails(program: str) -> str:
        assert "    hash) " in program
        return program.replace("    hash) ", "    hash) exit 0; ")

    with pytest.raises(HostFault):
        bench.download(host=HostThrough(bench.host, far=fails))


def stops_while_it_copies_the_beginning(bench: Bench) -> None:
    ctx = bench.context("download")
    arriving = bench.destination.parent / f".mqi-cabcdefghij.download._.{ctx.fence}.part" / "arriving" / "file"
    ctx.stop = lambda: arriving.exists() and arriving.stat().st_size > 0
    assert isinstance(DOWNLOAD.run(bench.case(fingerprint="f"), ctx), Wait)
    assert arriving.stat().st_size == 1 << 20


@pytest.mark.parametrize("fails", [fails_while_hashing, stops_while_it_copies_the_beginning])
def test_a_turn_that_fails_before_it_goes_on_leaves_the_beginning_to_the_next_one(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host], fails: Callable[[Bench], None]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.outputs, LARGE)
        proxy.cut_after(down=5 << 20)
        with pytest.raises(HostError):
            bench.download()
        (begun,) = bench.destination.parent.glob(".mqi-*/arriving/file")
        proven = begun.stat().st_size // (1 << 20) << 20

        fails(bench)
        done = bench.download()

    assert isinstance(done, Done)
    assert done.facts["fetched_bytes"] == (6 << 20) - proven
    assert contents(bench.destination) == contents(bench.outputs)


@pytest.mark.parametrize("change", ["rm -f b", "truncate -s 10 b", "truncate -s 90000 b"])
@pytest.mark.parametrize("earlier", [{}, {"a": b"a" * 50_000}, {"b": b"b" * (1 << 20)}], ids=["all", "get", "rest"])
def test_results_that_vanish_shrink_or_grow_while_they_are_sent_are_noticed_at_once(
    ssh_bench: Bench, change: str, earlier: dict[str, bytes]
) -> None:
    size = 3 << 20 if "b" in earlier else 50_000
    fill(ssh_bench.outputs, {"a": b"a" * 50_000, "b": b"b" * size, "c": b"c" * 50_000})
    left = ssh_bench.destination.parent / ".mqi-cabcdefghij.download._.0-1.part"
    fill(
        left / ("arriving" if "b" in earlier else "results"),
        {each if each == "a" else "file": data for each, data in earlier.items()},
    )
    if "b" in earlier:
        (left / "arriving" / "name").write_text("b")

    def changes(program: str) -> str:
        commands = ("    all) ", "    get)", "    rest) IFS= read -r path; ")
        assert all(each in program for each in commands)
        for each in commands:
            program = program.replace(each, f'{each} ( cd "$place0" && {change.replace("90000", str(2 * size))} );')
        return program

    began = time.monotonic()
    with pytest.raises(RetryLater, match="changed on the host while they were fetched"):
        ssh_bench.download(host=HostThrough(ssh_bench.host, far=changes))
    assert time.monotonic() - began < 20, "not after the time that hashing may take"

    assert isinstance(ssh_bench.download(), Done)
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


def test_a_beginning_that_is_wrong_here_is_fetched_anew(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.outputs, LARGE)
        proxy.cut_after(down=4 << 20)
        with pytest.raises(HostError):
            bench.download()
        (begun,) = bench.destination.parent.glob(".mqi-*/arriving/file")
        with begun.open("r+b") as stream:
            stream.write(b"wrong")

        done = bench.download()

    assert isinstance(done, Done)
    assert done.facts["fetched_bytes"] == 6 << 20
    assert contents(bench.destination) == contents(bench.outputs)


def test_a_host_with_a_passphrase_or_without_the_client_streams_over_its_own_connections(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_host: Callable[..., Host]
) -> None:
    monkeypatch.setattr("mqi_cli.hosts.openssh.shutil.which", lambda name: None)
    bench = Bench(tmp_path / "other", make_host("ssh"))
    fill(bench.source, LARGE)
    fill(bench.outputs, LARGE)

    assert isinstance(bench.upload(), Done)
    assert isinstance(bench.download(), Done)

    assert contents(bench.input) == contents(bench.source)
    assert contents(bench.destination) == contents(bench.outputs)


class Stalled:
    """An upload in a thread of its own, to a far side that takes nothing any more."""

    def __init__(self, bench: Bench, *, asked_to_stop: bool) -> None:
        self._asked_to_stop = asked_to_stop
        self.end: object = None
        self._bench = bench
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        def takes_nothing(program: str) -> str:
            assert "\ntar -x " in program
            return program.replace("\ntar -x ", "\nsleep 20; : ")

        ctx = self._bench.context("upload", host=HostThrough(self._bench.host, far=takes_nothing))
        # one number told three times: it is the watching thread that tells, while the other one waits in a write
        ctx.stop = lambda: self._asked_to_stop and len(ctx.told) > 3 and 0 < ctx.told[-3] == ctx.told[-1]
        try:
            self.end = UPLOAD.run(self._bench.case(), ctx)
        except Exception as error:
            self.end = error

    def wait(self) -> object:
        self._thread.join(15)
        assert not self._thread.is_alive(), "it hangs"
        return self.end


@pytest.mark.parametrize("client", ["the system's", "our own"])
@pytest.mark.parametrize("asked_to_stop", [False, True])
def test_a_far_side_that_stalls_while_small_files_go_up_ends_in_time(
    tmp_path: Path, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, client: str, asked_to_stop: bool
) -> None:
    if client == "our own":
        monkeypatch.setattr("mqi_cli.hosts.openssh.shutil.which", lambda name: None)
    monkeypatch.setattr("mqi_sftp.far_side._SIGN_EVERY", 0.5)
    bench = Bench(tmp_path, make_host("ssh"))
    fill(bench.source, {f"{number:04d}": bytes([number % 256]) * 8000 for number in range(1500)})
    bench.section = SftpSection(verify_timeout="60s" if asked_to_stop else "1s")

    end = Stalled(bench, asked_to_stop=asked_to_stop).wait()

    if asked_to_stop:
        assert isinstance(end, Wait)
    else:
        assert isinstance(end, HostFault)
        assert "says nothing any more" in str(end)


@pytest.mark.parametrize("way", ["up", "down"])
def test_while_this_side_reads_what_it_has_the_far_side_is_not_blamed_for_its_silence(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    files = {str(number): bytes([number]) * 1000 for number in range(4)}
    ssh_bench.section = SftpSection(verify_timeout="1s")
    if way == "up":
        fill(ssh_bench.source, files | {"late": b"x"})
        ssh_bench.case()
        fill(ssh_bench.root / ".incoming-1-1", files)
        for name in files:
            shutil.copystat(ssh_bench.source / name, ssh_bench.root / ".incoming-1-1" / name)
            (ssh_bench.root / ".incoming-1-1" / name).chmod(0o640)
        module = "mqi_sftp.stream_up"
    else:
        fill(ssh_bench.outputs, files | {"late": b"x"})
        landing = ssh_bench.destination.parent / f".mqi-{KEY}.download._.1-1.part"
        fill(landing / "results", files)
        module = "mqi_sftp.fetch"
    slow = importlib.import_module(module).hash_file

    def slowly(*given: Any, **more: Any) -> str:
        time.sleep(0.6)
        hashed: str = slow(*given, **more)
        return hashed

    monkeypatch.setattr(f"{module}.hash_file", slowly)
    ssh_bench._turns = 1

    done = ssh_bench.upload() if way == "up" else ssh_bench.download()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes" if way == "up" else "fetched_bytes"] == 1, "nothing of it was kept"


def test_while_it_copies_what_it_has_the_far_side_may_be_silent_in_proportion(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_sftp.far_side._BATCH", 1 << 20)
    fill(ssh_bench.source, {"large": bytes(5 << 20), "late": b"x"})
    ssh_bench.section = SftpSection(verify_timeout="1s")
    ssh_bench.upload()
    fill(ssh_bench.source, {"late": bytes(16 << 20)})

    def slow(program: str) -> str:
        assert "xargs -0 -r cp -p" in program
        return program.replace('( cd "$base" && xargs -0 -r cp -p', '( sleep 3; cd "$base" && xargs -0 -r cp -p')

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=slow))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 16 << 20


# ---- hostile listings


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"f 644 1 0 ./../out", "names that lead elsewhere"),
        (b"f 644 1 0 /etc/passwd", "names that lead elsewhere"),
        (b"f 644 1 0 ./a/../../out", "names that lead elsewhere"),
        (b"f 644 1 0 ./not-listed/x", "names that lead elsewhere"),
        (b"f 644 1 0 ./link/x", "names that lead elsewhere"),
        (b"f 644 1 0 ./", "names that lead elsewhere"),
        (b"f 644 1 0 ./a//b", "names that lead elsewhere"),
        (b"f 644 1 0 ./a\0b", "control characters"),
        (b"f 644 1 0 ./\xff\xfe", "not UTF-8"),
        (b"l 777 1 0 ./x", "symbolic links"),
        (b"p 644 0 0 ./x", "special files"),
        (b"b 644 0 0 ./x", "special files"),
        (b"garbage", "control characters"),
        (b"f 644 -x 0 ./x", "control characters"),
        (b"f 644 1 0 ./twice", "twice"),
        (b"f 644 1 0 ./" + b"n" * 256, "names of more than 255 bytes"),
        (b"f 644 1 0 ./" + "é".encode() * 128, "names of more than 255 bytes"),
        (b"f 644 1 0 ./" + b"/".join([b"n" * 250] * 17), "paths of more than 4096 bytes"),
        (b"f 644 -5 0 ./x", "sizes below zero"),
        (b"f 644 " + b"9" * 400 + b" 0 ./x", "sizes that no file can have"),
        (b"f " + b"6" * 9000 + b" 1 0 ./x", "control characters"),
    ],
)
def test_a_line_of_a_hostile_listing_is_refused(line: bytes, said: str) -> None:
    listing = Listing()
    listing.add(b"f 644 1 0.5 ./twice")
    listing.add(b"l 777 1 0 ./link")
    listing.add(line)

    tree = listing.tree()

    assert said in " ".join(tree.unfit or {})
    assert [each.path for each in tree.entries] == ["twice"]


def answers(lines: bytes) -> Callable[[str], str]:
    """Make a far side that answers with these bytes whatever it is asked."""
    octal = "".join(f"\\{byte:03o}" for byte in lines)
    return lambda _program: f"printf 'mqi-far 1\\nhash sha256sum -b\\nplaces\\n{octal}'; cat >/dev/null"


@pytest.mark.parametrize(
    "lines",
    [
        b"f 644 5 0 ./../evil\nhashes\nevil!",
        b"d 755 0 0 ./d\nl 777 9 0 ./d/l\nf 644 5 0 ./d/l/x\nhashes\n",
        b"f 644 5 0 /tmp/evil\nhashes\n",
        b"f 644 5 0 ./ok\nhashes\nabcdeNOTAHASH *./ok\nend\n",
        b"f 644 5 0 ./ok\nhashes\nabc",
        b"f 644 99999999999999 0 ./ok\nhashes\nabc",
        b"",
        b"\0" * 100_000,
    ],
)
def test_nothing_that_a_hostile_far_side_says_gets_out_of_the_landing_directory(ssh_bench: Bench, lines: bytes) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})
    ssh_bench.section = SftpSection(verify_timeout="1s")
    before = {each for each in ssh_bench.directory.rglob("*") if ".mqi-" not in str(each)}

    try:
        end: object = ssh_bench.download(host=HostThrough(ssh_bench.host, far=answers(lines)))
    except Exception as error:
        end = error

    assert not isinstance(end, Done)
    after = {each for each in ssh_bench.directory.rglob("*") if ".mqi-" not in str(each)}
    assert after - before <= {ssh_bench.destination.parent}
    assert not ssh_bench.destination.exists()


def test_names_without_end_are_given_up(ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})
    monkeypatch.setattr("mqi_sftp.far_side.MOST_NAMES", 1 << 20)
    lines = "printf 'mqi-far 1\\nhash sha256sum -b\\nplaces\\n'; yes 'f 644 1 0 ./" + "n" * 8000 + "'"

    with pytest.raises(HostFault, match="holds too much"):
        ssh_bench.download(host=HostThrough(ssh_bench.host, far=lambda _program: lines))


GREETING = b"mqi-far 1\nhash sha256sum -b\n"
LISTED = GREETING + b"places\nf 644 5 0 ./ok\nhashes\n12345"


def says(begins: bytes, forever: str) -> Callable[[str], str]:
    """Make a far side that begins with these bytes and then does the same for ever."""
    octal = "".join(f"\\{byte:03o}" for byte in begins)
    return lambda _program: f"printf '{octal}'; {forever}"


@pytest.mark.parametrize(
    ("begins", "line"),
    [
        pytest.param(GREETING, "hash sha256sum -b", id="never a state"),
        pytest.param(LISTED, "0" * 64 + " *./ok", id="the hash of one file"),
        pytest.param(LISTED + b"0" * 64 + b" *./ok\nend\n", "f 644 5 0 ./ok", id="the listing once more"),
    ],
)
def test_a_line_that_is_said_for_ever_is_given_up(ssh_bench: Bench, begins: bytes, line: str) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})

    with pytest.raises((HostFault, RetryLater)):
        ssh_bench.download(host=HostThrough(ssh_bench.host, far=says(begins, f"yes '{line}'")))


def test_a_stop_is_heeded_while_lines_drip_in(ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})
    monkeypatch.setattr("mqi_sftp.far_side._LOOK_EVERY", 0.1)
    drips = 'n=0; while sleep 0.2; do n=$((n+1)); echo "f 644 1 0 ./$n"; done'
    ctx = ssh_bench.context("download", host=HostThrough(ssh_bench.host, far=says(GREETING + b"places\n", drips)))
    ctx.stop = lambda: len(ctx.told) > 4

    assert isinstance(DOWNLOAD.run(ssh_bench.case(fingerprint="f"), ctx), Wait)


def test_an_upload_s_last_word_that_never_comes_is_not_waited_for(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1"})

    def never_done(program: str) -> str:
        assert "\nsay proving\n" in program
        return program.replace("\nsay proving\n", "\nyes proving\n")

    with pytest.raises(HostFault, match="makes no sense"):
        ssh_bench.upload(host=HostThrough(ssh_bench.host, far=never_done))


def test_room_that_is_not_told_is_a_failure_of_the_host(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1"})

    def tells_nothing(program: str) -> str:
        assert "$(stat -f -c '%a %S %c %d' .)" in program
        return program.replace("$(stat -f -c '%a %S %c %d' .)", "")

    with pytest.raises(HostFault, match="does not tell how much room"):
        ssh_bench.upload(host=HostThrough(ssh_bench.host, far=tells_nothing))


def test_a_nested_record_proves_nothing(local_bench: Bench) -> None:
    fill(local_bench.source, {"a": b"1"})
    local_bench.upload()
    (local_bench.root / ".input.json").write_text("[" * 4000)

    assert isinstance(local_bench.upload(), Done)


def test_results_that_can_not_be_listed_are_told(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})

    def fails(program: str) -> str:
        assert "find . -mindepth 1 -printf '%y %m %s %T@ %p\\n' || say broken" in program
        return program.replace(
            "-printf '%y %m %s %T@ %p\\n' || say broken",
            "-printf '%y %m %s %T@ %p\\n'; echo 'find: secret: Permission denied' >&2; say broken",
        )

    with pytest.raises(HostFault, match="listing the files there failed: permission denied") as caught:
        ssh_bench.download(host=HostThrough(ssh_bench.host, far=fails))

    assert "secret" not in caught.value.message


def test_a_listing_without_end_is_given_up(ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ssh_bench.outputs, {"ok": b"12345"})
    monkeypatch.setattr("mqi_sftp.far_side.MOST_ENTRIES", 10_000)
    endless = (
        "printf 'mqi-far 1\\nhash sha256sum -b\\nplaces\\n'; n=0; while :; do n=$((n+1)); echo \"f 644 1 0 ./$n\"; done"
    )

    with pytest.raises(HostFault, match="holds too much"):
        ssh_bench.download(host=HostThrough(ssh_bench.host, far=lambda _program: endless))


def test_a_result_with_a_line_break_in_its_name_is_refused_by_count(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {"ok": b"1", "secret\nf 644 1 0 ./x": b"2"})

    with pytest.raises(
        GiveUp, match=r"names? that (leads? elsewhere|stands? there twice)|names? with control"
    ) as caught:
        ssh_bench.download()

    assert "secret" not in caught.value.message


# ---- pure pieces


def test_tar_reads_what_the_stream_holds(tmp_path: Path) -> None:
    members = {"short": b"1", "d/" + "n" * 200: b"22", "ünï/" + "x/" * 60 + "y": b"333", "empty": b""}
    stream = io.BytesIO()
    for name, data in members.items():
        raw = name.encode()
        stream.write(tar_stream.file_header(raw, size=len(data), mode=0o640, mtime=1_600_000_000))
        stream.write(data + tar_stream.padding(len(data)))
    stream.write(tar_stream.directory_header(b"hollow", mode=0o750, mtime=5) + tar_stream.END)

    subprocess.run(["tar", "-x", "-C", tmp_path, "-f", "-"], input=stream.getvalue(), check=True)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        listed = {each.name: each.size for each in archive if each.isfile()}

    assert listed == {name: len(data) for name, data in members.items()}
    for name, data in members.items():
        assert (tmp_path / name).read_bytes() == data
        assert os.stat(tmp_path / name).st_mtime == 1_600_000_000
    assert (tmp_path / "hollow").is_dir()


def test_a_file_of_nine_gigabytes_has_its_size_in_the_header() -> None:
    header = tar_stream.file_header(b"big", size=9 << 30, mode=0o640, mtime=0)

    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 9 << 30


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (b"tar: a/b: Cannot write: No space left on device", HostFull, "no space left"),
        (b"tar: a/b: Cannot open: Disk quota exceeded", HostFull, "quota"),
        (b"tar: secret: Cannot open: Permission denied", HostFault, "permission denied"),
        (b"mkdir: cannot create directory: Read-only file system", HostFault, "read-only"),
        (b"tar: Unexpected EOF in archive", HostFault, "too early"),
        (b"tar: secret: Cannot open: File name too long", HostFault, "longer than its file system takes"),
        (b"who knows", HostFault, "no reason"),
    ],
)
def test_each_failure_of_the_far_side_has_its_own_sentence(text: bytes, kind: type, said: str) -> None:
    error = read_errors("far", text, doing="sending the results")

    assert type(error) is kind
    assert error.message.startswith("host far: sending the results failed: ")
    assert said in error.message
    assert "secret" not in error.message


def test_the_fingerprint_is_that_of_the_source(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, LARGE | ODD_NAMES)

    done = ssh_bench.upload(case=ssh_bench.case(fingerprint=""))

    assert isinstance(done, Done)
    assert done.facts["fingerprint"] == build_manifest(ssh_bench.source).fingerprint
