"""`mqi daemon …` as an operator types it, with the real conductor and the real workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.clock import Clock
from mqi_cli.daemon import DaemonFiles
from supervisor.bench import ROOT, alive, eventually

CONFIG = """
state: {path: state/state.db}
daemon: {stop_within: 10s}
workers: {sftp: {processes: 2}}
plugins: {disable: [scanner, curator, archiver, ssh-exec]}
"""


class Site:
    """A directory with a config, and `mqi` in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "mqi.yaml"
        self.config.write_text(CONFIG)
        self.files = DaemonFiles(directory / "state")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MQI_")},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory / "elsewhere"),
        }

    def mqi(self, *words: str, code: int | None = 0, cwd: Path | None = None) -> str:
        """Call mqi, check its exit code, return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "mqi_cli", *words],
            cwd=cwd or self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, said
        return said

    def pids(self) -> list[int]:
        """Return every process of the running daemon."""
        status = self.files.read_status()
        return [status.pid, *(each.pid for each in status.children if each.pid)] if status else []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    pids = site.pids()
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.mqi("daemon", "stop", "--timeout", "5s", code=None)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_start_says_when_all_is_up_and_a_stop_leaves_nothing(site: Site) -> None:
    said = site.mqi("daemon", "start")
    pids = site.pids()
    assert f"the daemon is up (process {pids[0]}, {len(pids) - 1} processes)" in said
    assert len(pids) == 4
    listed = json.loads(site.mqi("daemon", "status", "--json"))
    assert {"conductor", "sftp-1", "sftp-2"} == {each["name"] for each in listed["children"]}
    assert {each["state"] for each in listed["children"]} == {"running"}, listed["children"]
    assert "the daemon has ended" in site.mqi("daemon", "stop")
    assert not any(map(alive, pids))
    assert not site.files.status.exists()
    assert "not running" in site.mqi("daemon", "status", code=1)
    assert "the daemon is not running" in site.mqi("daemon", "stop")
    state_dir = site.files.lock.parent
    for path in (state_dir, site.files.lock, site.files.logs, *site.files.logs.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"others may read {path.name}"


def test_a_second_start_is_refused_with_exit_code_8(site: Site) -> None:
    site.mqi("daemon", "start")
    pid = site.pids()[0]
    for words in (("daemon", "start"), ("daemon", "start", "--foreground")):
        assert f"process {pid}" in site.mqi(*words, code=8)
    assert site.pids()[0] == pid


def test_a_broken_config_starts_nothing_and_exits_with_3(site: Site) -> None:
    site.config.write_text("workflow: {}\n")
    assert "workflow" in site.mqi("daemon", "start", code=3)
    assert not site.files.lock.exists()


def test_a_damaged_state_database_starts_nothing_and_exits_with_6(site: Site) -> None:
    (site.directory / "state").mkdir(mode=0o700)
    (site.directory / "state" / "state.db").write_bytes(b"this is no database" * 100)
    site.mqi("daemon", "start", code=6)
    assert not site.files.lock.exists()


def test_a_killed_daemon_counts_as_stopped_and_can_be_started_again(site: Site) -> None:
    site.mqi("daemon", "start")
    pids = site.pids()
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not alive(pids[0]))
    assert "not running" in site.mqi("daemon", "status", code=1)
    eventually(lambda: not any(map(alive, pids)), within=10.0)
    site.mqi("daemon", "start")


def test_a_daemon_whose_state_directory_is_taken_away_ends_by_itself(site: Site) -> None:
    site.mqi("daemon", "start")
    pids = site.pids()
    site.files.lock.unlink()
    eventually(lambda: not any(map(alive, pids)), within=20.0)
    assert "the lock file was removed under the daemon" in site.mqi("daemon", "logs", "daemon")
    site.mqi("daemon", "start")


def test_a_reload_refuses_a_bad_config_and_takes_a_good_one(site: Site) -> None:
    site.mqi("daemon", "start")
    before = site.files.read_status()
    assert before is not None
    site.config.write_text(CONFIG.replace("stop_within: 10s", "stop_within: soon"))
    site.mqi("daemon", "reload", code=3)
    site.config.write_text(CONFIG.replace("processes: 2", "processes: 1"))
    assert "has taken the config" in site.mqi("daemon", "reload")

    def only_one() -> bool:
        status = site.files.read_status()
        return status is not None and [each.name for each in status.children if "sftp" in each.name] == ["sftp-1"]

    eventually(only_one)
    after = site.files.read_status()
    assert after is not None
    kept = {each.name: each.pid for each in before.children if each.name != "sftp-2"}
    assert {each.name: each.pid for each in after.children} == kept


def test_a_restart_works_from_another_directory_and_without_a_running_daemon(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    site.mqi("--config", "../mqi.yaml", "daemon", "restart", cwd=elsewhere)
    first = site.pids()
    site.mqi("--config", "../mqi.yaml", "daemon", "restart", cwd=elsewhere)
    assert not any(map(alive, first))
    assert site.pids()[0] != first[0]


def test_logs_are_merged_by_time_and_can_be_narrowed(site: Site) -> None:
    site.mqi("daemon", "start")
    site.mqi("daemon", "stop")
    lines = site.mqi("daemon", "logs", "--lines", "100").splitlines()
    assert lines == sorted(lines, key=lambda line: line[:24])
    assert {"daemon:", "conductor:"} <= {line.split()[2] for line in lines}
    own = site.mqi("daemon", "logs", "daemon", "-n", "2").splitlines()
    assert len(own) == 2
    assert own[-1].endswith("the daemon has ended")
    assert "there are: daemon" in site.mqi("daemon", "logs", "nobody", code=2)


def test_logs_can_be_followed(site: Site) -> None:
    site.mqi("daemon", "start")
    following = subprocess.Popen(
        [sys.executable, "-m", "mqi_cli", "daemon", "logs", "-f", "-n", "0"],
        cwd=site.directory,
        env={**site.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None
        site.mqi("daemon", "stop")
        for line in following.stdout:
            if "the daemon has ended" in line:
                break
    finally:
        following.send_signal(signal.SIGINT)
        following.wait(timeout=10)
    assert following.returncode == 0


def test_the_foreground_shows_the_logs_and_ends_on_ctrl_c(site: Site) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mqi_cli", "daemon", "start", "--foreground"],
        cwd=site.directory,
        env=site.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: (found := site.files.read_status()) and found.ready)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "the daemon is up" in said
    assert "the daemon has ended" in said


def test_the_daemon_says_why_new_work_waits(site: Site) -> None:
    assert "undrain" in site.mqi("daemon", "drain", "the scanner is serviced")
    assert "again" in site.mqi("daemon", "undrain")


def test_the_unit_has_absolute_paths_and_satisfies_systemd(site: Site, tmp_path: Path) -> None:
    site.config.write_text(
        CONFIG + "hosts: {hpc: {type: ssh, hostname: hpc.example.org, user: mqi, base_dir: /scratch}}\n"
    )
    text = site.mqi("daemon", "unit", "--user", "root")
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("ReadWrite"))
    assert lines["Type"] == "notify"
    assert lines["KillMode"] == "mixed"
    assert lines["TimeoutStopSec"] == "25"
    assert lines["ExecStart"].startswith(f"{sys.executable} -m mqi_cli --config {site.config}")
    assert lines["ExecStart"].endswith("daemon start --foreground")
    assert f"ReadWritePaths=-{site.directory / 'state'}" in text
    assert "PrivateDevices=yes" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here to check the unit with")
    unit = tmp_path / "mqi.service"
    unit.write_text(text)
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    said = [line for line in checked.stderr.splitlines() if "mqi.service" in line]
    assert not said, said


def test_the_unit_lets_runs_on_this_machine_outlive_the_daemon(site: Site) -> None:
    site.config.write_text(CONFIG + "hosts: {here: {type: local, base_dir: /var/mqi}}\n")
    text = site.mqi("daemon", "unit")
    assert "\nKillMode=process\n" in text
    assert "PrivateDevices" not in text
    assert "ReadWritePaths=-/var/mqi\n" in text


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell shared memory")
def test_the_processes_share_the_programs_memory_and_are_told_apart_by_ps(site: Site) -> None:
    site.mqi("daemon", "start")
    parent, conductor, *workers = site.pids()

    def size(pid: int, what: str) -> int:
        return next(
            int(line.split()[1]) for line in proc(pid, "smaps_rollup").splitlines() if line.startswith(f"{what}:")
        )

    pids = [parent, conductor, *workers]
    # the proportional set sizes: begun anew, each process would have nearly all of its resident memory for itself
    assert sum(size(pid, "Pss") for pid in pids) < 0.6 * sum(size(pid, "Rss") for pid in pids)
    assert proc(conductor, "cmdline").rstrip("\0").split("\0")[-2:] == ["conductor", "run"]
    assert [proc(pid, "comm").strip() for pid in workers] == ["mqi sftp-1", "mqi sftp-2"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts wake-ups")
def test_an_idle_process_wakes_a_few_times_a_second(site: Site) -> None:
    site.mqi("daemon", "start")
    clock = Clock()

    def wakes() -> int:
        return sum(
            int(line.split()[1])
            for pid in site.pids()
            for task in Path(f"/proc/{pid}/task").iterdir()
            for line in (task / "status").read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )

    def quiet() -> bool:
        before, began = wakes(), clock.elapsed()
        signal.sigtimedwait([], 3.0)
        return (wakes() - before) / (clock.elapsed() - began) < 8 * len(site.pids())

    eventually(quiet, within=30.0, what="an idle daemon is kept awake by something")
