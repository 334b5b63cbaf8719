"""What it costs to look after many runs on one host: one look at all of them, and the worker's CPU while they go on.

Everything is real and thrown away afterwards: an OpenSSH server on loopback, the embedded queue, the daemon, and as many
detached runs as `RUNS` says.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from many_cases import mqi

from mqi_cli.case import CaseState
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from mqi_cli.store import Store, open_store
from mqi_ssh_exec.asking import ask
from mqi_ssh_exec.helper_calls import Place, survey_call
from mqi_ssh_exec.job_status import JobState, read_survey

RUNS = int(os.environ.get("MQI_BENCH_RUNS", "500"))
YOUNG = 60.0  # seconds for which a run is looked at more often than later
WATCH = 60.0  # seconds for which the CPU is measured
LIMIT = 900.0
LOOKS = 5

CONFIG = """\
state: {{path: state/state.db}}
hosts:
  far:
    type: ssh
    hostname: 127.0.0.1
    port: {port}
    user: {user}
    key_file: {key_file}
    known_hosts: {known_hosts}
    base_dir: {base_dir}
    limits: {{jobs: 100000}}
sources:
  - {{path: incoming, complete_when: {{marker: READY}}, workflow: long_runs}}
workflows:
  long_runs:
    - run: {{host: far, command: "echo begun; sleep 3600"}}
scanner: {{interval: 1s}}
workers: {{ssh-exec: {{threads: 4}}}}
"""


def main(runs: int = RUNS) -> None:
    """Start the runs, measure, end them."""
    if find_sshd() is None:
        print("Many runs: left out, there is no OpenSSH server here (apt install openssh-server)")
        return
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        with OpenSSHServer(place / "sshd") as server:
            section = server.host_section()
            fields = ("port", "user", "key_file", "known_hosts", "base_dir")
            config = place / "mqi.yaml"
            config.write_text(CONFIG.format(**{each: getattr(section, each) for each in fields}))
            config.chmod(0o600)
            for number in range(runs):
                case = place / "incoming" / f"case-{number:04d}"
                case.mkdir(parents=True)
                (case / "data").write_text("x")
                (case / "READY").touch()
            mqi(config, "daemon", "start")
            try:
                measure(place, server, runs)
            finally:
                mqi(config, "daemon", "stop")


def measure(place: Path, server: OpenSSHServer, runs: int) -> None:
    """Wait until all run, then print what one look takes and what the worker needs."""
    store = open_store(place / "state" / "state.db")
    host = SshHost("far", server.host_section(), place)
    try:
        until(lambda: len(started(server)) >= runs, "all runs to begin")
        places = [Place(PurePosixPath(each.parent), 1) for each in started(server)]
        seconds = min(look(host, places) for _ in range(LOOKS))
        print(f"One look at {runs} runs on one host, one call over SSH: {seconds:.2f} s (best of {LOOKS})")
        worker = next(each.pid for each in store.workers.all() if each.lane == "ssh-exec")
        share = share_of(worker, YOUNG)
        print(
            f"The worker that looks after them: {share:.1%} of one CPU in the first {YOUNG:.0f} s, while they are young"
        )
        sessions = connections(server)
        share = share_of(worker, WATCH)
        print(f"and afterwards: {share:.1%}, over {WATCH:.0f} s at the default `poll` (aim 10 %)")
        print(f"SSH connections opened meanwhile: {connections(server) - sessions}")
        check(store)
    finally:
        host.close()
        store.close()


def share_of(worker: int, seconds: float) -> float:
    """Return how much of one CPU a process takes, over so many seconds from now."""
    before, began = cpu(worker), time.monotonic()
    time.sleep(seconds)
    return (cpu(worker) - before) / (time.monotonic() - began)


def look(host: SshHost, places: list[Place]) -> float:
    """Look at all runs once; return the seconds it took."""
    began = time.monotonic()
    seen = read_survey(ask(host, lambda helper: survey_call(helper, places)).decode())
    seconds = time.monotonic() - began
    if any(seen[str(each.part), 1].state is not JobState.RUNNING for each in places):
        sys.exit("a run is not seen as running")
    return seconds


def started(server: OpenSSHServer) -> list[Path]:
    """Return the records' directories of all runs that have begun."""
    return [each.parent for each in server.base_dir.glob("c*/work/run/_/.1.job/started")]


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connections(server: OpenSSHServer) -> int:
    """Count the log-ins that the server has seen."""
    return server.log().count("Accepted publickey")


def check(store: Store) -> None:
    """End the program where a case did not stay at work."""
    if store.cases.counts().get(CaseState.HELD):
        sys.exit("a case is held")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {LIMIT:.0f} s for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
