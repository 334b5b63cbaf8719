"""A far side that falls silent in the middle of a transfer, and one that lies about a write: noticed, and never a done."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path

import pytest

from hosts.test_sftp_faults import served
from mqi_cli import Done, HostFault, HostUnreachable
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.faulty_sftp import FailsOneWrite
from servers.proxy import TcpProxy
from sftp.bench import DOWNLOAD, UPLOAD, Bench, contents, fill

IDLE = 3.0  # seconds
SLACK = 40.0  # for a loaded machine; by default silence is noticed after 60 s


def large(seed: int) -> dict[str, bytes]:
    return {f"{number}": random.Random(seed + number).randbytes(2 << 20) for number in range(12)}


@pytest.mark.parametrize(
    ("kind", "way", "files"),
    [
        ("ssh", "up", large(1)),
        ("ssh", "down", large(2)),
        ("sftp_only", "up", large(3)),
        ("sftp_only", "down", large(4)),
        pytest.param("ssh", "up", {"small": b"1" * 1000}, marks=pytest.mark.soak),
    ],
    ids=["a stream up", "a stream down", "files up", "files down", "a small case up"],
)
def test_a_far_side_that_falls_silent_in_the_middle_is_noticed_and_the_transfer_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest, sshd: OpenSSHServer, kind: str, way: str, files: dict[str, bytes]
) -> None:
    server: OpenSSHServer = request.getfixturevalue("sshd" if kind == "ssh" else "sftp_server")
    with TcpProxy(server.port) as proxy:
        known = tmp_path / "known_hosts"
        name, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{proxy.port} {name} {key}\n")
        (tmp_path / "far").mkdir()
        changes = {"port": proxy.port, "known_hosts": known, "base_dir": str(tmp_path / "far"), "idle_timeout": IDLE}
        host = SshHost("far", server.host_section(**changes), tmp_path)
        bench = Bench(tmp_path, host)
        fill(bench.source if way == "up" else bench.outputs, files)
        stage, move = (UPLOAD, bench.upload) if way == "up" else (DOWNLOAD, bench.download)
        threads = threading.active_count()

        ctx = bench.context("upload" if way == "up" else "download")
        half = sum(map(len, files.values())) / 2
        ctx.on_progress = lambda done: proxy.blackhole() if done >= half or len(files) == 1 else None
        began = time.monotonic()
        with pytest.raises(HostUnreachable):
            stage.run(bench.case(fingerprint=None if way == "up" else "f"), ctx)
        assert time.monotonic() - began < IDLE + SLACK
        assert not (bench.input if way == "up" else bench.destination).exists()

        proxy.heal()
        done = None
        for _ in range(3):  # a connection that the proxy has just reset may still be tried
            with contextlib.suppress(HostUnreachable):
                done = move()
                break
        assert isinstance(done, Done)
        host.close()
        until = time.monotonic() + SLACK
        while threading.active_count() > threads:
            assert time.monotonic() < until, [each.name for each in threading.enumerate()]
            time.sleep(0.05)
    arrived, left = (bench.input, bench.source) if way == "up" else (bench.destination, bench.outputs)
    assert contents(arrived) == contents(left)


def test_an_upload_to_a_server_that_fails_one_write_in_the_middle_is_never_done_and_then_whole(tmp_path: Path) -> None:
    fault = FailsOneWrite(320 * 1024)
    with served(fault, tmp_path) as host:
        bench = Bench(tmp_path, host)
        fill(bench.source, {"a": random.Random(9).randbytes(1 << 20), "b": b"2"})
        with pytest.raises(HostFault, match="writing a file failed"):
            bench.upload()
        assert fault.failed == 1 and not bench.input.exists()
        assert isinstance(bench.upload(), Done)
        assert contents(bench.input) == contents(bench.source)
        assert bench.leftovers() == []
