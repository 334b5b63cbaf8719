"""What happens when the line or the server fails: an error of the right kind in good time, and then it works again."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqi_cli.config.model import HostLimits, LocalHostSection
from mqi_cli.errors import HostFault, HostFull, HostUnreachable
from mqi_cli.hosts.base import Host, Receiving
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.ssh_login import connect
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.proxy import TcpProxy

pytestmark = pytest.mark.sshd
MakeHost = Callable[..., SshHost]
IDLE = 1.0  # seconds of silence until a connection is given up, in these tests
LOG_IN = 2.0  # seconds for each part of a log-in
SLACK = 4.0


@pytest.fixture
def host(proxy: TcpProxy, ssh_host: MakeHost, tmp_path: Path) -> SshHost:
    """A host behind the proxy, quick to lose patience."""
    made = ssh_host(port=proxy.port, known_hosts=tmp_path / "known", idle_timeout=IDLE, connect_timeout=LOG_IN)
    made.pin(made.offered_key())
    return made


def write(host: Host, size: int = 8_000_000) -> bytes:
    data = os.urandom(size)
    with host.files() as files:
        files.write(host.base_dir / "file", io.BytesIO(data))
    return data


def read(host: Host) -> bytes:
    sink = io.BytesIO()
    with host.files() as files:
        files.read(host.base_dir / "file", sink)
    return sink.getvalue()


# -- the connection breaks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [10_000, 100_000, 1_000_000, 7_900_000])
def test_a_connection_that_is_cut_while_writing_is_an_error_and_then_it_works(
    host: SshHost, proxy: TcpProxy, after: int
) -> None:
    assert host.run(["true"]).code == 0
    proxy.cut_after(up=after)
    with pytest.raises(HostUnreachable):
        write(host)
    assert write(host) == Path(host.base_dir / "file").read_bytes()


@pytest.mark.parametrize("after", [10_000, 100_000, 1_000_000, 7_900_000])
def test_a_connection_that_is_cut_while_reading_is_an_error_and_then_it_works(
    host: SshHost, proxy: TcpProxy, after: int
) -> None:
    data = write(host)
    proxy.cut_after(down=after)
    with pytest.raises(HostUnreachable):
        read(host)
    assert read(host) == data


@pytest.mark.parametrize("after", [0, 1, 30])
def test_a_connection_that_breaks_before_anything_was_asked_is_replaced_unseen(
    host: SshHost, proxy: TcpProxy, after: int
) -> None:
    assert host.run(["true"]).code == 0
    proxy.cut_after(up=after)
    assert write(host) == Path(host.base_dir / "file").read_bytes()


def test_a_connection_that_is_cut_under_a_command_leaves_its_end_unknown(host: SshHost, proxy: TcpProxy) -> None:
    host.run(["true"])
    proxy.cut_after(down=200_000)
    with pytest.raises(HostUnreachable):
        host.run(["sh", "-c", "head -c 1000000 /dev/zero"])
    assert host.run(["sh", "-c", "head -c 1000000 /dev/zero"]).stdout == bytes(1_000_000)


def test_output_that_is_cut_after_the_exit_code_came_is_an_error_too(host: SshHost, proxy: TcpProxy) -> None:
    host.run(["true"])
    proxy.cut_after(down=400_000)
    with pytest.raises(HostUnreachable):
        host.run(["sh", "-c", "(sleep 0.3; head -c 1000000 /dev/zero) & exit 0"])


def test_a_word_on_a_channel_that_the_server_closed_does_not_end_the_connection(sshd: OpenSSHServer) -> None:
    connection = connect("hpc", sshd.host_section(), sshd.known_hosts)
    try:
        channel = connection.open_channel()
        connection.ask(lambda opened: opened.run_program("true"), channel)
        until = time.monotonic() + 5
        while not channel.ended and time.monotonic() < until:
            time.sleep(0.005)
        channel.hang_up()
        channel.end_input()
        other = connection.open_channel()
        connection.ask(lambda opened: opened.run_program("true"), other)
        assert other.wait_exit(5)
        assert (other.exit_code, connection.alive) == (0, True)
        channel.close()
        other.close()
        assert connection.alive
    finally:
        connection.close()


@pytest.mark.parametrize("after", range(0, 400, 40))
def test_a_program_whose_start_stayed_unanswered_is_not_started_again(
    host: SshHost, proxy: TcpProxy, after: int
) -> None:
    ledger = Path(host.base_dir / "ledger")
    host.run(["true"])
    proxy.cut_after(down=after)
    with contextlib.suppress(HostUnreachable):
        host.run(["sh", "-c", f"echo started >>'{ledger}'"])
    proxy.heal()
    host.run(["sleep", "0.1"])
    assert not ledger.exists() or ledger.read_text() == "started\n"


def test_a_file_session_that_the_server_ended_is_replaced_unseen(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("ChannelTimeout session:*=1", "LogLevel DEBUG1")
    try:
        own_sshd.start()
    except HostFault:
        pytest.skip("this OpenSSH is older than 9.2 and ends no idle sessions")
    host = ssh_host(own_sshd)
    write(host, 10)
    until = time.monotonic() + 10
    while "seconds of inactivity" not in own_sshd.log():
        assert time.monotonic() < until, own_sshd.log()[-1000:]
        time.sleep(0.05)
    write(host, 10)


@pytest.mark.parametrize("limit", ["RekeyLimit 1M", "LoginGraceTime 60"])
def test_keys_are_changed_under_way_without_a_hitch(
    own_sshd: OpenSSHServer, ssh_host: MakeHost, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_sshd.lines = (limit,)
    if "Rekey" not in limit:
        monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 1_000_000)  # ours asks instead of the server
    host = ssh_host(own_sshd.start())
    with ThreadPoolExecutor(3) as threads:
        programs = [threads.submit(host.run, ["head", "-c", "500000", "/dev/zero"]) for _ in range(10)]
        data = write(host, 12_000_000)
        assert read(host) == data
        assert {len(each.result().stdout) for each in programs} == {500_000}


def test_a_stream_that_is_cut_does_not_pass_for_a_whole_one(host: SshHost, proxy: TcpProxy) -> None:
    host.run(["true"])
    proxy.cut_after(down=200_000)
    with pytest.raises(HostUnreachable), host.start(["head", "-c", "1000000", "/dev/zero"]) as process:
        process.stdout.read()


def test_connections_that_ended_while_nobody_used_them_are_replaced_unseen(host: SshHost, proxy: TcpProxy) -> None:
    write(host)
    for _ in range(3):
        proxy.reset()
        assert host.run(["true"]).code == 0
        proxy.reset()
        write(host, 1000)


def test_a_server_that_was_started_again_is_used_again(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.start()
    host = ssh_host(own_sshd)
    assert host.run(["true"]).code == 0
    own_sshd.kill()
    with pytest.raises(HostUnreachable):
        host.run(["true"])
    own_sshd.restart()
    assert host.run(["true"]).code == 0


def test_a_session_that_is_killed_under_a_command_leaves_its_end_unknown(
    own_sshd: OpenSSHServer, ssh_host: MakeHost
) -> None:
    own_sshd.start()
    host = ssh_host(own_sshd)
    killer = threading.Timer(0.5, own_sshd.drop_connections)
    host.run(["true"])
    killer.start()
    with pytest.raises(HostUnreachable):
        host.run(["sleep", "3"])
    killer.join()
    assert host.run(["true"]).code == 0


# -- the far side falls silent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [write, read, lambda host: host.run(["sleep", "30"], timeout=60)])
def test_a_far_side_that_fell_silent_is_noticed_in_time(
    host: SshHost, proxy: TcpProxy, act: Callable[[SshHost], object]
) -> None:
    write(host, 30_000_000)
    silence = threading.Timer(0.02, proxy.blackhole)
    silence.start()
    began = time.monotonic()
    with pytest.raises(HostUnreachable):
        while True:
            act(host)
            began = time.monotonic()
    assert time.monotonic() - began < IDLE + SLACK
    silence.join()
    proxy.heal()
    assert host.run(["true"]).code == 0


def test_silence_while_connecting_ends_in_time(host: SshHost, proxy: TcpProxy) -> None:
    proxy.blackhole()
    began = time.monotonic()
    with pytest.raises(HostUnreachable):
        host.run(["true"])
    assert time.monotonic() - began < LOG_IN + SLACK


@pytest.mark.parametrize("after", [60, 900, 1500, 2500, 3200])
def test_silence_at_any_point_of_the_log_in_ends_in_time(host: SshHost, proxy: TcpProxy, after: int) -> None:
    def silence() -> None:
        while proxy.up - before < after and not over.is_set():
            time.sleep(0.0005)
        proxy.blackhole()

    before, over = proxy.up, threading.Event()
    watch = threading.Thread(target=silence)
    watch.start()
    began = time.monotonic()
    with pytest.raises(HostUnreachable):
        while True:
            host.run(["true"])
    took = time.monotonic() - began
    over.set()
    watch.join()
    assert took < LOG_IN + IDLE + SLACK


def test_a_command_may_be_silent_for_longer_than_a_connection(host: SshHost) -> None:
    assert host.run(["sh", "-c", f"sleep {IDLE * 2.5}; echo done"], timeout=30).stdout == b"done\n"


def test_a_slow_line_is_no_silent_one(host: SshHost, proxy: TcpProxy) -> None:
    proxy.delay(0.03)
    assert host.run(["echo", "slow"]).stdout == b"slow\n"
    data = write(host, 300_000)
    assert read(host) == data


def test_a_server_that_hangs_up_at_once_is_out_of_reach(host: SshHost, proxy: TcpProxy) -> None:
    proxy.refuse()
    with pytest.raises(HostUnreachable, match="hung up before its greeting"):
        host.run(["true"])
    proxy.heal()
    assert host.run(["true"]).code == 0


# -- the server's limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_server_that_allows_few_sessions_slows_us_down_and_breaks_nothing(
    own_sshd: OpenSSHServer, ssh_host: MakeHost, sessions: int
) -> None:
    own_sshd.lines = (f"MaxSessions {sessions}",)
    own_sshd.start()
    host = ssh_host(own_sshd)

    def work(number: int) -> bool:
        with host.files() as files:
            files.write_bytes(host.base_dir / f"{number}", b"x" * 50_000)
        return host.run(["cat", str(host.base_dir / f"{number}")]).stdout == b"x" * 50_000

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(24)))


def test_a_server_that_allows_no_session_is_given_up_with_a_reason(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("MaxSessions 0",)
    own_sshd.start()
    with pytest.raises(HostUnreachable, match="opens no channel"):
        ssh_host(own_sshd, connect_timeout=1.0).run(["true"])


def test_a_server_that_takes_few_log_ins_at_once_is_asked_again(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("MaxStartups 2",)
    own_sshd.start()
    hosts = [ssh_host(own_sshd) for _ in range(6)]  # as several processes would, each with its own connections
    together = threading.Barrier(len(hosts))

    def work(host: SshHost) -> int | None:
        together.wait()
        return host.run(["true"]).code

    with ThreadPoolExecutor(len(hosts)) as threads:
        assert list(threads.map(work, hosts)) == [0] * len(hosts)


def test_no_more_connections_are_opened_than_the_config_allows(
    sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path, proxy: TcpProxy
) -> None:
    host = ssh_host(port=proxy.port, known_hosts=tmp_path / "known", limits=HostLimits(connections=2))
    host.pin(host.offered_key())
    before = proxy.connections
    with ThreadPoolExecutor(12) as threads:
        assert [done.code for done in threads.map(lambda _: host.run(["sleep", "0.05"]), range(48))] == [0] * 48
    assert proxy.connections - before == 2


def test_one_thread_may_hold_files_and_run_programs_at_the_same_time(ssh_host: MakeHost) -> None:
    host = ssh_host(limits=HostLimits(connections=1))
    with host.files() as one, host.files() as two, host.start(["cat"]) as process:
        one.write_bytes(host.base_dir / "file", b"x")
        assert two.read_bytes(host.base_dir / "file", limit=1) == b"x"
        process.stdin.write(b"line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"line\n"
        assert host.run(["true"]).code == 0


def test_waiting_for_a_channel_ends_when_all_are_held(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("MaxSessions 1",)
    own_sshd.start()
    host = ssh_host(own_sshd, limits=HostLimits(connections=1), idle_timeout=1.0, connect_timeout=1.0)
    assert host.run(["true"]).code == 0
    with host.start(["cat"]), pytest.raises(HostUnreachable, match="in use"):
        host.run(["true"])
    assert host.run(["true"]).code == 0


def test_one_thread_may_hold_files_and_run_programs_where_the_server_opens_one_channel(
    own_sshd: OpenSSHServer, ssh_host: MakeHost
) -> None:
    own_sshd.lines = ("MaxSessions 1",)
    own_sshd.start()
    host = ssh_host(own_sshd, limits=HostLimits(connections=1), idle_timeout=1.0, connect_timeout=1.0)
    place = host.base_dir / "place"
    with host.files() as files:
        files.make_directory(place, parents=True)
        files.write_bytes(place / "a", b"1")
        assert host.run(["cat", str(place / "a")]).stdout == b"1"
        files.write_bytes(place / "b", b"2")
        with host.files() as others:
            assert others.read_bytes(place / "b", limit=1) == b"2"
        assert sorted(each.name for each in files.listing(place)) == ["a", "b"]


def test_files_that_are_being_read_keep_their_channel(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("MaxSessions 1",)
    own_sshd.start()
    host = ssh_host(own_sshd, limits=HostLimits(connections=1), idle_timeout=1.0, connect_timeout=1.0)
    paths = [host.base_dir / name for name in ("a", "b")]
    with host.files() as files:
        for path in paths:
            files.write_bytes(path, b"x")
        wanted = [Receiving(path, 1, io.BytesIO) for path in paths]
        reading = files.read_many(wanted)
        next(reading)
        with pytest.raises(HostUnreachable, match="in use"):
            host.run(["true"])
        assert len(list(reading)) == 1
        assert host.run(["true"]).code == 0


def test_a_fresh_connection_is_about_as_quick_as_openssh_s_own(sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    command = ["ssh", "-F", "none", "-i", str(sshd.key_file), "-p", str(sshd.port), "-o", "BatchMode=yes"]
    command += ["-o", f"UserKnownHostsFile={sshd.known_hosts}", f"{sshd.user}@127.0.0.1", "true"]
    ours, theirs = [], []
    for _ in range(6):  # in turns, so that what else the machine does weighs on both
        host = ssh_host()
        began = time.monotonic()
        host.run(["true"])
        ours.append(time.monotonic() - began)
        host.close()
        began = time.monotonic()
        subprocess.run(command, check=True)
        theirs.append(time.monotonic() - began)
    assert min(ours) < 3 * min(theirs)


# -- no room -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB and few inodes. Only root can mount one."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=20", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("a disk that fills up can't be made: mounting needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_full_disk_is_told_from_other_failures_and_recovers(
    kind: str, small_disk: Path, sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path
) -> None:
    host: Host = ssh_host(base_dir=str(small_disk))
    if kind == "local":
        host = LocalHost("here", LocalHostSection(type="local", base_dir=str(small_disk)), tmp_path)
    with host.files() as files:
        with pytest.raises(HostFull) as caught:
            files.write(host.base_dir / "file", io.BytesIO(bytes(6_000_000)))
        assert caught.value.hint
        assert "file" not in str(caught.value).replace("a file", "")
        files.remove(host.base_dir / "file")
        files.write(host.base_dir / "file", io.BytesIO(bytes(2_000_000)))
        with pytest.raises(HostFull):
            for number in range(30):
                files.make_directory(host.base_dir / f"{number}")
        files.remove_tree(host.base_dir / "0")
        files.write_bytes(host.base_dir / "small", b"x")
