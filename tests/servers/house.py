"""A whole installation in one directory: config, source, far-side programs, real `mqi` processes, and its words for waiting.

The fixture `house` gives one whose host is the session's real SSH server; what a failed test leaves of it is kept in
`test-artefacts/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mqi_cli.demo import engine
from mqi_cli.demo.samples import write_case
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.rabbitmq import RabbitNode

PATIENT = "ZZPATIENT0815"
STUDY = "1.2.826.0.1.3680043.8.498.4711"
NAME = f"{PATIENT}/{STUDY}"

# The program that a run starts: it notes each of its starts, durably, before it does anything.
_LEDGER = """\
#!/bin/sh
# ledger.sh FILE CASE STEP WORK_DIR SECONDS PROGRAM...   WORK_DIR ends in PART/ATTEMPT
part="${4%/*}"
since="$(cut -d ' ' -f 22 /proc/$$/stat 2>/dev/null)"
printf '%s %s %s %s %s %s\\n' "$2" "$3" "${4##*/}" "$$" "${part##*/}" "${since:-0}" |
    dd of="$1" oflag=append conv=notrunc,fsync 2>/dev/null
sleep "$5"
shift 5
exec "$@"
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
    depth: 2
    complete_when: {complete_when}
    workflow: dose_check
workflows:
  dose_check:
    - upload: {{host: gpu}}
    - run:
        name: interpret
        host: gpu
        command: "{interpret}"
        outputs: [csv/layers.csv]
        poll: 300ms
    - run:
        name: simulate
        host: gpu
        command: "{simulate}"
        outputs: [{outputs}]
        log_must_contain: "Total execution time:"
        poll: 300ms
    - download: {{name: fetch_sums, host: gpu, step: interpret, from: csv, to: "results/{{case_name}}/csv"}}
    - download: {{name: fetch_dose, host: gpu, step: simulate, from: dose, to: "results/{{case_name}}/dose"}}
    - archive: {{to: archive}}
