"""Bulk data: over the system's own client with the same trust and the same errors, and many files over one session."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from mqi_cli.config.model import SshHostSection
from mqi_cli.errors import HostError, HostFault, HostRefused, HostUnreachable, NoShell
from mqi_cli.hosts.base import Receiving, Sending
from mqi_cli.hosts.openssh import Unsuitable, client_arguments, read_failure
from mqi_cli.hosts.openssh_process import ClientProcess
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.ssh_command import SshProcess
from mqi_cli.hosts.sshd import OpenSSHServer, make_key
from servers.faulty_sftp import FailsOneWrite, FaultySftpServer, ShortReads
from servers.proxy import TcpProxy

SECTION = SshHostSection(
    type="ssh",
    hostname="hpc.example.org",
    user="mqi",
    key_file=Path("/k/id"),
    base_dir="/scratch",
    known_hosts=Path("/k/known"),
)
MakeHost = Callable[..., SshHost]


def echo(host: SshHost, data: bytes = b"x" * 300_000) -> bytes:
    """Send bytes through a program and back."""
    with host.start(["cat"], bulk=True) as process:
        assert process.bulk
        feeder = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close()))
        feeder.start()
        back = process.stdout.read()
        feeder.join(10)
        assert process.wait(10).code == 0
    return back


def through(proxy: TcpProxy, sshd: OpenSSHServer, tmp_path: Path) -> dict[str, object]:
    """Return what a host's section needs to reach the server through a proxy."""
    kind, key = sshd.host_key_file.with_suffix(".pub").read_text().split()[:2]
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{proxy.port} {kind} {key}\n")
    return {"port": proxy.port, "known_hosts": known}


def test_bytes_pass_the_system_s_client_unchanged(ssh_host: MakeHost) -> None:
    data = os.urandom(3_000_000)

    assert echo(ssh_host(), data) == data


def test_an_unknown_and_a_changed_key_are_refused_before_the_log_in(
    ssh_host: MakeHost, sshd: OpenSSHServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "other")
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    for text, said in (("", "is unknown"), (f"[127.0.0.1]:{sshd.port} {kind} {key}\n", "has changed")):
        (tmp_path / "known").write_text(text)
        before = sshd.log()
        with pytest.raises(HostRefused, match=said):
            echo(ssh_host(known_hosts=tmp_path / "known"))
        assert "publickey" not in sshd.log()[len(before) :]


