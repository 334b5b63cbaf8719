"""What an account costs that takes files and runs no programs: each byte once, over the quickest connection there is."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mqi_cli import Done, Host, Manifest, ManifestFile, RemoteEntry, Wait
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Fence, Mark
from mqi_sftp.preview import preview_download
from mqi_sftp.staging import Staging
from mqi_sftp.tree import Tree, walk, walk_sum
from mqi_sftp.upload import prove
from servers.proxy import TcpProxy
from sftp.bench import Bench, FilesThrough, HostThrough, contents, fill, peak_of, remove


@pytest.fixture
def far(tmp_path: Path, sftp_server: OpenSSHServer, make_host: Callable[..., Host]) -> Iterator[tuple[Bench, TcpProxy]]:
    """A case and its host without a shell, reached through a proxy that counts."""
    with TcpProxy(sftp_server.port) as proxy:
        yield Bench(tmp_path, make_host("sftp_only", port=proxy.port)), proxy


def test_a_download_reads_every_byte_once(far: tuple[Bench, TcpProxy]) -> None:
    bench, proxy = far
    fill(bench.outputs, {f"{number}.raw": os.urandom(1 << 20) for number in range(6)})

    assert isinstance(bench.download(), Done)

    assert proxy.down < 1.2 * (6 << 20)
    assert contents(bench.destination) == contents(bench.outputs)


class SaysBulk(HostThrough):
    """Notes for each session whether it was opened for many bytes."""

    def __init__(self, inner: Host) -> None:
        super().__init__(inner)
        self.bulk: list[bool] = []

    def files(self, *, bulk: bool = False) -> Any:
        self.bulk.append(bulk)
        return super().files(bulk=bulk)


@pytest.mark.parametrize(("size", "wanted"), [(5 << 20, True), (1000, False)])
def test_many_bytes_go_over_the_systems_own_client_and_few_do_not(
    far: tuple[Bench, TcpProxy], size: int, wanted: bool
) -> None:
    bench, _ = far
    data = os.urandom(size)
    fill(bench.source, {"a.raw": data})
    fill(bench.outputs, {"a.raw": data})

    for move in (bench.upload, bench.upload, bench.download):
        host = SaysBulk(bench.host)
        assert isinstance(move(host=host), Done)
        assert (True in host.bulk) is wanted

    assert contents(bench.input) == contents(bench.source)
    assert contents(bench.destination) == contents(bench.outputs)


class ClaimsALot(FilesThrough):
    """A server that says of each file that it has a petabyte, and has as many to give."""

    def listing(self, path: PurePosixPath) -> Iterator[RemoteEntry]:
        for each in self.inner.listing(path):
            yield each if each.is_dir else RemoteEntry(each.name, each.mode, 10**15, each.mtime)

    def read_many(self, files: Sequence[Any], **more: Any) -> Iterator[Any]:
        raise AssertionError("nothing of it must be read")


def test_a_file_that_has_no_room_here_is_not_read_at_all(far: tuple[Bench, TcpProxy]) -> None:
    bench, _ = far
    fill(bench.outputs, {"a.raw": b"1"})
    host = HostThrough(bench.host, ClaimsALot)

    (would,) = preview_download(bench.case(fingerprint="f"), bench.context("download", host=host))
    waiting = bench.download(host=host)

    assert would.act == "fetch"
    assert isinstance(waiting, Wait)
    assert "too little room" in waiting.note


def test_a_file_that_arrived_with_another_size_is_not_read_back(far: tuple[Bench, TcpProxy]) -> None:
    bench, _ = far
    fill(bench.source, {"a.raw": b"1"})

    with pytest.raises(Exception, match="sent 3 times, of 1 files: 1 differ"):
        bench.upload(host=HostThrough(bench.host, ClaimsALot))


def test_a_hundred_directories_take_hardly_more_round_trips_than_one(
    tmp_path: Path, sftp_server: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    with TcpProxy(sftp_server.port) as proxy:
        took = []
        for name, count in (("few", 1), ("many", 100)):
            (tmp_path / name).mkdir()
            bench = Bench(tmp_path / name, make_host("sftp_only", port=proxy.port))
            fill(bench.source, {"a": b"1"}, empty=[f"{number:03d}" for number in range(count)])
            fill(bench.outputs, {"a": b"1"}, empty=[f"{number:03d}" for number in range(count)])
            with bench.host.files():
                pass  # connected
            proxy.delay(0.01)
            began = time.monotonic()
            assert isinstance(bench.upload(), Done)
            assert isinstance(bench.download(), Done)
            took.append(time.monotonic() - began)
            proxy.delay(0)
            assert contents(bench.input) == contents(bench.source)
            assert contents(bench.destination) == contents(bench.outputs)
            remove(bench.root)

    assert took[1] < 3 * took[0]


class Lists:
    """A host's files that list what they are told to."""

    def __init__(self, *items: RemoteEntry) -> None:
        self.items = items

    def list_many(self, paths: Sequence[PurePosixPath], **more: Any) -> Iterator[tuple[PurePosixPath, Any]]:
        for path in paths:
            yield path, self.items if path == PurePosixPath("/x") else ()


