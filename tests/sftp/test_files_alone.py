"""What an account costs that takes files and runs no programs: each byte once, over the quickest connection there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mqi_cli import Done, Host, RemoteEntry, Wait
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp.preview import preview_download
from servers.proxy import TcpProxy
from sftp.bench import Bench, FilesThrough, HostThrough, contents, fill


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
