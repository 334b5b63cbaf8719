"""A file session that somebody holds, and that makes room between two operations when its holder needs the channel.

A server may open one channel on a connection, and the host's limit be one connection: whoever holds files and then runs a
program would wait for himself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from mqi_cli.errors import HostUnreachable
from mqi_cli.hosts.sftp_session import SftpSession

Lost = Callable[[str], HostUnreachable]
Lend = Callable[[], AbstractContextManager[tuple[SftpSession, Lost]]]


class LentSession:
    """Borrows when it is made, and again with the first use after it made room. `end` gives back."""

    def __init__(self, lend: Lend) -> None:
        self._lend = lend
        self._guard = threading.Lock()
        self._inside = 0  # operations under way
        self._borrowed = ExitStack()
        self._session: SftpSession | None = None
        self._borrow()

    @property
    def session(self) -> SftpSession:
        """Return the session, borrowed again where it made room. Raises `HostError` when that fails."""
        return self._session or self._borrow()

    def lost(self, why: str) -> HostUnreachable:
        """Return the exception for a connection that broke."""
        return self._lost(why)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold while an operation is under way: it may have files open on the host."""
        with self._guard:
            self._inside += 1
        try:
            yield
        finally:
            with self._guard:
                self._inside -= 1

    def make_room(self) -> bool:
        """Give the session back until its next use. False when an operation is under way, or it made room before."""
        with self._guard:
            if self._inside or self._session is None:
                return False
            self.end()
            return True

    def end(self) -> None:
        """Give the session back."""
        self._session = None
        self._borrowed.close()

    def _borrow(self) -> SftpSession:
        self._session, self._lost = self._borrowed.enter_context(self._lend())
        return self._session