scanner: {{interval: 1s}}
daemon: {{lease: 3s, retry_first: 1s, stop_within: 10s}}
"""


class House:
    """An installation below `directory`. Its processes are known by the directory's path in their arguments."""

    def __init__(self, directory: Path, server: OpenSSHServer) -> None:
        self.directory = directory
        self.server = server
        self.config = directory / "mqi.yaml"
        self.state = directory / "state"
        self.results = directory / "results" / NAME
        self.ledger_file = directory / "ledger"
        self.far = directory / "far"
        self.far.mkdir(mode=0o700)
        (directory / "incoming").mkdir()
        self.engine = directory / "dose_engine.py"
        shutil.copyfile(engine.__file__, self.engine)
        self.script = directory / "ledger.sh"
        self.script.write_text(_LEDGER)
        self.script.chmod(0o700)

    def command(self, step: str, program: str, *, seconds: float = 0) -> str:
        """Return a run's command: through the ledger, after a while, the program."""
        return f"{self.script} {self.ledger_file} {{case_key}} {step} {{work_dir}} {seconds} {program}"

    def broker(self, node: RabbitNode) -> str:
        """Return the config's section for a RabbitMQ, with queues of this house alone."""
        secret = self.directory / "broker.secret"
        secret.write_text(node.password)
        secret.chmod(0o600)
        return f"broker: {{url: '{node.url}', password_file: {secret}, prefix: {self.directory.name}}}"

    def configure(
        self,
        *,
        broker: str = "",
        complete_when: str = "{quiet_for: 2s}",
        simulate: str = "",
        seconds: float = 0,
        outputs: str = '"dose/*.raw"',
        known_hosts: Path | None = None,
    ) -> None:
        """Write the config."""
        section = self.server.host_section()
        program = f"{sys.executable} {self.engine}"
        interpret = f"{program} interpret --logdir {{input_dir}} --outputdir {{work_dir}}/csv"
        simulate = simulate or f"{program} simulate --csvdir {{step.interpret}}/csv --outputdir {{work_dir}}/dose"
        self.config.write_text(
            _CONFIG.format(
                broker=broker,
                complete_when=complete_when,
                port=section.port,
                user=section.user,
                key_file=section.key_file,
                known_hosts=known_hosts or section.known_hosts,
                base_dir=self.far,
                outputs=outputs,
                interpret=self.command("interpret", interpret),
                simulate=self.command("simulate", simulate, seconds=seconds),
            )
        )
        self.config.chmod(0o600)

    def write_case(self, directory: Path, *, layers: int = 2, records: int = 40) -> Path:
        """Write a case of three fields."""
        write_case(directory, Random(7), patient=PATIENT, layers=layers, records=records)
        return directory

    def drop_case(self) -> Path:
        """Write a small case into the source."""
        return self.write_case(self.directory / "incoming" / NAME)

    def mqi(self, *arguments: str, code: int | None = 0) -> str:
        """Run `mqi` as its user does; return all that it said. `code` is the exit code that it must have."""
        done = subprocess.run(
            [sys.executable, "-m", "mqi_cli", "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"COLUMNS": "1000"},
            timeout=90,
            check=False,
        )
        said = done.stdout + done.stderr
        with (self.directory / "said").open("a") as record:
            record.write(f"$ mqi {' '.join(arguments)}\n{said}")
        assert code is None or done.returncode == code, f"mqi {' '.join(arguments)}: {done.returncode}\n{said}"
        return said

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon; afterwards it is stopped, and nothing of this house runs any more."""
        try:
            self.mqi("daemon", "start")
            yield
        finally:
            self.mqi("daemon", "stop", code=None)
        wait_for(lambda: not self.processes(), "no process to be left", limit=15)

    def processes(self) -> dict[int, str]:
        """Return every process, here or on the far side, that has the house's path in its arguments."""
        return processes_of(self.directory)

    def children(self) -> dict[str, int]:
        """Return the daemon's processes by name."""
        found = json.loads(self.mqi("daemon", "status", "--json", code=None))
        return {child["name"]: child["pid"] for child in found.get("children", []) if child.get("pid")}

    def cases(self) -> list[dict[str, Any]]:
        """Return the cases as `mqi case list --json` has them."""
        found: list[dict[str, Any]] = json.loads(self.mqi("case", "list", "--all", "--json"))
        return found

    def wait_state(self, *states: str, limit: float = 60.0) -> dict[str, Any]:
        """Wait until the one case is in one of the states."""

        def look() -> dict[str, Any] | None:
            cases = self.cases()
            return cases[0] if cases and cases[0]["state"] in states else None

        def stand() -> str:
            return self.mqi("case", "list", "--all", "--json") + self.mqi("daemon", "logs", "-n", "60", code=None)

        found: dict[str, Any] = wait_for(look, f"the case to be {states}", limit=limit, pause=0.3, stand=stand)
        return found

    def starts(self) -> list[tuple[str, str, str]]:
        """Return the ledger: case key, step and work directory of each start."""
        if not self.ledger_file.exists():
            return []
        lines = [line.split() for line in self.ledger_file.read_text().splitlines()]
        return [(line[0], line[1], line[2]) for line in lines]

    def expected(self, case: Path) -> dict[str, str]:
        """Return the hashes of what the programs make of a case when they are run right here."""
        out = self.directory / "expected"
        for arguments in (
            ("interpret", "--logdir", str(case), "--outputdir", str(out / "csv")),
            ("simulate", "--csvdir", str(out / "csv"), "--outputdir", str(out / "dose")),
        ):
            subprocess.run([sys.executable, str(self.engine), *arguments], check=True, capture_output=True)
        return hashes(out)


def hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory."""
    return {
        str(each.relative_to(directory)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in directory.rglob("*")
        if each.is_file()
    }


def wait_for(
    condition: Callable[[], Any],
    what: str,
    *,
    limit: float = 30.0,
    pause: float = 0.1,
    stand: Callable[[], str] = lambda: "",
) -> Any:
    """Wait until the condition gives something true, and return it."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {limit:.0f} s for {what}\n{stand()}"
        time.sleep(pause)
    return found


ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"
_NOT_KEPT = ("far", "incoming", "results", "archive", "expected", "broker.secret")  # large, or a secret
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note that a test failed, for the fixtures that keep what it leaves."""
    report: Any = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@contextmanager
def kept_on_failure(directory: Path, test: pytest.Item) -> Iterator[None]:
    """End what a test left running in a directory and remove it; keep its logs and databases first if the test failed."""
    try:
        yield
    finally:
        for pid in processes_of(directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if test.stash.get(_FAILED, False):
            kept = ARTEFACTS / "".join(letter if letter.isalnum() else "-" for letter in test.name)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(directory, kept, ignore=_pass_over, ignore_dangling_symlinks=True)
        shutil.rmtree(directory, ignore_errors=True)


def _pass_over(directory: str, names: list[str]) -> list[str]:
    def is_plain(name: str) -> bool:
        path = Path(directory, name)
        return path.is_dir() or path.is_file()

    return [name for name in names if name in _NOT_KEPT or not is_plain(name)]


def processes_of(directory: Path) -> dict[int, str]:
    """Return every process, here or on the far side, that has the directory's path in its arguments."""
    found = {}
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line and int(each.parent.name) != os.getpid():
            found[int(each.parent.name)] = line
    return found


@pytest.fixture
def house(sshd: OpenSSHServer, request: pytest.FixtureRequest) -> Iterator[House]:
    """An installation that is not configured yet."""
    directory = Path(tempfile.mkdtemp(prefix="mqi-house-"))
    with kept_on_failure(directory, request.node):
        yield House(directory, sshd)
