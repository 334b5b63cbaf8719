"""The throw-away OpenSSH server itself, spoken to by OpenSSH's own client."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer

pytestmark = pytest.mark.sshd


def ssh(server: OpenSSHServer, *command: str) -> subprocess.CompletedProcess[str]:
    options = ["-F", "none", "-i", str(server.key_file), "-p", str(server.port), "-o", "BatchMode=yes"]
    options += ["-o", f"UserKnownHostsFile={server.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    return subprocess.run(["ssh", *options, f"{server.user}@127.0.0.1", *command], capture_output=True, text=True)


def test_it_runs_commands_in_a_home_of_its_own(sshd: OpenSSHServer) -> None:
    done = ssh(sshd, "echo $HOME")
    assert (done.returncode, done.stdout.strip()) == (0, str(sshd.home)), done.stderr


def test_it_comes_back_on_its_port_after_a_crash(own_sshd: OpenSSHServer) -> None:
    port = own_sshd.start().port
    own_sshd.kill()
    assert ssh(own_sshd, "true").returncode == 255
    assert own_sshd.restart().port == port
    assert ssh(own_sshd, "true").returncode == 0


def test_a_variant_without_programs_runs_none(own_sshd: OpenSSHServer) -> None:
    own_sshd.start()
    assert "hello" not in ssh(own_sshd.sftp_only(), "echo hello").stdout


def test_stop_ends_what_a_session_left_running(own_sshd: OpenSSHServer) -> None:
    own_sshd.start()
    pid = int(ssh(own_sshd, "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!").stdout)
    own_sshd.kill()
    assert Path(f"/proc/{pid}").exists(), "a crash of the server leaves programs alone"
    own_sshd.stop()
    wait_gone(pid)


def wait_gone(pid: int) -> None:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.01)
    pytest.fail("it is still there")