def test_a_key_that_the_server_does_not_know_is_refused_in_one_try(
    ssh_host: MakeHost, sshd: OpenSSHServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger")
    before = sshd.log().count("Failed publickey")

    with pytest.raises(HostRefused, match="does not let"):
        echo(ssh_host(key_file=tmp_path / "stranger"))

    assert sshd.log().count("Failed publickey") - before <= 1


def test_a_peer_that_falls_silent_is_noticed(ssh_host: MakeHost, sshd: OpenSSHServer, tmp_path: Path) -> None:
    with TcpProxy(sshd.port) as proxy:
        host = ssh_host(idle_timeout="4s", **through(proxy, sshd, tmp_path))
        began = time.monotonic()
        with pytest.raises(HostUnreachable), host.start(["cat"], bulk=True) as process:
            process.stdin.write(b"x")
            proxy.blackhole()
            while time.monotonic() - began < 60:
                process.stdin.write(bytes(1 << 20))
        assert time.monotonic() - began < 60


def test_a_server_that_drops_connections_at_random_is_asked_again(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("MaxStartups 2:80:4",)
    host = ssh_host(own_sshd.start(), limits={"connections": 4})
    ends: list[object] = []

    def work() -> None:
        try:
            ends.append(len(echo(host)))
        except HostError as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)

    assert ends == [300_000] * 3


def test_the_limit_of_connections_holds_and_leaves_one_for_everything_else(ssh_host: MakeHost) -> None:
    host = ssh_host(limits={"connections": 2})
    with host.start(["cat"], bulk=True) as first, host.start(["cat"], bulk=True) as second:
        assert type(first) is not type(second), "the second one takes a channel of the connection that is left"
        assert host.run(["echo", "1"]).text == "1\n"


def test_what_may_be_little_opens_one_way_and_from_the_second_time_on_a_connection_that_stays(
    ssh_host: MakeHost,
) -> None:
    host = ssh_host()
    ways = []
    for _ in range(3):
        with host.start(["true"], bulk=None) as process:
            ways.append(type(process))

    assert ways == [ClientProcess, SshProcess, SshProcess]


def test_a_connection_for_bulk_data_agrees_on_a_quick_key_exchange() -> None:
    arguments = client_arguments("ssh", SECTION, Path("/k/known"))
    offered = subprocess.run([*arguments, "-G", "hpc"], capture_output=True, text=True, check=True).stdout

    (kex,) = [line for line in offered.splitlines() if line.startswith("kexalgorithms ")]
    assert "curve25519-sha256" in kex
    assert "sntrup761" not in kex


@pytest.mark.parametrize("changes", [{"limits": {"connections": 1}}, {"key_passphrase": "secret"}])
def test_where_the_client_can_not_be_used_the_connections_do(ssh_host: MakeHost, changes: dict[str, object]) -> None:
    host = ssh_host(**changes)

    with contextlib.suppress(HostRefused), host.start(["echo", "here"], bulk=True) as process:
        assert process.stdout.read() == b"here\n"
        assert not isinstance(process, ClientProcess)


def test_an_account_without_a_shell_says_so_at_once(sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    host = ssh_host(sshd.sftp_only())

    with pytest.raises(NoShell):
        echo(host)
    with host.files(bulk=True) as files:
        files.write_bytes(host.base_dir / "file", b"1")
        assert files.read_bytes(host.base_dir / "file", limit=10) == b"1"


def test_no_secret_and_no_setting_of_the_account_reaches_the_client() -> None:
    arguments = client_arguments("/usr/bin/ssh", SECTION, Path("/k/known"))

    assert arguments[:3] == ["/usr/bin/ssh", "-F", "none"]
    for option in ("StrictHostKeyChecking=yes", "UserKnownHostsFile=/k/known", "IdentityAgent=none", "BatchMode=yes"):
        assert option in arguments
    for path in ("/k/with space", "/k/%h", '/k/"', "relative"):
        with pytest.raises(Unsuitable):
            client_arguments("/usr/bin/ssh", SECTION, Path(path))
    with pytest.raises(Unsuitable):
        client_arguments("/usr/bin/ssh", SECTION.model_copy(update={"key_passphrase": "x"}), Path("/k/known"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mqi@hpc: Permission denied (publickey).", HostRefused),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", HostRefused),
        ("No ED25519 host key is known for hpc and you have requested strict checking.", HostRefused),
        ("ssh: connect to host hpc port 22: Connection refused", HostUnreachable),
        ("kex_exchange_identification: Connection closed by remote host", HostUnreachable),
        ("Timeout, server hpc not responding.", HostUnreachable),
        ("command-line: line 0: Bad configuration option: requesttty", Unsuitable),
        ("Unable to negotiate with 1.2.3.4 port 22: no matching cipher found.", Unsuitable),
    ],
)
def test_what_the_client_says_becomes_the_same_errors(text: str, kind: type) -> None:
    assert type(read_failure("hpc", SECTION, text)) is kind


# ---- many files over one session


def sending(place: PurePosixPath, files: dict[str, bytes]) -> Iterator[Sending]:
    for name, data in files.items():
        yield Sending(place / name, len(data), lambda data=data: io.BytesIO(data), 0o600, 0o640, 1_600_000_000)  # type: ignore[misc]


def receiving(place: PurePosixPath, sinks: dict[str, io.BytesIO], size: int) -> Iterator[Receiving]:
    for name, sink in sinks.items():
        yield Receiving(place / name, size, lambda sink=sink: contextlib.nullcontext(sink))  # type: ignore[misc]


@pytest.mark.parametrize("bulk", [False, True])
def test_many_files_of_all_sizes_go_and_come_unchanged(ssh_host: MakeHost, bulk: bool) -> None:
    host = ssh_host()
    files = {f"f{number}": os.urandom(number * 7919 % 400_000) for number in range(150)} | {
        "large": os.urandom(9 << 20)
    }

    with host.files(bulk=bulk) as opened:
        done = [each.path.name for each in opened.write_many(host.base_dir, sending(host.base_dir, files))]
        sinks = {name: io.BytesIO() for name in files}
        wanted = [next(iter(receiving(host.base_dir, {name: sinks[name]}, len(files[name])))) for name in files]
        list(opened.read_many(wanted))

    assert sorted(done) == sorted(files)
    assert {name: sink.getvalue() for name, sink in sinks.items()} == files
    found = (Path(host.base_dir) / "f3").stat()
    assert (found.st_mode & 0o7777, found.st_mtime) == (0o640, 1_600_000_000)


def test_many_files_share_a_round_trip(ssh_host: MakeHost, sshd: OpenSSHServer, tmp_path: Path) -> None:
    with TcpProxy(sshd.port) as proxy:
        host = ssh_host(**through(proxy, sshd, tmp_path))
        with host.files() as files:
            proxy.delay(0.03)
            began = time.monotonic()
            for number in range(6):
                files.write(host.base_dir / f"one{number}", io.BytesIO(b"1"))
            alone = (time.monotonic() - began) / 6
            began = time.monotonic()
            list(files.write_many(host.base_dir, sending(host.base_dir, {f"many{n}": b"1" for n in range(120)})))
            many = (time.monotonic() - began) / 120
        proxy.delay(0)

    assert many < alone / 4


def served(fault: object, tmp_path: Path) -> tuple[FaultySftpServer, Callable[[FaultySftpServer], SshHost]]:
    make_key(tmp_path / "key")
    (tmp_path / "base").mkdir()

    def host(server: FaultySftpServer) -> SshHost:
        section = SshHostSection(
            type="ssh", hostname="127.0.0.1", port=server.port, user="x", key_file=tmp_path / "key", base_dir=str(tmp_path / "base")
        )  # fmt: skip
        opened = SshHost("faulty", section, tmp_path)
        opened.pin(opened.offered_key())
        return opened

    return FaultySftpServer(fault), host  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0, 320 * 1024, 1024 * 1024 - 1])
