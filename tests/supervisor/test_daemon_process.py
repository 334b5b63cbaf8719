"""The supervisor in a process of its own: what its death, its signals and a second one of its kind do."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from mqi_cli.crew import ChildState
from mqi_cli.daemon import DaemonFiles
from supervisor.bench import OBEDIENT, ROOT, STUBBORN, Daemons, Programs, alive, eventually


def test_children_end_when_the_supervisor_is_killed(daemons: Daemons, program: Programs) -> None:
    process = daemons.start(program("conductor", OBEDIENT, last=True), program("worker-1", OBEDIENT))
    pids = [each.pid or 0 for each in daemons.ready().children]
    process.kill()
    process.wait()
    assert daemons.files.running() is None, "a killed daemon does not count as running"
    assert daemons.files.read_status() is None
    eventually(lambda: not any(map(alive, pids)), within=10.0)
    daemons.start(program("conductor", OBEDIENT))
    daemons.ready()


def test_children_that_ignore_everything_end_within_ten_seconds_of_the_supervisors_death(
    daemons: Daemons, program: Programs
) -> None:
    source = STUBBORN.replace('print("up', 'import subprocess; subprocess.Popen(["sleep", "600"]); print("up')
    process = daemons.start(program("worker-1", source))
    pid = daemons.ready().children[0].pid or 0
    process.kill()
    process.wait()
    eventually(lambda: not alive(pid), within=10.0)
    eventually(lambda: not _group(pid), within=1.0, what="what it had started lives on")


def _group(leader: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z" and int(fields[2]) == leader:
            members.append(int(path.parent.name))
    return members


def test_sigterm_drains_and_leaves_nothing(daemons: Daemons, program: Programs, files: DaemonFiles) -> None:
    process = daemons.start(program("conductor", OBEDIENT, last=True), program("worker-1", OBEDIENT))
    pids = [each.pid or 0 for each in daemons.ready().children]
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert not any(map(alive, pids))
    assert "drained" in files.log("worker-1").read_text()
    assert "drained" in files.log("conductor").read_text()
    assert not files.status.exists()
    assert sorted(path.name for path in files.lock.parent.iterdir()) == ["daemon.lock", "logs"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_means_now(daemons: Daemons, program: Programs, number: signal.Signals) -> None:
    process = daemons.start(program("worker-1", STUBBORN), stop_within=60.0)
    pid = daemons.ready().children[0].pid or 0
    process.send_signal(number)
    eventually(lambda: (found := daemons.files.read_status()) and found.state == "stopping")
    assert alive(pid)
    process.send_signal(number)
    assert process.wait(timeout=5) == 0
    assert not alive(pid)


def test_what_has_not_drained_in_time_is_killed(daemons: Daemons, program: Programs) -> None:
    process = daemons.start(program("worker-1", STUBBORN), stop_within=0.5)
    pid = daemons.ready().children[0].pid or 0
    process.terminate()
    assert process.wait(timeout=5) == 0
    assert not alive(pid)


def test_a_bug_in_the_supervisor_is_in_its_log_and_leaves_no_child(
    daemons: Daemons, program: Programs, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import mqi_cli.supervisor as it\n"
        "def bug(self):\n"
        "    if any(each.state == 'running' for each in self.children.values()): raise ValueError('DOE^JANE')\n"
        "it.Supervisor._watch_memory = bug\n"
    )
    process = daemons.start(program("worker-1", STUBBORN), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert process.wait(timeout=20) == 70
    text = daemons.files.log("daemon").read_text()
    assert "CRITICAL daemon: crashed" in text
    assert "ValueError" in text
    assert "DOE^JANE" not in text
    pid = int(daemons.files.log("worker-1").read_text().split("pid ")[1].split()[0])
    assert not alive(pid)
    assert not daemons.files.status.exists()


def test_a_second_daemon_refuses_and_names_the_first(daemons: Daemons, program: Programs) -> None:
    first = daemons.start(program("worker-1", OBEDIENT))
    daemons.ready()
    second = daemons.start(program("worker-2", OBEDIENT))
    assert second.wait(timeout=10) == 8
    assert second.stderr is not None
    assert f"process {first.pid}" in second.stderr.read()
    assert daemons.ready().children[0].state is ChildState.RUNNING


def test_sighup_reloads_and_keeps_what_did_not_change(daemons: Daemons, program: Programs) -> None:
    process = daemons.start(program("worker-1", OBEDIENT))
    before = daemons.ready().children[0].pid
    process.send_signal(signal.SIGHUP)
    os.kill(before or 0, signal.SIGKILL)
    eventually(lambda: (found := daemons.ready().children[0]).restarts == 1 and found.state is ChildState.RUNNING)
    assert process.poll() is None


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_of_ready_watchdog_reload_and_stop(
    daemons: Daemons, program: Programs, tmp_path: Path, abstract: bool
) -> None:
    name = f"@mqi-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(0.05)
        heard: list[str] = []

        def hears(text: str) -> bool:
            try:
                while True:
                    heard.append(receiver.recv(4096).decode())
            except TimeoutError:
                return any(text in each for each in heard)

        showing = OBEDIENT.replace(
            "print(", "import os; print(os.environ.get('NOTIFY_SOCKET'), os.environ.get('WATCHDOG_USEC'),", 1
        )
        process = daemons.start(program("worker-1", showing), NOTIFY_SOCKET=name, WATCHDOG_USEC="1000000")
        eventually(lambda: hears("READY=1\nSTATUS=1 of 1 processes run"))
        eventually(lambda: hears("WATCHDOG=1"))
        heard.clear()
        process.send_signal(signal.SIGHUP)
        eventually(lambda: hears("RELOADING=1\nMONOTONIC_USEC="))
        eventually(lambda: hears("READY=1"))
        process.terminate()
        eventually(lambda: hears("STOPPING=1"))
        assert process.wait(timeout=10) == 0
    assert "None None up" in daemons.files.log("worker-1").read_text(), "a child must not speak for the daemon"
