"""The hosts under test: this machine, and a real OpenSSH server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.base import Files, Host
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.proxy import TcpProxy


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.sshd)])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """One host of each kind, its base directory empty and its own."""
    base = tmp_path / "base"
    base.mkdir()
    chosen: Host
    if request.param == "local":
        chosen = LocalHost("here", LocalHostSection(type="local", base_dir=str(base)), tmp_path)
    else:
        server: OpenSSHServer = request.getfixturevalue("sshd")
        chosen = SshHost("hpc", server.host_section(base_dir=str(base)), tmp_path)
    yield chosen
    chosen.close()


@pytest.fixture
def place(host: Host) -> PurePosixPath:
    """The host's base directory."""
    return host.base_dir


@pytest.fixture
def files(host: Host) -> Iterator[Files]:
    """A file channel of the host."""
    with host.files() as opened:
        yield opened


@pytest.fixture
def ssh_host(sshd: OpenSSHServer, tmp_path: Path) -> Iterator[Callable[..., SshHost]]:
    """Make hosts that reach the shared server; keyword arguments change their section. Closed at the end."""
    made: list[SshHost] = []

    def make(server: OpenSSHServer = sshd, **changes: Any) -> SshHost:
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        made.append(SshHost("hpc", server.host_section(**({"base_dir": str(base)} | changes)), tmp_path))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def proxy(sshd: OpenSSHServer) -> Iterator[TcpProxy]:
    """Give a proxy before the shared server."""
    with TcpProxy(sshd.port) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 5
    while time.monotonic() < until:
        left = [each.name for each in threading.enumerate() if each not in before]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"threads are left: {left}")
