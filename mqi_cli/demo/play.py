"""The demo from beginning to end: sample cases, a throw-away SSH server, the real daemon, the results checked, nothing left.

Everything lies in one directory, which stays: config, state, results and archive can be looked at afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mqi_cli.case import CaseState
from mqi_cli.demo import engine
from mqi_cli.demo.proof import check_results
from mqi_cli.demo.samples import write_case
from mqi_cli.errors import CaseError, MqiError
from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from mqi_cli.store import Store, open_store
from mqi_cli.store.records import CaseRow

LIMIT = 110.0  # seconds that the demo may take before it gives up and says so

_CONFIG = """\
# The demo's config. Yours can look just like this: `mqi config init` writes one with every key explained.
state: {{path: state/state.db}}
hosts:
  gpu-server:
{host}
sources:
  - path: incoming
    depth: 2                          # <patient>/<study>
    complete_when: {{quiet_for: 2s}}
    workflow: dose_check
workflows:
  dose_check:
    - upload: {{host: gpu-server}}
    - run:
        name: interpret
        host: gpu-server
        command: "{python} {engine} interpret --logdir {{input_dir}} --outputdir {{work_dir}}/csv"
        outputs: [csv/layers.csv]
        poll: 500ms
    - run:
        name: simulate
        host: gpu-server
        command: "{python} {engine} simulate --csvdir {{step.interpret}}/csv --outputdir {{work_dir}}/dose"
        outputs: ["dose/*.raw"]
        log_must_contain: "Total execution time:"
        time_limit: 1m
        poll: 500ms
    - download: {{name: fetch_sums, host: gpu-server, step: interpret, from: csv, to: "results/{{case_name}}/csv"}}
    - download: {{name: fetch_dose, host: gpu-server, step: simulate, from: dose, to: "results/{{case_name}}/dose"}}
    - archive: {{to: archive}}
