"""The state database: tables, named operations, migrations. No query is written anywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqi_cli.errors import StateError
from mqi_cli.store.database import connect, prepare, translated

if TYPE_CHECKING:
    from mqi_cli.store.cases import Cases, Events
    from mqi_cli.store.messages import Messages
    from mqi_cli.store.parts import Parts
    from mqi_cli.store.places import Gpus, Hosts, Switches, Workers


class Store:
    """An open state database. One connection for each thread; close it in each thread that used it.

    Never carried across a fork. Reads outside a transaction see the newest commit. Each group of operations is imported
    when it is first used: a command that only lists cases shall start fast.
    """

    def __init__(self, path: Path, database: Any) -> None:
        self.path = path
        self.database = database

    @cached_property
    def cases(self) -> Cases:
        """Operations on cases."""
        from mqi_cli.store.cases import Cases

        return Cases(self.database)

    @cached_property
    def events(self) -> Events:
        """Operations on the log."""
        from mqi_cli.store.cases import Events

        return Events(self.database)

    @cached_property
    def parts(self) -> Parts:
        """Operations on the attempts of parts."""
        from mqi_cli.store.parts import Parts

        return Parts(self.database)

    @cached_property
    def hosts(self) -> Hosts:
        """Operations on hosts."""
        from mqi_cli.store.places import Hosts

        return Hosts(self.database)

    @cached_property
    def gpus(self) -> Gpus:
        """Operations on GPUs."""
        from mqi_cli.store.places import Gpus

        return Gpus(self.database)

    @cached_property
    def workers(self) -> Workers:
        """Operations on workers."""
        from mqi_cli.store.places import Workers

        return Workers(self.database)

    @cached_property
    def switches(self) -> Switches:
        """Operations on switches."""
        from mqi_cli.store.places import Switches

        return Switches(self.database)

    @cached_property
    def messages(self) -> Messages:
        """Operations on inbox and outbox."""
        from mqi_cli.store.messages import Messages

        return Messages(self.database)

    @cached_property
    def owner(self) -> str:
        """This installation's mark, which never changes; empty where it had cases before there were marks."""
        return self.switches.owner()

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
