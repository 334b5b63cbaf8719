"""What goes wrong under a run on a real SSH server: silence in the middle of a look, restarts, floods, full disks.

Whatever does not depend on how runs are started is tried both ways, on the host itself and through a real Slurm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from exec.far_side import alive, lines_of, start_time, until
from exec.turns import Bench, Context
from mqi_cli import Done, GiveUp, HostFault, HostFull, HostRefused, HostUnreachable, RetryLater, Wait
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec import doubt, quick
from mqi_ssh_exec.direct import Direct
from mqi_ssh_exec.helper import install
from mqi_ssh_exec.job_status import JobState
from mqi_ssh_exec.log_view import LogView
from mqi_ssh_exec.run import make_order
from mqi_ssh_exec.slurm import Slurm
from servers.proxy import TcpProxy
from servers.slurm import SlurmCluster


class Place:
    """Where runs are started, and how."""

    def __init__(
        self, directory: Path, scheduler: Direct | Slurm, small_disk: Path, environment: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.scheduler = scheduler
        self.small_disk = small_disk
        self.environment = environment
        self.benches: list[Bench] = []

    def server(self, own: OpenSSHServer, *lines: str) -> OpenSSHServer:
        """Start a server of the test's own, with config lines of its own."""
        own.environment |= self.environment
        own.lines = lines
        return own.start()

    def host(self, server: OpenSSHServer, *, port: int | None = None, **changes: object) -> SshHost:
        """Open a host below the test's directory, through another port where one is given."""
        (self.directory / "far").mkdir(exist_ok=True)
        changes = {"base_dir": str(self.directory / "far"), "scheduler": self.scheduler.name} | changes
        if port is not None:
            known = self.directory / "known_hosts"
            name, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
            known.write_text(f"[127.0.0.1]:{port} {name} {key}\n")
            changes |= {"port": port, "known_hosts": known}
        return SshHost("far", server.host_section(**changes), self.directory)

    def bench(self, server: OpenSSHServer, **changes: Any) -> Bench:
        """Return a case on a host of this server."""
        self.benches.append(Bench(self.directory, self.host(server, **changes), self.scheduler))
        return self.benches[-1]


