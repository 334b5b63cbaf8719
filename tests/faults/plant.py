"""A plant: an installation for many small cases with a fake engine, and a crew of real processes that is kept alive.

The crew stands in for the supervisor where a test kills more often than a supervisor's back-off would bear.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from mqi_cli.broker import QUEUE_FILE
from mqi_cli.store import Store, open_store
from servers.house import PATIENT, House, wait_for

# The fake engine: hashes its input, so that its result proves which bytes it had.
_ENGINE = """\
#!/bin/sh
# engine.sh INPUT WORK_DIR
mkdir "$2/out" || exit 9   # an attempt's directory is its own, and empty
cd "$1" && find . -type f ! -name READY -exec sha256sum {} + | LC_ALL=C sort -k 2 > "$2/out/sums.new" &&
mv "$2/out/sums.new" "$2/out/sums.txt" && echo finished
"""

_CONFIG = """\
state: {{path: state/state.db}}
{broker}
hosts:
  gpu:
    type: ssh
    hostname: 127.0.0.1
    port: {port}
    user: {user}
    key_file: {key_file}
    known_hosts: {known_hosts}
    base_dir: {base_dir}
sources:
  - path: incoming
    complete_when: {{marker: READY}}
    workflow: hash
workflows:
  hash:
    - upload: {{host: gpu}}
    - run:
        name: compute
        host: gpu
        command: "{compute}"
        outputs: [out/sums.txt]
        log_must_contain: finished
        poll: 300ms
    - download: {{host: gpu, from: out, to: "{results}/{{case_name}}"}}
    - archive: {{to: "{archive}", compression: none}}
scanner: {{interval: 500ms}}
curator: {{interval: 2s}}
daemon: {{lease: {lease}, retry_first: 300ms, retry_most: 2s, stop_within: 8s, log: {{level: info}}}}
{more}
"""

CREW = ("conductor", "sftp", "ssh-exec", "archiver", "scanner")


class Plant(House):
    """A house with the workflow upload, run, download, archive, whose cases are three small files each."""

    def __init__(self, directory: Path, server: Any, seed: int) -> None:
        super().__init__(directory, server)
        self.random = Random(seed)
        self.dropped: dict[str, dict[str, str]] = {}  # case name: its files' hashes
        self.archive = directory / "archive"
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.secrets: list[str] = []
        self.engine.unlink()
        self.engine = directory / "engine.sh"
        self.engine.write_text(_ENGINE)
        self.engine.chmod(0o700)

    def configure(  # type: ignore[override]
        self,
        *,
        broker: str = "",
        seconds: float = 0,
        lease: str = "3s",
        port: int | None = None,
        results: Path | str = "results",
        archive: Path | str = "archive",
        more: str = "",
    ) -> None:
        """Write the config. `port`: where the SSH server is reached, if not directly."""
        section = self.server.host_section()
        self.archive = self.directory / archive
        self.results = self.directory / results
        self.config.write_text(
            _CONFIG.format(
                broker=broker,
                port=port or section.port,
                user=section.user,
                key_file=section.key_file,
                known_hosts=section.known_hosts,
                base_dir=self.far,
                compute=self.command("compute", f"{self.engine} {{input_dir}} {{work_dir}}", seconds=seconds),
                lease=lease,
                results=results,
                archive=archive,
                more=more,
            )
        )
        self.config.chmod(0o600)

    def drop(self, count: int, *, size: int = 2000) -> list[str]:
        """Write so many cases into the source, of about `size` bytes a file; return their names."""
        names = []
        for _ in range(count):
            name = f"{PATIENT}-{len(self.dropped):04}"
            temporary = self.directory / "incoming" / f".{name}"
            temporary.mkdir()
            hashes = {}
            for file in (f"{PATIENT}.plan", "layer 1.ptn", "layer 2.ptn"):
                data = self.random.randbytes(size + self.random.randrange(100))
                (temporary / file).write_bytes(data)
                hashes[file] = hashlib.sha256(data).hexdigest()
            (temporary / "READY").write_bytes(b"")
            temporary.rename(self.directory / "incoming" / name)
            self.dropped[name] = hashes
            names.append(name)
        return names

    def rename(self, name: str, other: str) -> None:
        """Give a dropped case another name."""
        source = self.directory / "incoming"
        (source / name).rename(source / other)
        self.dropped[other] = self.dropped.pop(name)

    def result(self, name: str) -> bytes:
        """Return what the engine makes of a case."""
        lines = sorted((f"./{file}", digest) for file, digest in self.dropped[name].items())
        return "".join(f"{digest}  {file}\n" for file, digest in lines).encode()

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """Open the state database."""
        store = open_store(self.state / "state.db")
        try:
            yield store
        finally:
            store.close()

    def states(self) -> dict[str, str]:
        """Return each case's state by its name, without a process of its own."""
        if not (self.state / "state.db").exists():
            return {}
        with self.store() as store:
            return {row.name: str(row.state) for row in store.cases.listing(limit=10_000)}

    def all_in(self, *states: str) -> bool:
        """Whether every dropped case is known and in one of these states."""
        found = self.states()
        return all(found.get(name) in states for name in self.dropped)

    def stand(self) -> str:
        """Return what a person would look at when it takes too long."""
        with self.store() as store:
            cases = "\n".join(f"{row.key} {row.state} {row.step} {row.reason}" for row in store.cases.listing(limit=50))
        logs = [line for each in sorted(self.directory.rglob("*.log")) for line in _tail(each)]
        return cases + "\n" + "\n".join(logs)

    def wait_done(self, *, limit: float = 90.0, keep: Any = lambda: None) -> None:
        """Wait until every dropped case is done; `keep` is called at each look."""

        def look() -> bool:
            keep()
            return self.all_in("done")

        wait_for(look, "all cases to be done", limit=limit, pause=0.15, stand=self.stand)

    def wait_starts(self, count: int, *, limit: float = 40.0) -> None:
        """Wait until so many runs have begun."""
        wait_for(lambda: len(self.starts()) >= count, f"{count} runs to begin", limit=limit, stand=self.stand)


