"""What a million cases and ten million entries of the log cost: whole commands, and events that the conductor applies.

Takes some minutes and 6 GB of disk: `make bench-store`. The peer of each command is itself over an empty store, in the same
rounds; an event's peer is the disk's own fdatasync, because every event is on the disk when its transaction has ended.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from big_store import build, name_of
from flow import Flow, share

from mqi_cli.store import open_store
from mqi_cli.store.backup import backup, check

CASES = 1_000_000
ROUNDS = 5
LIMIT = 0.5  # seconds for a command
EVENT_LIMIT = 0.005
EVENTS = 3000


def main(cases: int = CASES) -> None:
    """Build the store, measure, print."""
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        began = time.perf_counter()
        store = build(place / "big" / "state.db", cases=cases)
        size = store.path.stat().st_size
        print(
            f"{cases:,} cases, {cases * 10:,} entries of the log: {size / 1e9:.1f} GB, made in {time.perf_counter() - began:.0f} s"
        )
        open_store(place / "empty" / "state.db").close()
        commands(place, cases)
        events(store.path, place)
        store.close()
        keeping(place / "big" / "state.db", size)


def commands(place: Path, cases: int) -> None:
    """Measure whole commands, each a new process, over the big and over an empty store in turn."""
    config = place / "mqi.yaml"
    name = name_of(cases // 2)
    wanted: dict[str, list[str]] = {
        "status": ["status"],
        "case list": ["case", "list"],
        "case list --all": ["case", "list", "--all"],
        "case list --state held": ["case", "list", "--state", "held"],
        "case why NAME": ["case", "why", name],
        "case why PREFIX": ["case", "why", name[:-1]],
        "case log": ["case", "log", name],
        "watch --once": ["watch", "--once"],
    }
    print(f"Whole commands, best of {ROUNDS}; the aim is below {LIMIT} s")
    for title, arguments in wanted.items():
        best: dict[str, tuple[float, float]] = {}
        for _ in range(ROUNDS):
            for which in ("empty", "big"):
                config.write_text(f"state: {{path: {place / which / 'state.db'}}}\n")
                config.chmod(0o600)
                took = _command(config, arguments)
                best[which] = min(took, best.get(which, took))
        (wall, cpu), (empty, _) = best["big"], best["empty"]
        verdict = "" if cpu < LIMIT else "   TOO SLOW"
        print(f"  {title:<24} {wall:5.2f} s wall, {cpu:4.2f} s CPU; over an empty store {empty:4.2f} s{verdict}")


def _command(config: Path, arguments: list[str]) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = str(Path(sys.executable).with_name("mqi"))
    subprocess.run(
        [program, "--config", str(config), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def events(path: Path, place: Path) -> None:
    """Measure events one by one over the big and over an empty store, each with its fsync, and the disk's fsync alone."""
    print(
        f"{EVENTS} events, each a transaction of its own with synchronous=FULL; the aim is {EVENT_LIMIT * 1000:.0f} ms at the 99th percentile"
    )
    worst: dict[tuple[str, str], float] = {}
    for title, at in (("empty", place / "flow" / "state.db"), ("big", path)):
        for clock, what in ((time.perf_counter, "wall"), (time.process_time, "CPU")):
            store = open_store(at)
            flow = Flow(store, clock=clock)
            with store.transaction():
                flow.conductor.dispatch.wake(
                    "jobs:far"
                )  # the first of those that wait; each that ends lets the next begin
            number = 0
            while len(flow.spent) < EVENTS // 2:
                number += 1
                flow.new_case(f"new-{what}-{number}")
                for command in flow.commands():
                    flow.do(command)
            found = [share(flow.spent, part) * 1000 for part in (0.5, 0.99, 1.0)]
            worst[title, what] = found[1]
            print(
                f"  {title:<6} {what:<5} {found[0]:6.2f} ms median, {found[1]:6.2f} ms at the 99th percentile,"
                f" {found[2]:6.1f} ms at most"
            )
            store.close()
    alone = [share(synced(place / "synced"), part) * 1000 for part in (0.5, 0.99)]
    print(f"  the disk's fdatasync of 4 KiB alone: {alone[0]:.2f} ms median, {alone[1]:.2f} ms at the 99th percentile")
    verdict = "" if worst["big", "CPU"] < EVENT_LIMIT * 1000 else "   TOO SLOW"
    print(
        f"  at the 99th percentile big/empty: {worst['big', 'CPU'] / worst['empty', 'CPU']:.2f} in CPU time,"
        f" and {worst['big', 'wall'] / alone[1]:.1f} times the disk's fdatasync in wall time{verdict}"
    )


def synced(path: Path, *, times: int = 500) -> list[float]:
    """Return how long the disk takes for appended pages."""
    taken = []
    with path.open("wb", buffering=0) as stream:
        for _ in range(times):
            began = time.perf_counter()
            stream.write(b"x" * 4096)
            os.fdatasync(stream.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def keeping(path: Path, size: int) -> None:
    """Measure the check and the backup against a plain copy of the file."""
    began = time.perf_counter()
    shutil.copyfile(path, path.with_name("copy"))
    with path.with_name("copy").open("rb") as stream:
        os.fsync(stream.fileno())
    copied = time.perf_counter() - began
    path.with_name("copy").unlink()
    began = time.perf_counter()
    problems = check(path)
    checked = time.perf_counter() - began
    began = time.perf_counter()
    backup(path, path.parent / "backups")
    backed_up = time.perf_counter() - began
    wal = path.with_name(path.name + "-wal")
    print(
        f"{size / 1e9:.1f} GB: check {checked:.0f} s ({len(problems)} problems), backup with its check {backed_up:.0f} s, a plain copy {copied:.0f} s"
    )
    print(f"  the WAL has {wal.stat().st_size / 1e6 if wal.exists() else 0:.0f} MB afterwards")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
