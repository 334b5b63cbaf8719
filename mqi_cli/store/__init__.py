"""The state database: tables, named operations, migrations. No query is written anywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mqi_cli.errors import StateError
from mqi_cli.store.cases import Cases, Events
from mqi_cli.store.database import connect, prepare, translated
from mqi_cli.store.messages import Messages
from mqi_cli.store.parts import Parts
from mqi_cli.store.places import Gpus, Hosts, Switches, Workers


class Store:
    """An open state database. One connection for each thread; close it in each thread that used it.

    Never carried across a fork. Reads outside a transaction see the newest commit.
    """

    def __init__(self, path: Path, database: Any) -> None:
        self.path = path
        self.database = database
        self.cases = Cases(database)
        self.events = Events(database)
        self.parts = Parts(database)
        self.hosts = Hosts(database)
        self.gpus = Gpus(database)
        self.workers = Workers(database)
        self.switches = Switches(database)
        self.messages = Messages(database)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do several operations as one. Takes the write lock at once, so that no read in it can be out of date.

        No network and no waiting inside. Raises `StateError` when the database can't be written; nothing is changed then.
        """
        with translated(self.path), self.database.atomic("IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let several reads see one and the same state."""
        with translated(self.path), self.database.atomic("DEFERRED"):
            yield

    def close(self) -> None:
        """Close this thread's connection. May be called twice."""
        if not self.database.is_closed():
            self.database.close()


def open_store(path: Path, *, read_only: bool = False) -> Store:
    """Open the state database; create or migrate it first, unless it is only to be read.

    Raises `StateError`: unsafe place, newer schema, damaged, or not there (read only).
    """
    if read_only and not path.exists():
        raise StateError(
            f"there is no state database at {path} yet", hint="mqi daemon start, or mqi case add DIRECTORY"
        )
    prepare(path)
    return Store(path, connect(path, read_only=read_only))
