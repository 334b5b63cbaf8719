"""The SQLite file of the embedded queue: its tables, transactions, and SQLite's errors said in the broker's words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mqi_cli import sqlite
from mqi_cli.errors import BrokerRefused, BrokerUnreachable, describe_os_error

BUSY_SECONDS = 10.0  # how long another process may hold the file; every transaction here takes milliseconds
VERSION = 1
APPLICATION_ID = 0x6D716971  # "mqiq"

Run = Callable[..., list[tuple[Any, ...]]]  # runs one statement with its values and returns its rows

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    owner TEXT,
    taken INTEGER NOT NULL DEFAULT 0,
    UNIQUE (lane, id)
);
CREATE INDEX IF NOT EXISTS message_ready ON message (lane, number) WHERE owner IS NULL;
CREATE INDEX IF NOT EXISTS message_taken ON message (lane, owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (lane, id)
);
"""

# SQLite's primary result codes, https://sqlite.org/rescode.html
_BUSY = {5, 6, 15}  # BUSY, LOCKED, PROTOCOL (a lock in the WAL)
_NO_ACCESS = {3, 8, 14, 23}  # PERM, READONLY, CANTOPEN, AUTH
_DAMAGED = {1, 11, 26}  # ERROR (a table is missing), CORRUPT, NOTADB


class QueueFile:
    """One connection to the file, used by one thread at a time; opened when first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._driver = sqlite.driver()
        self._connection: Any = None
        self._inode = 0
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Run]:
        """Give a function that runs one statement; commit at the end, undo on an error.

        Raises `BrokerUnreachable` for a full disk or a lock that lasts, `BrokerRefused` for a damaged or a newer file.
        """
        with self._lock, self._translated():
            connection = self._connect()

            def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
                return list(connection.execute(statement, values))

            # At once, not when first written: SQLite refuses, without waiting, to turn a reader into a writer.
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield run
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection. It opens again when it is used again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(self._driver.Error):
                    connection.close()

    def _connect(self) -> Any:
        """Return the connection; a new one where the file was removed or replaced under the old one.

        The file itself is never opened here but by SQLite: closing any descriptor of it drops the locks of this process.
        """
        if self._connection is not None:
            with contextlib.suppress(OSError):
                if self.path.stat().st_ino == self._inode:
                    return self._connection
            self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = self._driver.connect(
            str(self.path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
            self._inode = self.path.stat().st_ino
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: Any) -> None:
        wanted = sqlite.journal_mode(self._driver.sqlite_version_info)
        now = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if now != wanted:
            try:
                connection.execute(f"PRAGMA journal_mode = {wanted}")
            except self._driver.OperationalError:
                # Others use the file just now. Doing without a WAL is safe; using theirs, with a bug in ours, is not.
                if wanted != "wal":
                    raise
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA trusted_schema = 0")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise BrokerRefused(
                f"the queue file {self.path} is of a newer mqi (format {version}, this one knows {VERSION})",
                hint=f"use the newer mqi, or stop the daemon and {self._removal()}",
            )
        if version < VERSION:
            self.path.chmod(0o600)
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {VERSION}; COMMIT;"
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            raise self.unusable(error) from error
        except self._driver.Error as error:
            self.close()
            raise self._refusal(error) from error

    def unusable(self, error: OSError) -> BrokerUnreachable:
        """Say what the system said about the file or a place beside it."""
        return BrokerUnreachable(
            f"the queue file {self.path} cannot be used: {describe_os_error(error)}",
            hint="look at the space on its disk and at who owns its directory",
        )

    def _refusal(self, error: Any) -> BrokerUnreachable | BrokerRefused:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where in SQLite it happened
        if code in _BUSY:
            return BrokerUnreachable(
                f"another process keeps the queue file {self.path} locked for more than {BUSY_SECONDS:.0f} s",
                hint=f"if this lasts, look who has it open: fuser -v {self.path}",
            )
        if code in _DAMAGED:
            return BrokerRefused(
                f"the queue file {self.path} is damaged ({error})", hint=f"stop the daemon, then {self._removal()}"
            )
        if code in _NO_ACCESS:
            return BrokerRefused(
                f"the queue file {self.path} cannot be opened for writing ({error})",
                hint="give the file and its directory to the user that runs mqi",
            )
        return BrokerUnreachable(
            f"the queue file {self.path} cannot be used ({error})",
            hint="look at the space on its disk; the work goes on by itself when there is some",
        )

    def _removal(self) -> str:
        return f"remove it: rm -f {self.path} {self.path}-*   (no case is lost: what is due is sent again)"