scanner: {{interval: 1s}}
"""


@dataclass(frozen=True)
class Demo:
    """A demo's place and size."""

    directory: Path
    cases: int
    say: Callable[[str], None]
    watch: Callable[[Path, Callable[[], bool]], None] | None = None  # shows the live view until the function says so

    @property
    def config(self) -> Path:
        """The demo's config file."""
        return self.directory / "mqi.yaml"

    def play(self) -> None:
        """Run the demo. Raises `CaseError` when a case does not come through."""
        began = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._host() as host:
            self._write_config(host)
            names = self._write_cases()
            self._mqi("config", "check")
            self._mqi("daemon", "start")
            try:
                rows = self._follow(names, began)
            finally:
                self._mqi("daemon", "stop")
        self._report(rows, time.monotonic() - began)

    @contextlib.contextmanager
    def _host(self) -> Iterator[str]:
        """Give the config's host: a real SSH server on loopback where one is installed, else this machine itself."""
        if find_sshd() is None:
            self.say("No OpenSSH server is installed here: the host is this machine, without SSH.")
            self.say("(To see it over SSH: apt install openssh-server, and run the demo again.)")
            yield f"    type: local\n    base_dir: {self.directory / 'host'}"
            return
        with OpenSSHServer(self.directory / "sshd") as server:
            self.say(f"A throw-away SSH server on 127.0.0.1:{server.port} plays the GPU server.")
            section = server.host_section()
            yield "\n".join(
                f"    {line}"
                for line in (
                    "type: ssh",
                    "hostname: 127.0.0.1",
                    f"port: {section.port}",
                    f"user: {section.user}",
                    f"key_file: {section.key_file}",
                    f"known_hosts: {section.known_hosts}",
                    f"base_dir: {section.base_dir}",
                )
            )

    def _write_config(self, host: str) -> None:
        program = Path(engine.__file__)
        copy = self.directory / "dose_engine.py"  # the far side has nothing of mqi
        shutil.copyfile(program, copy)
        self.config.write_text(_CONFIG.format(host=host, python=sys.executable, engine=copy))
        self.config.chmod(0o600)

    def _write_cases(self) -> list[str]:
        self.say(f"Sample cases are put into {self.directory / 'incoming'}:")
        random = Random(2026)  # noqa: S311  the same cases each time
        names = []
        for number in range(1, self.cases + 1):
            patient = f"DEMO-{number:04d}"
            study = f"1.2.826.0.1.3680043.8.498.{random.randrange(10**12)}"
            files = write_case(self.directory / "incoming" / patient / study, random, patient=patient)
            names.append(f"{patient}/{study}")
            self.say(f"  case {patient}: a plan and 3 fields, {files} files")
        return names

    def _follow(self, names: list[str], began: float) -> list[CaseRow]:
        state = self.directory / "state" / "state.db"
        store = open_store(state)
        told = 0
        try:

            def finished() -> bool:
                rows = [store.cases.newest("incoming", name) for name in names]
                ended = all(row is not None and row.state in (CaseState.DONE, CaseState.HELD) for row in rows)
                return ended or time.monotonic() - began > LIMIT

            if self.watch is not None:
                self.watch(state, finished)
            while not finished():
                told = self._tell(store, told)
                time.sleep(0.2)
            if self.watch is None:
                self._tell(store, told)
            rows = [row for name in names if (row := store.cases.newest("incoming", name))]
            for row in rows:
                if row.state is not CaseState.DONE:
                    raise CaseError(
                        f"case {row.key} is {row.state} at {row.step or 'its start'}: {row.reason}",
                        hint=f"look at it: mqi --config {self.config} case log {row.key}",
                    )
            if len(rows) < len(names):
                raise CaseError("not every case was found in time", hint=f"mqi --config {self.config} daemon logs")
            return rows
        finally:
            store.close()

    def _tell(self, store: Store, after: int) -> int:
        for event in store.events.after(after):
            after = event.id
            row = store.cases.by_id(event.case) if event.case else None
            if row is not None:
                self.say(f"  {row.name.split('/')[0]}  {event.text}")
        return after

    def _report(self, rows: list[CaseRow], seconds: float) -> None:
        store = open_store(self.directory / "state" / "state.db", read_only=True)
        self.say("")
        for row in rows:
            try:
                proof = check_results(Path(row.directory), self.directory / "results" / row.name)
            except (ValueError, OSError) as error:
                raise CaseError(f"the results of case {row.key} are wrong: {error}") from error
            parts = [part for part in store.parts.of_case(row.id) if part.started_at and part.ended_at]
            took = [f"{part.step} {part.ended_at - part.started_at:.1f} s" for part in parts]  # type: ignore[operator]
            patient = row.name.split("/")[0]
            self.say(f"{patient}  done, checked: {proof}")
            for line in _filled(took, width=78 - len(patient)):
                self.say(f"{'':<{len(patient)}}  {line}")
        store.close()
        mqi = _command()
        these = "The case is done and its" if len(rows) == 1 else f"All {len(rows)} cases are done and their"
        self.say(
            f"""
{these} results are proven, in {seconds:.0f} s. Nothing is left running.
  results   {self.directory / "results"}
  archives  {self.directory / "archive"}
  look at   {mqi} --config {self.config} case list --all

For your own data:
  1. {mqi} init  writes mqi.yaml, with every key explained
  2. edit it: your directory, your GPU server, your commands
  3. {mqi} host trust SERVER, then {mqi} doctor
  4. {mqi} daemon start, then {mqi} watch"""
        )

    def _mqi(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "mqi_cli", "--config", str(self.config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False)
        if done.returncode:
            raise MqiError(f"mqi {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _command() -> str:
    """Return what a person types to call this program here."""
    if shutil.which("mqi"):
        return "mqi"
    program = Path(sys.executable).with_name("mqi")
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)


def _filled(words: Sequence[str], *, width: int) -> Iterator[str]:
    """Yield lines of at most that width, each of whole items."""
    line = ""
    for word in words:
        if line and len(line) + 2 + len(word) > width:
            yield line
            line = ""
        line += ("  " if line else "") + word
    yield line
