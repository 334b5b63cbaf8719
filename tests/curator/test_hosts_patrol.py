"""The patrol `hosts` on real hosts: this machine, and an OpenSSH server on loopback."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from curator import captured
from curator.captured import A, B, C
from curator.machines import FakeSmi, Round
from mqi_cli import Alert, Clock, Completed, GpusSeen, Host, HostSeen, HostUnreachable
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_curator.config import CuratorSection
from mqi_curator.hosts_patrol import PATROL


def local(tmp_path: Path, name: str = "here") -> LocalHost:
    return LocalHost(name, LocalHostSection(type="local", base_dir=str(tmp_path / "base")), tmp_path)


def go(hosts: dict[str, Host], **section: object) -> Round:
    quiet = {"load_per_core": None, "disk_free_percent": None}  # whatever else this machine does meanwhile
    ctx = Round(CuratorSection.model_validate({"alerts": quiet} | section), hosts, clock=Clock())
    try:
        PATROL.run(ctx)  # type: ignore[arg-type]
    finally:
        for host in hosts.values():
            host.close()
    return ctx


def test_a_round_reports_the_host_and_its_gpus(tmp_path: Path, smi: FakeSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{smi.directory}:{os.environ['PATH']}")
    smi.answers(captured.TWO_A100_MIG_COLUMN, captured.APPS)
    ctx = go({"here": local(tmp_path)})
    (host,) = ctx.of(HostSeen)
    assert (host.host, host.reachable, host.cores) == ("here", True, os.cpu_count())
    assert host.free_bytes
    (gpus,) = ctx.of(GpusSeen)
    assert gpus.problem == ""
    assert [(gpu.uuid, gpu.index, gpu.processes) for gpu in gpus.gpus] == [(A, 0, (977,)), (B, 1, (12033, 12034))]


def test_a_machine_without_gpus_is_a_host_like_any_other(tmp_path: Path) -> None:
    ctx = go({"here": local(tmp_path)}, gpu_command=["nvidia-smi-that-is-not-here"])
    assert ctx.of(GpusSeen) == [GpusSeen("here", ())]
    assert [alert.topic for alert in ctx.of(Alert) if alert.active] == []


def test_with_no_gpu_command_gpus_are_not_mentioned(tmp_path: Path) -> None:
    ctx = go({"here": local(tmp_path)}, gpu_command=[])
    assert ctx.of(GpusSeen) == []
    alerts = {each.topic: each.active for each in ctx.of(Alert)}
    assert alerts["gpu-answer:here"] is alerts["gpu-gone:here"] is False, "none that was raised before stays"


def test_a_hung_driver_leaves_the_host_usable_and_says_so_of_its_gpus(tmp_path: Path, smi: FakeSmi) -> None:
    smi.hangs()
    ctx = go({"here": local(tmp_path)}, gpu_command=[str(smi.program)], gpu_timeout=1.0)
    assert [host.reachable for host in ctx.of(HostSeen)] == [True]
    (gpus,) = ctx.of(GpusSeen)
    assert "hung" in gpus.problem


def test_a_lost_card_raises_an_alert_and_is_not_among_the_gpus(tmp_path: Path, smi: FakeSmi) -> None:
    smi.answers(captured.ONE_LOST)
    ctx = go({"here": local(tmp_path)}, gpu_command=[str(smi.program)])
    (gpus,) = ctx.of(GpusSeen)
    assert [gpu.uuid for gpu in gpus.gpus] == [A]
    assert gpus.unusable == (B, C)
    (alert,) = (alert for alert in ctx.of(Alert) if alert.active)
    assert B in alert.text


@pytest.mark.sshd
def test_a_host_over_ssh_tells_the_same(sshd: OpenSSHServer, tmp_path: Path, smi: FakeSmi) -> None:
    host = SshHost("hpc", sshd.host_section(), tmp_path)
    ctx = go({"hpc": host}, gpu_command=[str(smi.program)])
    assert [(seen.host, seen.reachable, seen.cores) for seen in ctx.of(HostSeen)] == [("hpc", True, os.cpu_count())]
    (gpus,) = ctx.of(GpusSeen)
    assert [gpu.uuid for gpu in gpus.gpus] == [A, B]


@pytest.mark.sshd
def test_a_hung_driver_over_ssh_does_not_hold_the_channel_open(
    sshd: OpenSSHServer, tmp_path: Path, smi: FakeSmi
) -> None:
    smi.hangs()
    began = time.monotonic()
    ctx = go({"hpc": SshHost("hpc", sshd.host_section(), tmp_path)}, gpu_command=[str(smi.program)], gpu_timeout=1.0)
    assert time.monotonic() - began < 8
    assert [seen.reachable for seen in ctx.of(HostSeen)] == [True]
    assert "hung" in ctx.of(GpusSeen)[0].problem
    assert smi.left_running() == []


@pytest.mark.sshd
def test_an_account_that_runs_no_programs_tells_its_space(own_sshd: OpenSSHServer, tmp_path: Path) -> None:
    server = own_sshd.start().sftp_only()
    ctx = go({"hpc": SshHost("hpc", server.host_section(), tmp_path)})
    (seen,) = ctx.of(HostSeen)
    assert seen.reachable, seen.problem
    assert seen.free_bytes
    assert ctx.of(GpusSeen) == []


@pytest.mark.sshd
def test_one_host_that_is_down_does_not_keep_the_others_news_back(own_sshd: OpenSSHServer, tmp_path: Path) -> None:
    own_sshd.start()
    section = own_sshd.host_section()
    own_sshd.kill()
    ctx = go({"down": SshHost("down", section, tmp_path), "here": local(tmp_path)}, gpu_command=[])
    seen = {host.host: host for host in ctx.of(HostSeen)}
    assert seen["here"].reachable
    assert not seen["down"].reachable
    assert seen["down"].problem


@pytest.mark.sshd
def test_a_host_whose_key_is_not_trusted_is_reported_with_the_reason(own_sshd: OpenSSHServer, tmp_path: Path) -> None:
    own_sshd.start()
    section = own_sshd.host_section(known_hosts=tmp_path / "empty")
    (seen,) = go({"hpc": SshHost("hpc", section, tmp_path)}).of(HostSeen)
    assert not seen.reachable
    assert "key" in seen.problem


class Silent:
    """A host that takes a command and never answers."""

    name = "silent"
    base_dir = PurePosixPath("/base")

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.release = threading.Event()

    def run(self, *_: object, **__: object) -> Completed:
        self.asked.set()
        self.release.wait(30)
        raise HostUnreachable("gone", host=self.name)


def test_a_worker_that_is_asked_to_end_does_not_wait_for_a_host_that_is_silent(tmp_path: Path) -> None:
    silent = Silent()

    class Stopping(Round):
        def stopping(self) -> bool:
            return silent.asked.is_set() and bool(self.of(HostSeen))

    hosts: dict[str, Any] = {"silent": silent, "here": local(tmp_path)}
    ctx = Stopping(CuratorSection(gpu_command=()), hosts, clock=Clock())
    began = time.monotonic()
    try:
        PATROL.run(ctx)  # type: ignore[arg-type]
    finally:
        silent.release.set()
    assert time.monotonic() - began < 10
    assert [seen.host for seen in ctx.of(HostSeen)] == ["here"]


def test_a_bug_in_a_look_is_not_taken_for_a_host_that_is_down(tmp_path: Path) -> None:
    class Buggy(Silent):
        def run(self, *_: object, **__: object) -> Completed:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        PATROL.run(Round(CuratorSection(), {"buggy": Buggy()}, clock=Clock()))  # type: ignore[arg-type, dict-item]
