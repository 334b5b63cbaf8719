"""Copies of the state database: made while it is in use, proven before they count, and put back.

`VACUUM INTO` does not sync what it writes, so the copy goes to a temporary name, is synced, checked, and renamed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mqi_cli.errors import StateError
from mqi_cli.store.database import APPLICATION_ID, connect, migration_lock, refuse_unsafe_place, translated
from mqi_cli.store.migrations import SCHEMA_VERSION, schema_version

_COUNTED_SINCE = 3  # the schema's number
_MISCOUNTED = """SELECT state FROM (
    SELECT state, COUNT(*) AS cases FROM case_ GROUP BY state EXCEPT SELECT state, cases FROM tally
    UNION SELECT state, cases FROM tally WHERE cases <> (SELECT COUNT(*) FROM case_ WHERE case_.state = tally.state))"""


def check(path: Path) -> list[str]:
    """Return what is wrong with the database at `path`; nothing when it is sound. Raises `StateError` if it can't be read."""
    if not path.exists():
        raise StateError(f"there is no state database at {path}")
    with translated(path):
        database = connect(path, read_only=True)
        try:
            problems = [row[0] for row in database.execute_sql("PRAGMA integrity_check") if row[0] != "ok"]
            problems += [
                f"a row of {row[0]} refers to nothing" for row in database.execute_sql("PRAGMA foreign_key_check")
            ]
            version = schema_version(database)
            application = int(database.execute_sql("PRAGMA application_id").fetchone()[0])
            if application == APPLICATION_ID and version >= _COUNTED_SINCE and not problems:
                problems += [
                    f"the count of cases that are {state} is wrong" for (state,) in database.execute_sql(_MISCOUNTED)
                ]
        finally:
            database.close()
    if application != APPLICATION_ID:
        problems.append("it is not one of mqi's databases")
    if version > SCHEMA_VERSION:
        problems.append(f"its schema {version} is newer than this mqi, which knows up to {SCHEMA_VERSION}")
    return problems


def backup(path: Path, directory: Path, *, keep: int = 0, label: str = "", now: float | None = None) -> Path:
    """Write a proven copy into `directory` and return its path; with `keep`, remove all but the newest copies.

    Safe while the daemon runs. Raises `StateError`; nothing half written is left under a backup's name.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    name = f"state-{stamp}{'-' + label if label else ''}.db"
    target, partial = directory / name, directory / f".{name}.{os.getpid()}.partial"
    with translated(path):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = connect(path)
            try:
                database.execute_sql("VACUUM INTO ?", (str(partial),))
            finally:
                database.close()
            _sync(partial)
            problems = check(partial)
            if problems:
                raise StateError(f"the copy of the state database is not sound: {problems[0]}", hint="mqi db check")
            partial.rename(target)
            _sync(directory)
        except OSError as error:
            raise StateError(
                f"no backup in {directory}: {error.strerror}", hint="make space, or choose another directory"
            ) from error
        finally:
            for leftover in (
                partial,
                partial.with_name(partial.name + "-wal"),
                partial.with_name(partial.name + "-shm"),
            ):
                leftover.unlink(missing_ok=True)
    if keep:
        for old in sorted(directory.glob("state-*Z.db"))[:-keep]:
            old.unlink(missing_ok=True)
    return target


def restore(copy: Path, path: Path) -> Path | None:
    """Put a backup in the place of the state database; return where the former one went. No process may have it open."""
    problems = check(copy)
    if problems:
        raise StateError(f"{copy} cannot be used: {problems[0]}", hint="choose another backup")
    refuse_unsafe_place(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    former: Path | None = None
    with migration_lock(path), translated(path):
        partial.unlink(missing_ok=True)
        database = connect(copy, read_only=True)
        try:
            database.execute_sql("PRAGMA query_only = 0")  # VACUUM INTO writes to the new file only
            database.execute_sql("VACUUM INTO ?", (str(partial),))
        finally:
            database.close()
        partial.chmod(0o600)
        _sync(partial)
        if path.exists():
            former = path.with_name(f"{path.name}.replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            path.rename(former)
        for companion in ("-wal", "-shm", "-journal"):  # they belong to the former database and would damage this one
            leftover = path.with_name(path.name + companion)
            if leftover.exists() and former is not None:
                leftover.rename(former.with_name(former.name + companion))
        partial.rename(path)
        _sync(path.parent)
    return former


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