def _tail(file: Path) -> Sequence[str]:
    return [f"{file.name}: {line}" for line in file.read_text(errors="replace").splitlines()[-25:]]


class Crew:
    """The conductor and a worker for each lane, started without a supervisor."""

    def __init__(self, plant: Plant, *, before: str = "", environment: dict[str, str] | None = None) -> None:
        self._plant = plant
        self._program = ["-c", f"{before}\nfrom mqi_cli.cli.main import main\nmain()"] if before else ["-m", "mqi_cli"]
        self._environment = {**os.environ, **(environment or {})}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.starts = 0

    def start(self, name: str) -> None:
        """Start one of them."""
        words = ["conductor", "run"] if name == "conductor" else ["worker", "run", name.partition("+")[0], "--patrols"]
        if "+" in name:
            words.pop()  # a second worker of a lane goes no patrols
        with (self._plant.directory / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, *self._program, "--config", str(self._plant.config), *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.starts += 1

    def keep(self) -> None:
        """Start those again that have ended."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                self.start(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send one of them a signal; a killed one is gone when this returns."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running[name].pid, number)
        if number == signal.SIGKILL:
            self.running[name].wait(30)

    def freeze(self, name: str) -> None:
        """Stop one of them where it holds no lock on the embedded queue: one that does holds up all of this machine.

        The daemon ends such a one (supervisor/test_supervisor); here is none.
        """
        queue = self._plant.state / QUEUE_FILE
        for _ in range(50):
            self.kill(name, signal.SIGSTOP)
            wait_for(partial(_is_stopped, self.running[name].pid), f"{name} to be stopped", pause=0.005)
            if not queue.exists():
                return
            with contextlib.closing(sqlite3.connect(queue, timeout=0.2, isolation_level=None)) as connection:
                try:
                    connection.execute("BEGIN EXCLUSIVE")
                    connection.execute("ROLLBACK")
                    return
                except sqlite3.OperationalError:
                    self.kill(name, signal.SIGCONT)
                    time.sleep(0.01)
        raise AssertionError(f"{name} always holds the queue")

    def end(self) -> dict[str, int]:
        """Ask all to end, the conductor last; return their exit codes."""
        wait_for(self._all_catch_the_signal, "each process to have come up", limit=30, stand=self._plant.stand)
        codes = {}
        for names in ([name for name in self.running if name != "conductor"], ["conductor"]):
            for name in (each for each in names if each in self.running):
                self.kill(name, signal.SIGCONT)
                self.kill(name, signal.SIGTERM)
            for name in (each for each in names if each in self.running):
                codes[name] = self.running[name].wait(60)
        self.running.clear()
        return codes

    def _all_catch_the_signal(self) -> bool:
        """Whether each that runs has come so far that a SIGTERM doesn't simply end the interpreter."""
        return all(
            process.poll() is not None or catches(process.pid, signal.SIGTERM) for process in self.running.values()
        )


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal (proc(5), SigCgt)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@contextlib.contextmanager
def crew(plant: Plant, *names: str, before: str = "", **environment: str) -> Iterator[Crew]:
    """Run a crew; afterwards each has ended by itself with exit code 0, and nothing of the plant runs any more.

    `before` is what each of its programs does first, to set a limit that a test can't wait for.
    """
    found = Crew(plant, before=before, environment=environment)
    try:
        for name in names or CREW:
            found.start(name)
        yield found
        codes = found.end()
        assert not any(codes.values()), codes
    finally:
        for process in found.running.values():
            process.kill()
            process.wait()
    wait_for(lambda: not plant.processes(), "no process to be left", limit=15)


def without(directory: Path) -> None:
    """Remove a directory with all that is in it."""
    shutil.rmtree(directory)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
