"""What goes wrong under a run on a real SSH server: silence in the middle of a look, restarts, floods of output."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exec.far_side import alive, lines_of, start_time, until
from exec.turns import Bench, Context
from mqi_cli import Done, GiveUp, HostRefused, HostUnreachable, RetryLater
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec.job_status import JobState
from servers.proxy import TcpProxy


def host_through(server: OpenSSHServer, place: Path, *, port: int | None = None, **changes: object) -> SshHost:
    """Open a host below `place`, through another port where one is given."""
    (place / "far").mkdir(exist_ok=True)
    changes |= {"base_dir": str(place / "far")}
    if port is not None:
        name, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
        (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {name} {key}\n")
        changes |= {"port": port, "known_hosts": place / "known_hosts"}
    return SshHost("far", server.host_section(**changes), place)


@pytest.fixture
def far(tmp_path: Path, sshd: OpenSSHServer) -> Iterator[Bench]:
    """A case on a real SSH server."""
    bench = Bench(tmp_path, host_through(sshd, tmp_path))
    yield bench
    bench.host.close()
    bench.end_all()


def begun(bench: Bench, command: str = "sleep 60") -> Context:
    """Return the context of a run that has begun."""
    ctx = bench.context(f"echo start >>{bench.ledger}; {command}")
    bench.drive_once(ctx)
    until(lambda: lines_of(bench.ledger) == ["start"])
    return ctx


def rewrite(bench: Bench, ctx: Context, **changes: str) -> None:
    """Write the runner's record with other values, as they stand after a restart."""
    record = Path(bench.job(ctx).place.records) / "started"
    facts = dict(line.split("=", 1) for line in record.read_text().splitlines()) | changes
    record.write_text("".join(f"{name}={value}\n" for name, value in facts.items()))


def test_silence_in_the_middle_of_a_look_is_noticed_and_leaves_no_thread(tmp_path: Path, sshd: OpenSSHServer) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, host_through(sshd, tmp_path, port=proxy.port, idle_timeout=2.0, connect_timeout=2.0))
        ctx = begun(bench, "sleep 4")
        bench.host.close()
        before = threading.active_count()
        for _ in range(3):
            bench.host.run(["true"])
            proxy.blackhole()
            with pytest.raises(HostUnreachable):
                bench.job(ctx).status()
            proxy.heal()
            proxy.reset()
        bench.host.close()
        until(lambda: threading.active_count() <= before, what="the connections' threads end")
        assert bench.drive(ctx)[0].facts["exit_code"] == 0
        assert lines_of(bench.ledger) == ["start"]
        bench.host.close()


def test_a_server_that_drops_every_connection_for_a_while_changes_nothing(far: Bench, sshd: OpenSSHServer) -> None:
    ctx = begun(far, f"until [ -e {far.directory}/go ]; do sleep 0.1; done")
    for _ in range(3):
        sshd.drop_connections()
        try:
            far.drive_once(ctx)
        except HostUnreachable:
            continue
    (far.directory / "go").touch()
    assert far.drive(ctx)[0].facts["exit_code"] == 0 and lines_of(far.ledger) == ["start"]


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
def test_a_flood_of_junk_is_bounded_and_told_in_plain_characters(far: Bench, megabytes: int) -> None:
    junk = f"head -c {megabytes}000000 /dev/urandom; printf '\\033[2J\\007\\r\\nthe end\\r\\n'; exit 9"
    ctx = far.context(junk, log_limit=4_000_000)
    with pytest.raises(GiveUp, match="exit code 9") as caught:
        far.drive(ctx, within=500)
    kept = sum(each.stat().st_size for each in Path(far.job(ctx).place.records).glob("log/*"))
    assert kept <= 6_000_000, "the log is not bounded"
    last = caught.value.detail.splitlines()
    assert last[-1] == "the end" and all(each.isprintable() and len(each) <= 200 for each in last)


def test_a_key_that_the_server_takes_no_longer_stops_the_turns_and_not_the_run(
    tmp_path: Path, own_sshd: OpenSSHServer
) -> None:
    own_sshd.start()
    bench = Bench(tmp_path, host_through(own_sshd, tmp_path))
    ctx = begun(bench, f"until [ -e {tmp_path}/go ]; do sleep 0.1; done")
    keys = next(own_sshd.directory.rglob("authorized_keys"))
    kept = keys.read_text()
    keys.write_text("")
    bench.host.close()
    with pytest.raises(HostRefused):
        bench.turn(ctx)
    keys.write_text(kept)
    ctx.host = bench.host = host_through(own_sshd, tmp_path)  # the old one remembers for minutes that it was refused
    (tmp_path / "go").touch()
    assert isinstance(bench.drive(ctx)[0], Done) and lines_of(bench.ledger) == ["start"]
    bench.host.close()