@pytest.fixture(params=["direct", "slurm"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> Iterator[Place]:
    """Each way; `shell` is `direct` without the quick program. What is waited for at length on a real cluster takes a moment."""
    del at_once
    for name, seconds in (("SETTLE_FOR", 1.0), ("LOOK_AGAIN", 0.2)):
        monkeypatch.setattr(doubt, name, seconds)
    monkeypatch.setattr("mqi_ssh_exec.lookout.QUEUE_AGE", 0.3)
    monkeypatch.setattr("mqi_ssh_exec.run.FAULT_PAUSE", 0.3)
    if request.param == "shell":
        monkeypatch.setattr(quick, "LARGEST_SCRIPT", -1)
    if request.param != "slurm":
        made = Place(tmp_path, Direct(), tmp_path / "small", {})
        made.small_disk.mkdir()
        subprocess.run(
            ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", made.small_disk), capture_output=True, check=False
        )
    else:
        cluster: SlurmCluster = request.getfixturevalue("slurm")
        made = Place(tmp_path, Slurm(), cluster.small_disk, cluster.environment)
    yield made
    for bench in made.benches:
        bench.host.close()
        bench.end_all()
    if request.param != "slurm" and made.small_disk.is_mount():
        subprocess.run(("umount", "-l", made.small_disk), check=True)


@pytest.fixture
def server(request: pytest.FixtureRequest, place: Place) -> OpenSSHServer:
    """The server that others use as well."""
    found: OpenSSHServer = request.getfixturevalue("sshd" if place.scheduler.name == "direct" else "login_node")
    return found


@pytest.fixture
def far(tmp_path: Path, sshd: OpenSSHServer) -> Iterator[Bench]:
    """A case on a real SSH server, its runs started on the host itself."""
    (tmp_path / "far").mkdir()
    bench = Bench(tmp_path, SshHost("far", sshd.host_section(base_dir=str(tmp_path / "far")), tmp_path))
    yield bench
    bench.host.close()
    bench.end_all()


def begun(bench: Bench, command: str = "sleep 60") -> Context:
    """Return the context of a run that has begun."""
    ctx = bench.context(f"echo start >>{bench.ledger}; {command}")
    until(lambda: bench.drive_once(ctx) and lines_of(bench.ledger) == ["start"])
    return ctx


def rewrite(bench: Bench, ctx: Context, **changes: str) -> None:
    """Write the runner's record with other values, as they stand after a restart."""
    record = Path(bench.job(ctx).place.records) / "started"
    facts = dict(line.split("=", 1) for line in record.read_text().splitlines()) | changes
    record.write_text("".join(f"{name}={value}\n" for name, value in facts.items()))


def test_silence_in_the_middle_of_a_look_is_noticed_and_leaves_no_thread(place: Place, server: OpenSSHServer) -> None:
    with TcpProxy(server.port) as proxy:
        bench = place.bench(server, port=proxy.port, idle_timeout=1.0, connect_timeout=1.0)
        ctx = begun(bench, f"until [ -e {bench.directory}/go ]; do sleep 0.1; done")
        bench.host.close()
        before = threading.active_count()
        for _ in range(2):
            bench.host.run(["true"])
            proxy.blackhole()
            with pytest.raises(HostUnreachable):
                bench.job(ctx).status()
            proxy.heal()
            proxy.reset()
        bench.host.close()
        until(lambda: threading.active_count() <= before, what="the connections' threads end")
        (bench.directory / "go").touch()
        assert bench.drive(ctx)[0].facts["exit_code"] == 0
        assert lines_of(bench.ledger) == ["start"]
        bench.host.close()


def test_a_server_that_drops_every_connection_for_a_while_changes_nothing(place: Place, server: OpenSSHServer) -> None:
    far = place.bench(server)
    ctx = begun(far, f"until [ -e {far.directory}/go ]; do sleep 0.1; done")
    for _ in range(3):
        server.drop_connections()
        try:
            far.drive_once(ctx)
        except HostUnreachable:
            continue
    (far.directory / "go").touch()
    assert far.drive(ctx)[0].facts["exit_code"] == 0 and lines_of(far.ledger) == ["start"]


def test_a_server_that_allows_few_sessions_and_log_ins_slows_runs_down_and_fails_none(
    place: Place, own_sshd: OpenSSHServer
) -> None:
    server = place.server(own_sshd, "MaxSessions 2", "MaxStartups 2:100:2")
    benches = [place.bench(server) for _ in range(3)]  # as workers have them, each with connections of its own

    def work(number: int) -> Done:
        bench = benches[number % 3]
        end = time.monotonic() + 60
        ctx = bench.context(f"echo {number} >>{bench.ledger}; sleep 0.2", name=f"step{number}")
        while time.monotonic() < end:
            with contextlib.suppress(HostUnreachable):  # the core asks again
                return bench.drive(ctx)[0]
        raise AssertionError("it did not end")

    with ThreadPoolExecutor(9) as threads:
        done = list(threads.map(work, range(9)))
    assert [each.facts["exit_code"] for each in done] == [0] * 9
    assert sorted(lines_of(benches[0].ledger)) == sorted(map(str, range(9)))


def test_a_full_disk_begins_nothing_and_ends_nothing_until_there_is_room(place: Place, server: OpenSSHServer) -> None:
    if not place.small_disk.is_mount():
        pytest.skip("a disk that fills up can't be made: mounting needs root")
    ballast = place.small_disk / "ballast"
    bench = place.bench(server, base_dir=str(place.small_disk / place.directory.name))
    install(bench.host)
    go = place.directory / "go"
    ctx = bench.context(
        f"echo start >>{bench.ledger}; until [ -e {go} ]; do sleep 0.1; done; echo dose >dose", outputs=["dose"]
    )
    fill(ballast)
    with pytest.raises(HostFull):
        bench.turn(ctx)
    assert not lines_of(bench.ledger)
    ballast.unlink()
    until(lambda: bench.drive_once(ctx) and lines_of(bench.ledger) == ["start"], what="it begins")
    fill(ballast)
    go.touch()
    for _ in range(10):  # its output can't be written, nor its end: whatever is said of it, it is not done
        with contextlib.suppress(HostFull, HostFault):
            assert isinstance(bench.turn(ctx), Wait)
        time.sleep(0.1)
    ballast.unlink()
    with pytest.raises(GiveUp, match="exit code"):
        bench.drive(ctx)
    assert lines_of(bench.ledger) == ["start"]


def fill(ballast: Path) -> None:
    """Leave no room on a small disk."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_run_of_before_a_restart_is_lost_and_a_foreign_process_is_left_alone(far: Bench) -> None:
    ctx = begun(far)
    for pid in far.living():
        os.kill(pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as foreign:
        rewrite(far, ctx, pid=str(foreign.pid), start=str(int(start_time(foreign.pid)) - 1))
        with pytest.raises(RetryLater, match="vanished without a trace"):
            far.drive(ctx)
        far.drive(far.context("true", attempt=2), cancel=True)
        assert alive(foreign.pid), "a process that only has the run's number was ended"
        rewrite(far, ctx, pid=str(foreign.pid), start=start_time(foreign.pid), boot="another-boot")
        assert far.job(ctx).status().state is not JobState.RUNNING
        assert alive(foreign.pid)
        foreign.kill()


@pytest.mark.parametrize(
    "megabytes", [60, pytest.param(1024, marks=[pytest.mark.soak, pytest.mark.timeout(600)])], ids=str
)
def test_a_flood_of_junk_is_bounded_and_told_in_plain_characters(
    place: Place, server: OpenSSHServer, megabytes: int
) -> None:
    far = place.bench(server)
    junk = f"head -c {megabytes}000000 /dev/urandom; printf '\\033[2J\\007\\r\\nthe end\\r\\n'; exit 9"
    ctx = far.context(junk, log_limit=4_000_000)
    with pytest.raises(GiveUp, match="exit code 9") as caught:
        far.drive(ctx, within=500)
    kept = sum(each.stat().st_size for each in Path(far.job(ctx).place.records).glob("log/*"))
    assert kept <= 6_000_000, "the log is not bounded"
    last = caught.value.detail.splitlines()
    assert last[-1] == "the end" and all(each.isprintable() and len(each) <= 200 for each in last)


def test_a_key_that_the_server_takes_no_longer_stops_the_turns_and_not_the_run(
    place: Place, own_sshd: OpenSSHServer
) -> None:
    server = place.server(own_sshd)
    bench = place.bench(server)
    ctx = begun(bench, f"until [ -e {bench.directory}/go ]; do sleep 0.1; done")
    keys = next(server.directory.rglob("authorized_keys"))
    kept = keys.read_text()
    keys.write_text("")
    bench.host.close()
    with pytest.raises(HostRefused):
        bench.job(ctx).status()
    keys.write_text(kept)
    ctx.host = bench.host = place.host(server)  # the old one remembers for minutes that it was refused
    (bench.directory / "go").touch()
    assert isinstance(bench.drive(ctx)[0], Done) and lines_of(bench.ledger) == ["start"]


@pytest.mark.parametrize("place", ["direct", "shell", "slurm"], indirect=True)
@pytest.mark.parametrize(("way", "share"), [("up", 0.5), ("down", 0.3), ("down", 0.6), ("down", 0.75)])
def test_a_connection_that_is_cut_anywhere_in_a_submission_starts_it_once(
    place: Place, server: OpenSSHServer, way: str, share: float
) -> None:
    with TcpProxy(server.port) as proxy:
        bench = place.bench(server, port=proxy.port)
        install(bench.host)
        first, whole = (bench.context("sleep 1", name=name) for name in ("first", "whole"))
        bench.job(first).submit(make_order(first), wait=0)  # all that is needed there is there now
        passed = {"up": proxy.up, "down": proxy.down}
        bench.job(whole).submit(make_order(whole), wait=0)
        passed = {"up": proxy.up - passed["up"], "down": proxy.down - passed["down"]}
        ctx = bench.context(f"echo start >>{bench.ledger}; sleep 0.5")
        proxy.cut_after(**{way: round(passed[way] * share)})
        before = proxy.connections
        for _ in range(2):
            with contextlib.suppress(HostUnreachable):
                bench.job(ctx).submit(make_order(ctx), wait=0)
        proxy.heal()
        assert bench.drive(ctx)[0].facts["exit_code"] == 0  # by a worker that has heard of nothing: it submits again
        assert proxy.connections > before, "nothing was cut"
        assert lines_of(bench.ledger) == ["start"]
        bench.drive(first)
        bench.drive(whole)
        bench.host.close()


def test_a_log_that_is_followed_goes_on_where_it_stood_once_the_line_is_back(
    tmp_path: Path, sshd: OpenSSHServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        place = Place(tmp_path, Direct(), tmp_path, {})
        bench = place.bench(sshd, port=proxy.port, connect_timeout="2s")
        ctx = begun(bench, f"for i in 1 2 3; do echo line $i; until [ -e {tmp_path}/go$i ]; do sleep 0.1; done; done")
        job = bench.job(ctx)
        turns = iter(range(1000))

        def pause(_: float) -> None:
            turn = next(turns)
            if turn == 1:
                (tmp_path / "go1").touch()
            if turn == 2:
                proxy.refuse()
                proxy.reset()
            if turn == 3:
                (tmp_path / "go2").touch()
                (tmp_path / "go3").touch()
                proxy.heal()

        view = LogView(job)
        view.follow(job.status(), pause)
        out, err = capsys.readouterr()
        assert out.splitlines() == ["line 1", "line 2", "line 3"]
        assert "the log is read on from here once it answers" in err and len(err.splitlines()) <= 2
        bench.host.close()
