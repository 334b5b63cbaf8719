"""The helper in each shell that this machine has, and runs on a host of each kind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exec.far_side import SHELLS, FarSide, QuickSide, shell_path
from exec.turns import Bench
from mqi_cli import Host
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.slurm import SlurmCluster
from servers.sshd import require_sshd

SLOWER = {"bash": pytest.mark.soak}  # what dash and busybox pass, bash has always passed


@pytest.fixture(params=[pytest.param(each, marks=SLOWER.get(each, ())) for each in (*SHELLS, "resident")])
def far_side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FarSide]:
    """The helper in each shell in turn, and the quick way beside it. dash or bash is everywhere; the others are tested
    where they are installed.
    """
    if request.param == "resident":
        quick = QuickSide(tmp_path, os.environ["PATH"])
        yield quick
        quick.kill_all()
        return
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    side = FarSide(tmp_path, shell_path(request.param, tmp_path / "bin"))
    yield side
    side.kill_all()


@pytest.fixture
def one_side(tmp_path: Path) -> Iterator[FarSide]:
    """The helper in the machine's own sh."""
    side = FarSide(tmp_path, "/usr/local/bin:/usr/bin:/bin")
    yield side
    side.kill_all()


@pytest.fixture
def open_host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Host]]:
    """Give a function that opens a host of a kind, or on a port; closed at the end."""
    opened: list[Host] = []

    def make(kind: str, *, port: int | None = None, server: OpenSSHServer | None = None) -> Host:
        base = tmp_path / "far"
        base.mkdir(exist_ok=True)
        host: Host
        if kind == "local":
            host = LocalHost("far", LocalHostSection(type="local", base_dir=str(base)), tmp_path)
        else:
            from mqi_cli.hosts.ssh import SshHost

            server = server or request.getfixturevalue("sshd")
            changes: dict[str, object] = {"base_dir": str(base), "idle_timeout": 10.0}
            if port is not None:
                known = tmp_path / "known_hosts"
                name, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
                known.write_text(f"[127.0.0.1]:{port} {name} {key}\n")
                changes |= {"port": port, "known_hosts": known}
            host = SshHost("far", server.host_section(**changes), tmp_path)
        opened.append(host)
        return host

    yield make
    for each in opened:
        each.close()


@pytest.fixture(params=["local", "ssh"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, open_host: Callable[..., Host]) -> Iterator[Bench]:
    """A case on a host of each kind in turn."""
    made = Bench(tmp_path, open_host(request.param))
    yield made
    made.end_all()


@pytest.fixture
def local_bench(tmp_path: Path, open_host: Callable[..., Host]) -> Iterator[Bench]:
    """A case on this machine."""
    made = Bench(tmp_path, open_host("local"))
    yield made
    made.end_all()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no submission wait for the end of its run: in these tests all of them take long."""
    monkeypatch.setattr("mqi_ssh_exec.run.AT_ONCE", 0)


@pytest.fixture(scope="session")
def login_node(_slurm_cluster: SlurmCluster) -> Iterator[OpenSSHServer]:
    """An SSH server on which Slurm's commands work."""
    require_sshd()
    directory = Path(tempfile.mkdtemp(prefix="mqi-login-"))
    server = OpenSSHServer(directory, environment=_slurm_cluster.environment)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
