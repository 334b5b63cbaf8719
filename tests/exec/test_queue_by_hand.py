"""`mqi exec` with a host whose runs go through Slurm, without a daemon; and `mqi doctor`'s word on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from exec.far_side import until
from exec.test_exec_commands import CommandLine
from mqi_cli import Completed, Verdict
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec.checks import read_queue
from servers.slurm import SlurmCluster

CONFIG = """
state: {{path: state/state.db}}
hosts:
  far: {{type: ssh, hostname: 127.0.0.1, port: {port}, user: {user}, key_file: {key_file}, known_hosts: {known_hosts},
        base_dir: {far}, scheduler: slurm}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
ssh_exec: {{poll: 300ms, kill_after: 1s}}
workflows:
  qa:
    - run: {{name: interpret, host: far, command: "echo line one; sleep 300", partition: main, gpus: 1}}
    - run: {{name: simulate, host: far, command: "true", partition: closed}}
"""


@pytest.fixture
def line(tmp_path: Path, login_node: OpenSSHServer, slurm: SlurmCluster) -> Iterator[CommandLine]:
    """A case that an operator works on by hand."""
    section = login_node.host_section()
    fields = {name: getattr(section, name) for name in ("port", "user", "key_file", "known_hosts")}
    made = CommandLine(tmp_path, CONFIG.format(far=tmp_path / "far", **fields))
    yield made
    slurm.clear()


@pytest.mark.timeout(120)
def test_a_job_is_started_looked_at_followed_and_ended_by_hand(line: CommandLine, slurm: SlurmCluster) -> None:
    run = line.start("exec", "run", "Meier", "--step", "interpret")

    def running() -> bool:
        said = line.start("exec", "status", "Meier", "interpret", "--json").communicate(timeout=60)[0]
        return bool(said) and json.loads(said)[0]["state"] == "running"

    until(running, within=60, what="it runs")
    row = line.status()
    assert row["queue_id"] and row["attempt"] == 1
    follower = line.start("exec", "logs", "Meier", "interpret", "-f")
    assert follower.stdout and follower.stdout.readline() == "line one\n"
    assert "ended: nothing of attempt 1 runs on far" in line.mqi("exec", "kill", "Meier", "interpret", "--yes")
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1 and "interpret of this case was ended by an operator meanwhile" in out + err
    follower.communicate(timeout=60)
    until(lambda: not slurm.call("squeue", "--noheader"), what="nothing is in the queue")


def test_the_doctor_says_whether_slurm_answers() -> None:
    fine, silent = Completed(0, b"", b""), Completed(1, b"", b"Slurm accounting storage is disabled")
    assert read_queue("slurm on far", silent, silent).verdict is Verdict.FAIL
    assert read_queue("slurm on far", fine, silent).text.startswith("squeue answers, sacct does not")
    assert read_queue("slurm on far", fine, fine).text == "squeue and sacct answer"
