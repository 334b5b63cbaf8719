"""A source with many unchanged cases: what a rescan costs, against `find` reading the same directories once.

The cases are accepted already, and the scanner has met each of them once. What every look at all files takes after a
restart is told beside it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mqi_cli.case import CaseState, derive_key
from mqi_cli.clock import Clock
from mqi_cli.conductor import Conductor
from mqi_cli.config.load import load_config
from mqi_cli.host_pool import HostPool
from mqi_cli.intake import Intake
from mqi_cli.patrolling import Round
from mqi_cli.plugins import load_plugins
from mqi_cli.store import Store, open_store
from mqi_scanner.memory import look_at
from mqi_scanner.plugin import the_scan

CASES, FILES = 10_000, 200
ROUNDS = 5
LIMIT = 1.0  # of what find takes
CONFIG = """\
state: {{path: {place}/state/state.db}}
hosts: {{here: {{type: local, base_dir: {place}/far}}}}
sources:
  - {{path: {place}/incoming, complete_when: {{marker: READY}}, workflow: up}}
workflows: {{up: [upload: {{host: here}}]}}
"""


def main(cases: int = CASES, files: int = FILES) -> None:
    """Make the source, let the scanner meet it, and measure rescans and `find` in turn."""
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        make(place / "incoming", cases, files)
        config = place / "mqi.yaml"
        config.write_text(CONFIG.format(place=place))
        config.chmod(0o600)
        scanner = Scanner(config)
        scanner.accept_all(place / "incoming")
        first = timed(scanner.meet)
        pairs = [(timed(scanner.round), timed(lambda: find(place / "incoming"))) for _ in range(ROUNDS)]
        rescan, peer = statistics.median(each[0] for each in pairs), statistics.median(each[1] for each in pairs)
        assert scanner.scan.round.unchanged == cases, scanner.scan.round
        verdict = "" if rescan <= LIMIT * peer else "   TOO SLOW"
        print(
            f"A rescan of {cases:,} unchanged cases of {files} files, CPU seconds, medians of {ROUNDS} interleaved rounds"
        )
        print(f"  rescan {rescan:.2f} s, find {peer:.2f} s: ratio {rescan / peer:.2f}{verdict}")
        print(
            f"  the first look at all {cases * files:,} files after a start: {first:.1f} s, in rounds of at most 30 s"
        )
        (place / "incoming" / "new").mkdir()
        (place / "incoming" / "new" / "READY").touch()
        (place / "incoming" / "new" / "data").write_text("x")
        began = time.perf_counter()
        scanner.round()
        row = scanner.store.cases.newest("incoming", "new")
        seen = f"seen in the next round ({time.perf_counter() - began:.1f} s)" if row else "NOT SEEN in the next round"
        print(f"  one more case is {seen}, a round comes every {scanner.interval:.0f} s")
        scanner.store.close()


def make(incoming: Path, cases: int, files: int) -> None:
    """Write the cases. Their files are empty: what is measured is looking, not reading."""
    for number in range(cases):
        case = incoming / f"case-{number:05d}"
        case.mkdir(parents=True)
        at = os.open(case, os.O_RDONLY | os.O_DIRECTORY)
        for name in ("READY", *(f"{number:05d}_layer_{each:03d}.ptn" for each in range(files - 1))):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at))
        os.close(at)


def find(place: Path) -> None:
    """Read every directory once."""
    subprocess.run(["find", str(place)], stdout=subprocess.DEVNULL, check=True)


def timed(act: Callable[[], object]) -> float:
    """Return the CPU seconds that something takes, its child processes included."""
    before = _cpu()
    act()
    return _cpu() - before


def _cpu() -> float:
    found = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


class Scanner:
    """The scanner's patrol over a real state database."""

    def __init__(self, file: Path) -> None:
        self._plugins = load_plugins(())
        self._config = load_config(file, self._plugins)
        self.store: Store = open_store(self._config.state_path)
        self._intake = Intake(Conductor(self.store, self._config))
        self._patrol = self._plugins.patrols["scan"]
        self.interval = self._patrol.interval(self._config.sections["scanner"])
        self.scan = the_scan()

    def accept_all(self, incoming: Path) -> None:
        """Write every case into the state database as done, as it lies there now."""
        with self.store.transaction():
            for case in incoming.iterdir():
                look, _ = look_at(case)
                self.store.cases.add(
                    key=derive_key("incoming", case.name, 1), source="incoming", name=case.name, revision=1,
                    state=CaseState.DONE, directory=str(case), workflow="up", fingerprint="f" * 64, step="up",
                    snapshot=look.snapshot, look=look.snapshot, created_at=0.0, updated_at=0.0, ended_at=1.0,
                )  # fmt: skip

    def meet(self) -> None:
        """Do rounds until every case was looked at."""
        self.round()
        while self.scan.round.left:
            self.round()

    def round(self) -> None:
        """Do one round, as the daemon does each interval."""
        self._patrol.run(
            Round(
                self._patrol, config=self._config, plugins=self._plugins, hosts=HostPool(self._config, self._plugins),
                intake=self._intake, store=self.store, clock=Clock(), stopping=lambda: False,
            )
        )  # fmt: skip


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:]))
