"""`type: ssh`: a host that is reached over SSH with a key, and proves who it is by a pinned key."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mqi_cli.errors import HostFault, HostRefused, NoShell, describe_os_error
from mqi_cli.hosts.base import Completed, HostKey, Process, Resident
from mqi_cli.hosts.known_hosts import KnownHosts, known_name
from mqi_cli.hosts.resident import COMMAND, ResidentLost, ResidentSession, Unusable
from mqi_cli.hosts.seats import Seats
from mqi_cli.hosts.sftp_session import SftpSession
from mqi_cli.hosts.ssh_bulk import SshBulk
from mqi_cli.hosts.ssh_channel import SshChannel
from mqi_cli.hosts.ssh_command import SshProcess, command_line, converse
from mqi_cli.hosts.ssh_connection import RequestDenied, SshConnection, translated
from mqi_cli.hosts.ssh_files import SshFiles
from mqi_cli.hosts.ssh_lent import LentSession, Lost
from mqi_cli.hosts.ssh_login import ask_key, connect
from mqi_cli.hosts.ssh_pool import SshPool
from mqi_cli.hosts.streams import Deadline

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection

_PROBE = "mqi: programs run here"
_WITHOUT = 600.0  # seconds that a host is taken for one that keeps no programs loaded, after one failed


class SshHost:
    """One account on another machine. Connects when first used, and again after a failure."""

    def __init__(self, name: str, config: SshHostSection, state_dir: Path) -> None:
        self.name = name
        self.config = config
        self._known_hosts = config.known_hosts or state_dir / "known_hosts"
        self._pool = SshPool(
            name,
            lambda: connect(name, config, self._known_hosts),
            limit=config.limits.connections,
            seats=Seats(state_dir / "connections" / name, config.limits.connections),
            patience=max(config.connect_timeout, config.idle_timeout),
            make_room=self._make_room,
        )
        self._held = threading.local()  # the file sessions that each thread has
        self._home: PurePosixPath | None = None
        self._runs_programs: bool | None = None
        self._asked_before = False
        self._without_resident = 0.0  # until then
        self._bulk = SshBulk(name, config, self._known_hosts, self._pool)

    @property
    def base_dir(self) -> PurePosixPath:
        """Return the absolute base directory; connects when the config gives it relative to the home."""
        text = self.config.base_dir
        if text.startswith("/"):
            return PurePosixPath(text)
        if self._home is None:
            with self._files() as files:
                self._home = files.real_path(".")
        return self._home / text[2:]

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 20) -> Completed:
        """Run a program and wait for its end."""
        deadline = Deadline(timeout)
        self._prove_shell()
        with self._started(argv) as (connection, channel):
            return converse(connection, channel, stdin, deadline=deadline, limit=limit)

    @contextmanager
    def start(self, argv: Sequence[str], *, bulk: bool | None = False) -> Iterator[Process]:
        """Start a program with open streams; `bulk` over the system's own client, where that can be."""
        if self._runs_programs is False:
            raise self._no_shell()
        wanted = self._first_of_unknown_size() if bulk is None else bulk
        with self._bulk.process(argv) if wanted else nullcontext() as fast:
            if fast is not None:
                self._runs_programs = True
                yield fast
                return
        self._prove_shell()
        with self._started(argv) as (connection, channel):
            process = SshProcess(connection, channel, bulk=wanted or not self._bulk.usable)
            try:
                yield process
            finally:
                process.close()

    def ask(
        self,
        program: Resident,
        request: bytes,
        *,
        timeout: float = 60.0,
        cold: bool = True,
        alive: Callable[[], None] | None = None,
    ) -> bytes | None:
        """Have a resident program answer; None where the host keeps none, or nothing is open and `cold` is not wanted."""
        if time.monotonic() < self._without_resident or not (cold or self._pool.warm):
            return None
        deadline = Deadline(timeout)
        line = command_line(COMMAND)
        try:
            self._prove_shell()
            lent = self._pool.resident(
                lambda channel: channel.run_program(line),
                lambda channel: ResidentSession(channel, within=self.config.connect_timeout),
            )
            with lent as (connection, session), translated(connection):
                try:
                    return session.ask(program, request, deadline, alive=alive)
                except ResidentLost as lost:
                    if connection.alive:  # the program alone ended: ask no second one into the same trap
                        self._without_resident = time.monotonic() + _WITHOUT
                    raise connection.lost(str(lost)) from lost
        except (NoShell, RequestDenied, Unusable):
            self._without_resident = time.monotonic() + _WITHOUT
            return None

    @contextmanager
    def files(self, *, bulk: bool = False) -> Iterator[SshFiles]:
        """Lend a channel for file operations; `bulk` over the system's own client, where that can be."""
        with self._bulk.session() if bulk else nullcontext() as session:
            if session is not None:
                yield SshFiles(self.name, LentSession(lambda: nullcontext((session, self._bulk.lost))))
                return
        with self._files() as files:
            yield files

    def describe(self) -> str:
        """Return `user@hostname:port`."""
        return f"{self.config.user}@{self.config.hostname}:{self.config.port}"

    def close(self) -> None:
        """End all connections; the next use connects again."""
        self._pool.close()
        self._runs_programs = None
        self._without_resident = 0.0

    def offered_key(self) -> HostKey:
        """Ask the host for its key, without logging in."""
        return ask_key(self.name, self.config)

    def pinned_key(self) -> HostKey | None:
        """Return the key that is trusted today; None when there is none."""
        try:
            keys = KnownHosts(self._known_hosts).keys(self._known_name)
        except OSError as error:
            raise self._file_fault("read", error) from error
        return keys[0] if keys else None

    def pin(self, key: HostKey) -> None:
        """Trust this key from now on, instead of any other for this host. Ends connections that stand on another."""
        try:
            KnownHosts(self._known_hosts).pin(self._known_name, key)
        except OSError as error:
            raise self._file_fault("written", error) from error
        self.close()

    @property
    def _known_name(self) -> str:
        return known_name(self.config.hostname, self.config.port)

    def _file_fault(self, what: str, error: OSError) -> HostFault:
        return HostFault(
            f"host {self.name}: {self._known_hosts} can't be {what}: {describe_os_error(error)}", host=self.name
        )

    @contextmanager
    def _files(self) -> Iterator[SshFiles]:
        lent = LentSession(self._lend_session)
        held: list[LentSession] = vars(self._held).setdefault("sessions", [])
        held.append(lent)
        try:
            yield SshFiles(self.name, lent)
        finally:
            held.remove(lent)
            lent.end()

    @contextmanager
    def _lend_session(self) -> Iterator[tuple[SftpSession, Lost]]:
        with self._pool.sftp() as (connection, session):
            yield session, connection.lost

    def _make_room(self) -> bool:
        """Have a file session that this thread holds give its channel back until it is used again."""
        held: list[LentSession] = vars(self._held).get("sessions", [])
        return any(lent.make_room() for lent in held)

    @contextmanager
    def _started(self, argv: Sequence[str]) -> Iterator[tuple[SshConnection, SshChannel]]:
        try:
            line = command_line(argv)
        except ValueError as error:
            raise HostFault(f"host {self.name}: {error}", host=self.name) from error
        try:
            lent = self._pool.channel(lambda channel: channel.run_program(line))
            connection, channel = lent.__enter__()
        except RequestDenied as error:
            raise self._no_shell() from error
        try:
            yield connection, channel
        finally:
            lent.__exit__(None, None, None)

    def _first_of_unknown_size(self) -> bool:
        """Whether a client of its own is the quickest for what may be much or little.

        That is so once, while nothing is open: it saves opening both. Whoever asks again gets a connection that stays.
        """
        first, self._asked_before = not self._asked_before, True
        return first and not self._pool.warm

    def _prove_shell(self) -> None:
        """Find out once whether the account runs programs.

        One that is forced into SFTP takes any command, runs none and may report success.
        """
        if self._runs_programs is not None:
            if not self._runs_programs:
                raise self._no_shell()
            return
        deadline = Deadline(self.config.connect_timeout)
        with self._started(["printf", "%s", _PROBE]) as (connection, channel):
            done = converse(connection, channel, b"", deadline=deadline, limit=1 << 16)
        if done.stdout == _PROBE.encode():
            self._runs_programs = True
        elif done.stdout.endswith(_PROBE.encode()):
            raise HostRefused(
                f"host {self.name}: the account's login files print text before every command's output",
                host=self.name,
                hint="make ~/.bashrc or its like silent where the shell is not interactive",
            )
        else:
            raise self._no_shell()

    def _no_shell(self) -> NoShell:
        self._runs_programs = False
        return NoShell(
            f"host {self.name}: the account runs no programs",
            host=self.name,
            hint="give it a login shell; without one it can only store files",
        )
