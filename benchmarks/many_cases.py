"""How many small cases a minute go through the daemon, and how long one takes on an idle system.

Everything is real and thrown away afterwards: an OpenSSH server on loopback, the queue, the daemon. The account's home
there is an empty one: a slow shell start-up file would weigh on every tool alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mqi_cli.case import CaseState
from mqi_cli.daemon import DaemonFiles
from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from mqi_cli.store import Store, open_store

CASES = 200
ALONE = 7
FILES = 3
FILE_BYTES = 20_000
LIMIT = 900.0  # seconds for all

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
    limits: {{jobs: 32}}
sources:
  - path: incoming
    complete_when: {{marker: READY}}
    workflow: all_steps
workflows:
  all_steps:
    - upload: {{host: far}}
    - run: {{host: far, command: "cp {{input_dir}}/data-0 {{work_dir}}/result", outputs: [result], poll: 500ms}}
    - download: {{host: far, from: ".", to: "results/{{case_name}}"}}
    - archive: {{to: archive}}
scanner: {{interval: 1s}}
"""
SETTINGS = "workers: {sftp: {threads: 6}, ssh-exec: {threads: 6}, archiver: {threads: 6}}\n"


@dataclass(frozen=True)
class Pipeline:
    """A running daemon with its source, below `place`."""

    place: Path
    config: Path

    def alone(self, count: int = ALONE) -> list[float]:
        """Put in one case after the other, each on an idle system; return the seconds from complete to done."""
        seconds = []
        with self.opened() as store:
            for number in range(count):
                name = f"alone-{number}"
                put(self.place, name)
                follow(store, [name], every=0.02)
                row = store.cases.newest("incoming", name)
                assert row is not None
                assert row.ended_at is not None
                complete = next(each.at for each in store.events.of_case(row.id) if each.kind == "accepted")
                seconds.append(row.ended_at - complete)
        return seconds

    def many(self, count: int) -> float:
        """Put in so many cases at once; return the seconds until all are done, the scan for them included."""
        names = [f"case-{number:04d}" for number in range(count)]
        with self.opened() as store:
            began = time.monotonic()
            for each in names:
                put(self.place, each)
            follow(store, names)
            return time.monotonic() - began

    def processes(self) -> dict[str, int]:
        """Return the daemon's processes."""
        status = DaemonFiles(self.place / "state").read_status()
        assert status is not None
        return {"daemon": status.pid, **{each.name: each.pid for each in status.children if each.pid}}

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Lend the state database."""
        store = open_store(self.place / "state" / "state.db")
        try:
            yield store
        finally:
            store.close()


@contextmanager
def pipeline(place: Path, server: OpenSSHServer, *, broker: str = "", settings: str = SETTINGS) -> Iterator[Pipeline]:
    """Run a daemon over a server, with one case gone through. `broker` is the config's section; empty: the embedded queue."""
    section = server.host_section()
    (place / "incoming").mkdir(parents=True)
    config = place / "mqi.yaml"
    text = CONFIG.format(
        port=section.port,
        user=section.user,
        key_file=section.key_file,
        known_hosts=section.known_hosts,
        base_dir=Path(section.base_dir) / place.name,
    )
    config.write_text(broker + text + settings)
    config.chmod(0o600)
    mqi(config, "daemon", "start")
    try:
        running = Pipeline(place, config)
        with running.opened() as store:
            put(place, "warm-up")
            follow(store, ["warm-up"])
        yield running
    finally:
        mqi(config, "daemon", "stop")


def main(cases: int = CASES) -> None:
    """Measure one case on the idle system, then many at once, over the embedded queue, and print both."""
    if find_sshd() is None:
        print("Many cases: left out, there is no OpenSSH server here (apt install openssh-server)")
        return
    with (
        tempfile.TemporaryDirectory(prefix="mqi-bench-") as name,
        OpenSSHServer(Path(name) / "sshd") as server,
        pipeline(Path(name) / "embedded", server) as running,
    ):
        alone = running.alone()
        print(
            f"One case of {FILES} files on an idle system, from complete to done: {statistics.median(alone):.2f} s"
            f" (median of {len(alone)}; best {min(alone):.2f}, worst {max(alone):.2f})"
        )
        seconds = running.many(cases)
        print(f"{cases} cases at once: {seconds:.1f} s, {cases / seconds * 60:.0f} cases per minute")


def put(place: Path, name: str) -> None:
    """Write a complete case."""
    case = place / "incoming" / name
    case.mkdir()
    for number in range(FILES):
        (case / f"data-{number}").write_bytes(f"{name} {number} ".encode() * (FILE_BYTES // len(name)))
    (case / "READY").touch()


def follow(store: Store, names: list[str], *, every: float = 0.25) -> None:
    """Wait until all cases are done. Ends the program when one is held, or after `LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    left = set(names)
    while time.monotonic() < end:
        for row in store.cases.listing(states=[CaseState.HELD]):
            sys.exit(f"case {row.key} is held at {row.step}: {row.reason}")
        if len(left) == 1:
            found = store.cases.newest("incoming", next(iter(left)))
            done = {found.name} if found and found.state is CaseState.DONE else set()
        else:
            done = {row.name for row in store.cases.listing(states=[CaseState.DONE])}
        left -= done
        if not left:
            return
        time.sleep(every)
    sys.exit(f"not all of {len(names)} cases were done within {LIMIT:.0f} s")


def mqi(config: Path, *arguments: str) -> None:
    """Run mqi with this config; shows what it says only when it fails."""
    command = [sys.executable, "-m", "mqi_cli", "--config", str(config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mqi {' '.join(arguments)}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
