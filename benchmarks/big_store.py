"""A state database as it is after years: made in a minute or two by SQL, through the real schema and its migrations.

The shares are those of an installation that has run for long: nearly all cases are done, some thousands wait, a few
hundred are held. Every done case has four steps and ten entries in its log.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mqi_cli.case import derive_key
from mqi_cli.store import Store, open_store

SOURCE = "incoming"
STEPS = ("upload", "run", "download", "archive")
EVENTS_A_CASE = 10
WAITING = 10_000
SETTLING, RUNNING, HELD = 100, 50, 300  # with those that wait the newest cases of all; those before them have ended
DAY = 86400.0

_NUMBERS = "WITH RECURSIVE number (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM number WHERE n < {last})"
_CASES = """
    INSERT INTO case_ (id, key, source, name, revision, directory, workflow, fingerprint, files, size, snapshot, look,
        look_boot, look_since, state, step, reason, hint, until, priority, paused, cancelling, cleared, created_at,
        updated_at, ended_at)
    SELECT n, key_of(n), :source, name_of(n), 1, '/srv/incoming/' || name_of(n), 'all_steps',
        CASE WHEN :state = 'settling' THEN '' ELSE printf('%064x', n) END, 223, 44000000, printf('%064x', n * 7),
        printf('%064x', n * 7), 'some-boot', 0.0, :state, :step, :reason, '', NULL, 0, 0, 0, '[]',
        :start + n * :apart, :start + n * :apart + 600, CASE WHEN :ended THEN :start + n * :apart + 600 END
    FROM number"""
_PARTS = """
    INSERT INTO part (case_id, step, part, attempt, turn, state, current, lane, host, job, gpus, tries, losses, cancel,
        worker, lease_until, due_at, waiting_for, reason, hint, facts, progress_done, progress_total, progress_unit,
        created_at, started_at, ended_at)
    SELECT n, :step, '', 1, CASE WHEN :thing <> '' THEN 0 ELSE 1 END, :state, 1, :lane, 'far', :step = 'run', 0, 0, 0, 0,
        '', CASE WHEN :state IN ('queued', 'working') THEN :until END, CASE WHEN :thing = 'time' THEN :until END, :thing,
        'host far runs 8 of 8 jobs', '', '{"files": 223, "bytes": 44000000}', 44000000, 44000000, 'B',
        :start + n * :apart, :start + n * :apart, CASE WHEN :state = 'done' THEN :start + n * :apart + 60 END
    FROM number"""
_EVENTS = """
    INSERT INTO event (at, case_id, step, part, attempt, kind, actor, text, detail)
    SELECT :start + n * :apart / {share}, 1 + n / {share}, 'upload', '', 1, 'done', 'sftp@machine-4711',
        'upload done in 12.3 s', ''
    FROM number"""
_INBOX = (
    "INSERT INTO inbox (message, received_at) SELECT 'case:upload::1:1:done:' || n, :start + n * :apart FROM number"
)


def build(path: Path, *, cases: int, waiting: int = WAITING, now: float | None = None) -> Store:
    """Make the database and return it open. Nothing of it is synced: it is thrown away soon."""
    now = time.time() if now is None else now
    store = open_store(path)
    database = store.database
    database.execute_sql("PRAGMA synchronous = OFF")
    database.execute_sql(
        "PRAGMA journal_mode = OFF"
    )  # nothing is ever undone here, and a WAL would write all of it twice
    database.execute_sql("PRAGMA cache_size = -1000000")
    connection = database.connection()
    connection.create_function("key_of", 1, lambda n: derive_key(SOURCE, name_of(n), 1), deterministic=True)
    connection.create_function("name_of", 1, name_of, deterministic=True)
    times = {"start": now - cases * 60.0, "apart": 60.0}
    with store.transaction():
        for state, (first, last), step, reason in _ranges(cases, waiting):
            values = {
                "source": SOURCE,
                "state": state,
                "step": step,
                "reason": reason,
                "ended": state == "done",
                **times,
            }
            _run(database, _CASES, first, last, values)
            _fill_parts(database, state, first, last, {**times, "until": now + DAY})
    with store.transaction():
        _run(database, _EVENTS.format(share=EVENTS_A_CASE), 0, cases * EVENTS_A_CASE - 1, times)
    with store.transaction():
        _run(database, _INBOX, 1, cases, {"start": now - 30 * DAY, "apart": 30 * DAY / cases})
    store.close()
    return open_store(path)


def name_of(number: int) -> str:
    """Name a case as a study is named."""
    return f"1.2.840.113619.{number % 97}.{number:07d}"


def _ranges(cases: int, waiting: int) -> list[tuple[str, tuple[int, int], str, str]]:
    bounds = [cases - SETTLING - RUNNING - HELD - waiting, waiting, HELD, RUNNING, SETTLING]
    names = [
        ("done", "archive", ""),
        ("waiting", "run", "host far runs 8 of 8 jobs"),
        ("held", "run", "the run ended with exit code 1"),
        ("running", "upload", "sftp@machine-4711 works on it"),
        ("settling", "", "quiet for 3 of 30 s"),
    ]
    found, first = [], 1
    for (state, step, reason), count in zip(names, bounds, strict=True):
        found.append((state, (first, first + count - 1), step, reason))
        first += count
    return found


def _fill_parts(database: Any, state: str, first: int, last: int, values: dict[str, Any]) -> None:
    ends: dict[str, tuple[str, str]] = {
        "done": ("done", ""), "waiting": ("waiting", "jobs:far"), "held": ("failed", ""), "running": ("working", ""),
    }  # fmt: skip
    if state not in ends:
        return
    current = {"done": "archive", "running": "upload"}.get(state, "run")
    for step in STEPS[: STEPS.index(current) + 1]:
        part, thing = ends[state] if step == current else ("done", "")
        lane = {"run": "ssh-exec", "archive": "archiver"}.get(step, "sftp")
        _run(database, _PARTS, first, last, {**values, "step": step, "state": part, "thing": thing, "lane": lane})


def _run(database: Any, statement: str, first: int, last: int, values: dict[str, Any]) -> None:
    database.execute_sql(_NUMBERS.format(first=first, last=last) + statement, values)