def test_one_write_that_fails_among_many_files_is_an_error(tmp_path: Path, at: int) -> None:
    server, host_of = served(FailsOneWrite(at), tmp_path)
    with server, contextlib.closing(host_of(server)) as host, host.files() as files:
        wanted = {"a": b"1", "b": os.urandom(1 << 20), "c": b"2"}
        with pytest.raises(HostFault, match="writing a file failed"):
            list(files.write_many(host.base_dir, sending(host.base_dir, wanted)))
        assert len(list(files.write_many(host.base_dir, sending(host.base_dir, wanted)))) == 3, "the session goes on"
        assert (tmp_path / "base" / "b").read_bytes() == wanted["b"]


def test_short_answers_are_asked_for_again_and_an_early_end_is_an_error(tmp_path: Path) -> None:
    server, host_of = served(ShortReads(), tmp_path)
    with server, contextlib.closing(host_of(server)) as host, host.files() as files:
        data = os.urandom(200_000)
        (tmp_path / "base" / "a").write_bytes(data)
        sinks = {"a": io.BytesIO()}
        list(files.read_many(receiving(host.base_dir, sinks, len(data))))
        assert sinks["a"].getvalue() == data
        with pytest.raises(HostFault, match="too early"):
            list(files.read_many(receiving(host.base_dir, {"a": io.BytesIO()}, len(data) + 1)))
