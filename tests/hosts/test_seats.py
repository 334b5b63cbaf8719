"""Connections to one host are counted over all processes of this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqi_cli.config.model import HostLimits
from mqi_cli.hosts.openssh_process import ClientProcess
from mqi_cli.hosts.seats import Seats
from mqi_cli.hosts.ssh import SshHost
from servers.house import wait_for
from servers.proxy import TcpProxy

MakeHost = Callable[..., SshHost]

HOLD = """
import sys, time
from pathlib import Path
from mqi_cli.hosts.seats import Seats
seat = Seats(Path(sys.argv[1]), 2).take()
print(seat is not None, flush=True)
time.sleep(60)
"""


def test_seats_are_shared_by_processes_and_come_back_when_one_is_killed(tmp_path: Path) -> None:
    here = Seats(tmp_path / "connections" / "hpc", 2)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "connections" / "hpc")], stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        mine = here.take()
        assert mine is not None
        assert here.take() is None
        other.kill()
        other.wait()

    second = here.take()
    assert second is not None
    assert here.take() is None
    mine.free()
    mine.free()
    third = here.take()
    assert third is not None
    assert here.take() is None, "the second is still held"
    for each in (second, third):
        each.free()


def test_where_seats_cannot_be_counted_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seats = Seats(tmp_path / "file" / "hpc", 1)
    assert all(seats.take() is not None for _ in range(3))


def crowd(host: SshHost) -> None:
    with ThreadPoolExecutor(6) as threads:
        assert [done.code for done in threads.map(lambda _: host.run(["sleep", "0.05"]), range(24))] == [0] * 24


@pytest.fixture
def counted(ssh_host: MakeHost, tmp_path: Path, proxy: TcpProxy) -> Callable[..., SshHost]:
    """Make hosts as several processes have them, whose connections the proxy counts."""

    def make(limit: int) -> SshHost:
        host = ssh_host(port=proxy.port, known_hosts=tmp_path / "known", limits=HostLimits(connections=limit))
        if host.pinned_key() is None:
            host.pin(host.offered_key())
            proxy.connections = 0
        return host

    return make


def test_several_processes_keep_to_the_limit_together(counted: Callable[..., SshHost], proxy: TcpProxy) -> None:
    hosts = [counted(3) for _ in range(3)]
    for each in hosts:
        assert each.run(["true"]).code == 0

    together = [threading.Thread(target=crowd, args=(each,)) for each in hosts]
    for each in together:
        each.start()
    for each in together:
        each.join(60)

    assert proxy.connections == 3


def test_a_process_that_finds_all_taken_opens_one_connection_and_no_second(
    counted: Callable[..., SshHost], proxy: TcpProxy
) -> None:
    first, late = counted(2), counted(2)
    crowd(first)
    assert proxy.connections == 2

    crowd(late)
    with late.start(["cat"], bulk=True) as process:
        assert not isinstance(process, ClientProcess), "bulk data finds no seat for a connection of its own"
    assert proxy.connections == 3

    first.close()
    crowd(late)
    assert proxy.connections == 4, "the seats are free again"


def test_a_connection_that_nobody_uses_beside_another_is_ended(
    counted: Callable[..., SshHost], proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_cli.hosts.ssh_pool._UNUSED", 0.3)
    first, late = counted(3), counted(3)
    crowd(first)
    assert proxy.connections == 3

    time.sleep(1)
    crowd(late)
    assert proxy.connections == 5, "two of the first's three were given back"
    assert first.run(["true"]).code == 0
    assert proxy.connections == 5, "the first keeps one"


def test_a_connection_that_broke_gives_its_seat_back(counted: Callable[..., SshHost], proxy: TcpProxy) -> None:
    host, other = counted(1), counted(1)
    assert host.run(["true"]).code == 0
    proxy.reset()
    wait_for(lambda: not host._pool.warm, "the loss to be noticed")

    assert Seats(host._pool._seats._place, 1).take() is not None
    with contextlib.ExitStack() as held:
        for each in (host, other):
            held.enter_context(each.files())
    assert proxy.connections == 3
