"""Which SQLite is used, and which journal is safe with it.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that has two connections (https://sqlite.org/wal.html#walresetbug;
fixed in 3.51.3, 3.50.7 and 3.44.6): a WAL is used with a fixed one only, a rollback journal with any other.
"""

from __future__ import annotations

import importlib
import sqlite3
from typing import Any


def driver() -> Any:
    """Return the DB-API module: `pysqlite3` where that brings a SQLite at least as new as Python's own. As Peewee does."""
    try:
        other = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return sqlite3
    return other if other.sqlite_version_info >= sqlite3.sqlite_version_info else sqlite3


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite may corrupt a WAL database that has two connections."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return version >= (3, 7, 0) and not fixed


def journal_mode(version: tuple[int, ...]) -> str:
    """Return the journal mode that is safe with this SQLite."""
    return "truncate" if has_wal_reset_bug(version) else "wal"
