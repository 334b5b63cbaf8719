"""After a run: does everything that the design promises hold? One checker for every fault.

It looks at the state database, the ledger that the fake engine kept, the results, the archives, the far side, the
dead letters, the files and processes that are left, and everything that was logged. It returns sentences: none is well.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.plant import Plant
from mqi_cli.broker import open_broker
from mqi_cli.broker.base import DeadLetter
from mqi_cli.config.load import load_config
from mqi_cli.lock import holder
from mqi_cli.message import EVENTS_LANE
from mqi_cli.plugins import load_plugins
from servers.house import PATIENT

LANES = (EVENTS_LANE, "sftp", "ssh-exec", "archiver", "scanner", "curator")
TERMINAL = ("done", "cancelled", "held")
# What may lie in the state directory after a stop. Anything else was forgotten.
STATE_FILES = re.compile(
    r"(state|queue)\.db(-wal|-shm)?|state\.db\.replaced-.*|.*\.lock|daemon\.json|logs/[a-z-]+(-\d+)?\.log(\.\d+)?|backups/.*"
    r"|plugins/.*|connections/[a-z]+\.\d+|queue\.db\.bells?/?.*|bells/.*|known_hosts"
)
NAMES = (PATIENT, ".ptn", ".plan")


@dataclass(frozen=True)
class Allowed:
    """What a test did on purpose, so that the checker does not take it for a fault."""

    poisoned: int = 0  # messages among the dead letters
    restarts: frozenset[str] = frozenset()  # names of cases whose run may have begun more than once
    ends: frozenset[str] = frozenset(("done",))  # states in which cases may be


def faults(plant: Plant, allowed: Allowed = Allowed()) -> list[str]:
    """Return everything that is wrong. Call it when nothing of the plant runs any more."""
    found = [*_database(plant), *_cases(plant, allowed), *_ledger(plant, allowed), *_results(plant), *_archives(plant)]
    found += [*_far_side(plant), *_left_behind(plant), *_dead_letters(plant, allowed), *_told(plant)]
    return found


def check(plant: Plant, allowed: Allowed = Allowed()) -> None:
    """Fail the test with everything that is wrong."""
    found = faults(plant, allowed)
    assert not found, "\n".join(found)


# ---- I1, I4, I8: the cases, and what is said of them ----


def _database(plant: Plant) -> Iterator[str]:
    for file in (plant.state / "state.db", plant.state / "queue.db"):
        if file.exists():
            for (line,) in _rows(file, "PRAGMA integrity_check"):
                if line != "ok":
                    yield f"{file.name}: {line}"
    for (count,) in _rows(plant.state / "state.db", "SELECT count(*) FROM outbox WHERE sent_at IS NULL"):
        if count:
            yield f"{count} commands were never sent"
    for case, step in _rows(
        plant.state / "state.db",
        "SELECT c.name, p.step FROM outbox o JOIN part p ON p.id = o.part_id JOIN case_ c ON c.id = p.case_id",
    ):
        yield f"{case} {step}: its command is kept though it has ended"
    for (count,) in _rows(plant.state / "state.db", "SELECT count(*) FROM gpu WHERE lease_part_id IS NOT NULL"):
        if count:
            yield f"{count} GPUs are still leased"


def _cases(plant: Plant, allowed: Allowed) -> Iterator[str]:
    rows = _rows(plant.state / "state.db", "SELECT name, revision, state, reason FROM case_")
    times = Counter(name for name, *_ in rows)
    yield from (f"{name} is lost" for name in plant.dropped if not times[name])
    yield from (f"{name} is unexpected" for name in times if name not in plant.dropped)
    yield from (f"{name} was taken {count} times" for name, count in times.items() if count > 1)
    for name, _, state, reason in rows:
        if state not in TERMINAL or state not in allowed.ends:
            yield f"{name} is {state}: {reason}"
    parts = _rows(
        plant.state / "state.db",
        "SELECT c.name, p.step, p.part, p.attempt, p.state, c.state FROM part p JOIN case_ c ON c.id = p.case_id",
    )
    done = Counter((name, step, part) for name, step, part, _, state, _ in parts if state == "done")
    yield from (f"{each}: done {count} times" for each, count in done.items() if count > 1)
    for name, step, _, attempt, state, case in parts:
        if state not in ("done", "failed", "cancelled") and case != "held":
            yield f"{name} {step}, attempt {attempt} is still {state}"
    events = _rows(
        plant.state / "state.db",
        "SELECT c.name, e.kind, e.step, e.part, e.attempt FROM event e JOIN case_ c ON c.id = e.case_id "
        "WHERE e.kind IN ('done', 'case-done', 'accepted', 'started')",
    )
    yield from (f"{each}: applied {count} times" for each, count in Counter(events).items() if count > 1)


# ---- I3, I5: the runs ----


def _ledger(plant: Plant, allowed: Allowed) -> Iterator[str]:
    keys = {
        key: (name, state) for key, name, state in _rows(plant.state / "state.db", "SELECT key, name, state FROM case_")
    }
    lines = [line.split() for line in plant.ledger_file.read_text().splitlines()] if plant.ledger_file.exists() else []
    yield from (f"the ledger has a line of {len(line)} words" for line in lines if len(line) != 6)
    once = Counter((case, step, part, attempt) for case, step, attempt, _, part, _ in lines)
    yield from (f"{each}: one attempt was started {count} times" for each, count in once.items() if count > 1)
    runs = Counter((case, step, part) for case, step, _, _, part, _ in lines)
    for (case, step, part), count in runs.items():
        if case not in keys:
            yield f"a run of a case that nobody knows: {case}"
        elif count > 1 and keys[case][0] not in allowed.restarts:
            yield f"{keys[case][0]} {step} {part}: {count} runs were started"
    started = {case for case, *_ in lines}
    yield from (
        f"{name} is done, and no run of it began"
        for key, (name, state) in keys.items()
        if state == "done" and key not in started
    )


# ---- I2, I5: what it came to ----


def _done(plant: Plant) -> list[str]:
    return [name for (name,) in _rows(plant.state / "state.db", "SELECT name FROM case_ WHERE state = 'done'")]


def _results(plant: Plant) -> Iterator[str]:
    expected = {plant.results / name / "sums.txt": plant.result(name) for name in _done(plant) if name in plant.dropped}
    for file, content in expected.items():
        if not file.is_file():
            yield f"{file.relative_to(plant.directory)} is missing"
        elif file.read_bytes() != content:
            yield f"{file.relative_to(plant.directory)} is wrong"
    if plant.results.is_dir():
        unfinished = {plant.results / name for name in plant.dropped} - {file.parent for file in expected}
        yield from (
            f"{file.relative_to(plant.directory)} was left behind"
            for file in plant.results.rglob("*")
            if file.is_file() and file not in expected and not any(file.is_relative_to(each) for each in unfinished)
        )
    for name, hashes in plant.dropped.items():
        there = {
            each.name: hashlib.sha256(each.read_bytes()).hexdigest()
            for each in (plant.directory / "incoming" / name).iterdir()
            if each.name != "READY"
        }
        if there != hashes:
            yield f"the source of {name} was changed"


def _archives(plant: Plant) -> Iterator[str]:
    expected = {plant.archive / f"{name}.tar": name for name in _done(plant) if name in plant.dropped}
    for file, name in expected.items():
        if not file.is_file():
            yield f"archive/{file.name} is missing"
            continue
        with tarfile.open(file) as archive:
            held = {
                Path(member.name).name: hashlib.sha256(content.read()).hexdigest()
                for member in archive.getmembers()
                if (content := archive.extractfile(member)) is not None
            }
        sums = hashlib.sha256(plant.result(name)).hexdigest()
        wrong = [each for each, digest in plant.dropped[name].items() if held.get(each) != digest]
        if wrong or held.get("sums.txt") != sums:
            yield f"archive/{file.name} holds other bytes than the case and its result"
    if plant.archive.is_dir():
        yield from (
            f"archive/{file.relative_to(plant.archive)} was left behind"
            for file in plant.archive.rglob("*")
            if file.is_file() and file not in expected and file.name != ".mqi-archive"
        )


def _far_side(plant: Plant) -> Iterator[str]:
    done = {key for (key,) in _rows(plant.state / "state.db", "SELECT key FROM case_ WHERE state = 'done'")}
    for each in plant.far.iterdir():
        if each.name in done:
            yield f"{each.name} is done and not cleared from its host"


# ---- I6: what a stop leaves ----


def _left_behind(plant: Plant) -> Iterator[str]:
    yield from (f"process {pid} is left: {line}" for pid, line in plant.processes().items())
    for file in plant.state.rglob("*"):
        name = str(file.relative_to(plant.state))
        if file.is_file() and not STATE_FILES.fullmatch(name):
            yield f"state/{name} was left behind"
        if file.name.endswith(".lock") and holder(file):
            yield f"state/{name} is still locked"
    hidden = [each.name for each in (plant.directory / "incoming").iterdir() if each.name not in plant.dropped]
    yield from (f"incoming/{name} was left in the source" for name in hidden)


# ---- the dead letters: only what was poisoned ----


def _dead_letters(plant: Plant, allowed: Allowed) -> Iterator[str]:
    found = dead_letters(plant)
    if len(found) != allowed.poisoned:
        yield f"{len(found)} dead letters, where {allowed.poisoned} were made: {[each.reason for each in found]}"


def dead_letters(plant: Plant) -> list[DeadLetter]:
    """Return the dead letters of every lane."""
    config = load_config(plant.config, load_plugins())
    broker = open_broker(config)
    try:
        return [letter for lane in LANES for letter in broker.dead(lane)]
    finally:
        broker.close()


# ---- I7: what was told ----


def _told(plant: Plant) -> Iterator[str]:
    secrets = [*NAMES, *plant.secrets]
    for file, text in _texts(plant):
        yield from (
            f"{file.relative_to(plant.directory)} tells {_shown(secret)}" for secret in secrets if secret in text
        )


def _texts(plant: Plant) -> Iterable[tuple[Path, str]]:
    """Yield all that is no place for names: logs, status files, messages, even those that were taken and deleted."""
    for file in [*plant.directory.glob("*.log"), *plant.state.rglob("*")]:
        if file.is_file() and not file.name.startswith("state") and "plugins" not in file.parts:
            yield file, file.read_bytes().decode("latin-1")


def _shown(secret: str) -> str:
    return secret if secret in NAMES else "a secret"


def _rows(file: Path, query: str) -> list[tuple]:  # type: ignore[type-arg]
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def log_lines(plant: Plant) -> list[dict[str, str]]:
    """Return the lines of the daemon's logs, where they are JSON."""
    return [json.loads(line) for file in (plant.state / "logs").glob("*.log") for line in file.read_text().splitlines()]
