"""Opens the state database: safe journal mode, pragmas, refusals; transactions, check, backup and restore.

Which SQLite is used, and which journal is safe with it, is told by `mqi_cli/sqlite.py`; Peewee picks its driver alike.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee

from mqi_cli import sqlite
from mqi_cli.errors import StateError
from mqi_cli.store.migrations import SCHEMA_VERSION, migrate, schema_version

APPLICATION_ID = 0x6D716931  # "mqi1", so that `file` and we can tell our databases from others
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "fuse.sshfs",
        "fuse.glusterfs",
        "lustre",
        "gpfs",
        "ceph",
        "afs",
        "beegfs",
    }
)
BUSY_SECONDS = 30

DATABASE_ERRORS: tuple[type[Exception], ...] = (
    peewee.DatabaseError,
    peewee.InterfaceError,
    sqlite.driver().Error,
)


def sqlite_version() -> tuple[int, ...]:
    """Return the version of the SQLite that is used."""
    found: tuple[int, ...] = sqlite.driver().sqlite_version_info
    return found


def journal_mode() -> str:
    """Return the journal mode that is safe with the SQLite at hand."""
    return sqlite.journal_mode(sqlite_version())


def file_system(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds `path`; empty where the system does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    target = str(path.resolve())
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def refuse_unsafe_place(path: Path) -> None:
    """Raise `StateError` where a SQLite database must not lie: a network file system, a file with two hard links."""
    kind = file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"the state database would lie on a network file system ({kind}), where SQLite loses data",
            hint=f"set state.path to a local disk instead of {path.parent}",
        )
    if path.exists() and path.stat().st_nlink > 1:
        raise StateError(f"the state database {path} has a second hard link", hint="remove the other name of the file")


def connect(path: Path, *, read_only: bool = False) -> Any:
    """Return a Peewee database with our pragmas. Nothing is created or changed yet."""
    pragmas: list[tuple[str, Any]] = [
        ("busy_timeout", BUSY_SECONDS * 1000),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("temp_store", 2),
    ]
    if read_only:
        pragmas.append(("query_only", 1))
    else:
        pragmas += [("journal_mode", journal_mode()), ("synchronous", "full"), ("journal_size_limit", 64 << 20)]
    return peewee.SqliteDatabase(str(path), pragmas=pragmas, timeout=BUSY_SECONDS, autoconnect=True)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into `StateError`s that say what to do."""
    try:
        yield
    except DATABASE_ERRORS as error:
        # On a full disk SQLite rolls back by itself, and our own rolling back then fails: the first complaint counts.
        first: BaseException = error
        while (before := first.__context__) is not None and isinstance(before, (*DATABASE_ERRORS, StateError)):
            first = before
        if isinstance(first, StateError):
            raise first from first.__cause__
        text = str(first)
        if "full" in text:
            hint = f"make space on the disk that holds {path.parent}; nothing was lost, the work goes on then"
        elif "locked" in text:
            hint = "another program holds the database for long; look for a backup or a sqlite3 shell that is open"
        elif "malformed" in text or "not a database" in text:
            hint = f"stop the daemon, then: mqi db check, and mqi db restore BACKUP (backups lie in {path.parent / 'backups'})"
        else:
            hint = f"look at {path} and its directory: mqi db check"
        raise StateError(f"the state database: {text}", hint=hint) from error


@contextlib.contextmanager
def migration_lock(path: Path) -> Iterator[None]:
    """Let one process at a time create, migrate or restore the database."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def prepare(path: Path) -> int:
    """Create or migrate the database at `path`, with a backup before a migration; return the steps applied.

    Raises `StateError` for a schema that is newer than this program, a file that is none of ours, an unsafe place.
    """
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateError(
                f"the state directory {path.parent} cannot be made: {error.strerror}",
                hint="set state.path in the config",
            ) from error
        refuse_unsafe_place(path)
        if path.exists() and path.stat().st_size and _is_current(path):
            return 0
        with _lock(path):
            return _create_or_migrate(path)


def _lock(path: Path) -> contextlib.AbstractContextManager[None]:
    try:
        return migration_lock(path)
    except OSError as error:
        raise StateError(f"the state directory {path.parent} cannot be written: {error.strerror}") from error


def _is_current(path: Path) -> bool:
    database = connect(path, read_only=True)
    try:
        version = schema_version(database)
        application = int(database.execute_sql("PRAGMA application_id").fetchone()[0])
        filled = database.execute_sql("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    finally:
        database.close()
    if (version or filled) and application != APPLICATION_ID:  # most programs leave user_version at 0
        raise StateError(f"{path} is a SQLite database, but not one of mqi's", hint="set state.path to another file")
    if version > SCHEMA_VERSION:
        raise StateError(
            f"the state database has schema {version}, this mqi knows up to {SCHEMA_VERSION}",
            hint="update mqi, or restore a backup made with this version: mqi db restore BACKUP",
        )
    return version == SCHEMA_VERSION


def _create_or_migrate(path: Path) -> int:
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    elif path.stat().st_size and _is_current(path):
        return 0  # another process was faster
    database = connect(path)
    try:
        if schema_version(database):
            from mqi_cli.store.backup import backup

            backup(path, path.parent / "backups", label=f"before-schema-{SCHEMA_VERSION}")
        database.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        return migrate(database)
    finally:
        database.close()
