"""Hosts of every kind to move files to: this machine, an SSH account with a shell, one without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mqi_cli import Host
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from sftp.bench import Bench

KINDS = ("local", "ssh", "sftp_only")


@pytest.fixture
def make_host(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Host]]:
    """Give a function that opens a host of a kind, closed at the end. Its base directory is the test's own."""
    opened: list[Host] = []
    state = tmp_path_factory.mktemp("state")

    def make(kind: str, *, port: int | None = None, server: OpenSSHServer | None = None, **more: object) -> Host:
        base = tmp_path / "far"
        base.mkdir(exist_ok=True)
        host: Host
        if kind == "local":
            host = LocalHost("far", LocalHostSection(type="local", base_dir=str(base)), tmp_path)
        else:
            server = server or request.getfixturevalue("sshd" if kind == "ssh" else "sftp_server")
            assert server is not None
            changes: dict[str, object] = {"base_dir": str(base), "idle_timeout": 10.0, **more}
            if port is not None:
                known = tmp_path / "known_hosts"
                kind_, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
                known.write_text(f"[127.0.0.1]:{port} {kind_} {key}\n")
                changes |= {"port": port, "known_hosts": known}
            host = SshHost("far", server.host_section(**changes), state)
        opened.append(host)
        return host

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def sftp_server(sshd: OpenSSHServer) -> OpenSSHServer:
    """A server whose accounts take files and run no programs; ends with `sshd`."""
    return sshd.sftp_only()


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest, make_host: Callable[..., Host]) -> Host:
    """A host of each kind in turn."""
    return make_host(request.param)


@pytest.fixture
def bench(tmp_path: Path, host: Host) -> Bench:
    """A case on its way to and from a host of each kind."""
    return Bench(tmp_path, host)


@pytest.fixture
def ssh_bench(tmp_path: Path, make_host: Callable[..., Host]) -> Bench:
    """A case on its way to and from an SSH account with a shell."""
    return Bench(tmp_path, make_host("ssh"))


@pytest.fixture
def local_bench(tmp_path: Path, make_host: Callable[..., Host]) -> Bench:
    """A case on its way to and from a directory of this machine."""
    return Bench(tmp_path, make_host("local"))
