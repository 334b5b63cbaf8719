"""Bulk data of one host over the system's own client: when it may be used, and how it is opened and closed."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mqi_cli.errors import HostUnreachable
from mqi_cli.hosts import openssh
from mqi_cli.hosts.openssh_process import ClientProcess, started
from mqi_cli.hosts.sftp_protocol import SftpLost
from mqi_cli.hosts.sftp_session import SftpSession
from mqi_cli.hosts.ssh_command import command_line
from mqi_cli.hosts.ssh_pool import SshPool

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection

_TRIES = 5  # a busy server drops connections at random (`MaxStartups`)
_PATIENCE = 3  # times the idle time, for an answer over a connection that lives

_T = TypeVar("_T")


class SshBulk:
    """Opens clients for one host, within the pool's limit. Gives None where the pool's own connections have to do."""

    def __init__(self, name: str, config: SshHostSection, known_hosts: Path, pool: SshPool) -> None:
        self._name = name
        self._config = config
        self._pool = pool
        try:
            program = openssh.find_client()
            self._arguments = openssh.client_arguments(program, config, known_hosts) if program else []
        except openssh.Unsuitable:
            self._arguments = []

    @property
    def usable(self) -> bool:
        """Whether the system's client can be used for this host, as far as is known."""
        return bool(self._arguments)

    @contextlib.contextmanager
    def process(self, argv: Sequence[str]) -> Iterator[ClientProcess | None]:
        """Start a program, and end its client afterwards."""
        line = command_line(started(argv))

        def open_process() -> ClientProcess:
            client = self._client(["--", self._config.hostname, line])
            process = ClientProcess(client)
            try:
                process.greet(2 * self._config.connect_timeout)
            except BaseException:
                process.close()
                raise
            return process

        with self._opened(open_process) as process:
            try:
                yield process
            finally:
                if process is not None:
                    process.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[SftpSession | None]:
        """Open a file session, and end its client afterwards."""

        def open_session() -> SftpSession:
            client = self._client(["-s", "--", self._config.hostname, "sftp"])
            try:
                return SftpSession(openssh.ClientChannel(client, timeout=_PATIENCE * self._config.idle_timeout))
            except SftpLost as lost:
                client.close()
                if client.exit_code(1.0) == openssh.FAILED:
                    raise client.failure() from lost
                raise openssh.Unsuitable(str(lost)) from lost  # the other way says it better
            except BaseException:
                client.close()
                raise

        with self._opened(open_session) as session:
            try:
                yield session
            finally:
                if session is not None:
                    session.close()

    def lost(self, why: str = "the connection broke") -> HostUnreachable:
        """Return the exception that says that the connection is gone."""
        return HostUnreachable(f"host {self._name}: {why}", host=self._name)

    @contextlib.contextmanager
    def _opened(self, opening: Callable[[], _T]) -> Iterator[_T | None]:
        if not self._arguments:
            yield None
            return
        with self._pool.outside() as granted:
            opened = None
            if granted:
                try:
                    with self._pool.knocking():
                        opened = self._insist(opening)
                except openssh.Unsuitable:
                    self._arguments = []
            yield opened

    def _insist(self, opening: Callable[[], _T]) -> _T:
        until = time.monotonic() + self._config.connect_timeout
        for turn in range(1, _TRIES):
            try:
                return opening()
            except HostUnreachable as error:
                if "the connection broke" not in error.message or time.monotonic() >= until:
                    raise
            openssh.pause(turn, random.random())  # noqa: S311 nothing secret hangs on it
        return opening()

    def _client(self, rest: list[str]) -> openssh.Client:
        return openssh.Client(self._name, self._config, [*self._arguments, *rest])