def listed(*items: RemoteEntry) -> Tree:
    return walk(Lists(*items), PurePosixPath("/x"))  # type: ignore[arg-type]


def test_a_name_that_a_server_lists_twice_is_refused() -> None:
    tree = listed(RemoteEntry("d", 0o040755, 0, 0), RemoteEntry("d", 0o040755, 0, 0))

    assert tree.describe_unfit() == "1 name that stands there twice"


def test_of_what_can_not_be_moved_all_is_counted_and_not_all_is_kept() -> None:
    tree = listed(*(RemoteEntry(str(number), 0o120777, 0, 0) for number in range(5000)))

    assert tree.describe_unfit() == "5000 symbolic links"
    assert len(tree.unfit_paths) == 1000


def test_paths_beyond_what_is_believed_end_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqi_sftp.tree.MAX_CHARACTERS", 1 << 20)

    tree = listed(*(RemoteEntry(f"{number:0200d}", 0o100644, 0, 0) for number in range(10_000)))

    assert len(tree.entries) < 5300
    assert "paths beyond 1 MiB" in tree.describe_unfit()


class Many:
    """A host's files of which there are twenty thousand, listed one by one."""

    count = 20_000
    copies = True

    def stat(self, path: PurePosixPath) -> RemoteEntry:
        return RemoteEntry(path.name, 0o40750, 0, 0)

    def list_many(self, paths: Sequence[PurePosixPath], **more: Any) -> Iterator[tuple[PurePosixPath, Any]]:
        for path in paths:
            yield path, (RemoteEntry(f"n{number:06d}", 0o100640, 1000, number) for number in range(self.count))


def test_proving_many_files_keeps_no_list_of_them(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(tuple(ManifestFile(f"n{number:06d}", 1000, f"{number:064d}") for number in range(Many.count)))
    ctx = local_bench.context("upload")
    staging = Staging(Many(), ctx.layout, Fence(1, 1))  # type: ignore[arg-type]
    monkeypatch.setattr(
        "mqi_sftp.upload.hashed", lambda _host, _files, _place, likely, **_: ((each, each.sha256) for each in likely)
    )

    assert peak_of(lambda: prove(ctx, staging, manifest, Meter(None))) < 40 * Many.count


def test_looking_into_an_earlier_revision_of_many_files_keeps_no_list_of_them(local_bench: Bench) -> None:
    manifest = Manifest(tuple(ManifestFile(f"n{number:06d}", 1000, f"{number:064d}") for number in range(Many.count)))
    marks = {each.path: Mark(number, 0o640 + number % 2) for number, each in enumerate(manifest.files)}
    staging = Staging(Many(), local_bench.context("upload").layout, Fence(1, 1))  # type: ignore[arg-type]
    found: list[Any] = []

    peak = peak_of(lambda: found.append(staging.earlier(manifest, marks)[1]))

    assert [found[0][at] for at in range(6)] == [True, False] * 3
    assert peak < 10 * Many.count


def test_looking_again_whether_many_files_changed_keeps_no_list_of_them() -> None:
    files: Any = Many()
    tree = walk(files, PurePosixPath("/x"))
    found = []

    peak = peak_of(lambda: found.append(walk_sum(files, PurePosixPath("/x"), "")))

    assert found == [tree.sum]
    assert peak < 20 * Many.count


@pytest.mark.parametrize("host", ["local", "sftp_only"], indirect=True)
def test_a_disk_here_that_takes_no_more_notes_is_waited_for_and_not_the_host_s_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bench.outputs, {"large.raw": bytes(5 << 20)})

    def full(*_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mqi_sftp.received.Received.note", full)
        waiting = bench.download()

    assert isinstance(waiting, Wait)
    assert waiting.note == "the disk for the results is full"
    assert isinstance(bench.download(), Done)
