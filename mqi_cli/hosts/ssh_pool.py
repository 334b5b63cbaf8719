"""The connections of one host, shared by a process: capped, opened one at a time, replaced after a failure.

They are capped together with those of the machine's other processes; a process that finds all seats taken still opens one
connection, so that none waits for another's work to end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from mqi_cli.errors import HostError, HostFault, HostRefused, HostUnreachable
from mqi_cli.hosts.resident import ResidentSession
from mqi_cli.hosts.seats import Seat, Seats
from mqi_cli.hosts.sftp_protocol import SftpLost
from mqi_cli.hosts.sftp_session import SftpSession
from mqi_cli.hosts.ssh_channel import SshChannel
from mqi_cli.hosts.ssh_connection import ChannelRefused, Request, RequestDenied, SshConnection

CHANNELS = 8  # of one connection; OpenSSH's MaxSessions is 10 unless the host's administrator lowers it
_REFUSAL_HOLDS = 5.0  # seconds
_REFUSED_PAUSES = (0.02, 0.05, 0.1, 0.2)  # a channel that just ended still counts for a moment on the server's side
_REFUSED_MOST = 5.0  # seconds; on a busy server that moment is long
_UNUSED = 60.0  # seconds after which a connection beside another one is ended
_SEAT_EVERY = 0.2  # seconds; another process does not tell that it gives a seat back

Session = SftpSession | ResidentSession
_S = TypeVar("_S", SftpSession, ResidentSession)


@dataclass(eq=False)
class _Shared:
    connection: SshConnection
    seat: Seat | None  # None: the one that opens without
    most: int = CHANNELS
    busy: int = 0
    idle: list[Session] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        self.connection.close()
        if self.seat is not None:
            self.seat.free()


class SshPool:
    """Lends channels. `connect` opens one more connection; at most `limit` are open at once, each with a seat.

    `make_room` has the calling thread give back what it can do without; it says whether there was any.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], SshConnection],
        *,
        limit: int,
        seats: Seats,
        patience: float,
        make_room: Callable[[], bool],
    ) -> None:
        self.name = name
        self._connect = connect
        self._limit = limit
        self._seats = seats
        self._patience = patience  # seconds to wait for a channel when all are lent
        self._make_room = make_room
        self._changed = threading.Condition()
        self._connecting = threading.Lock()
        self._shared: list[_Shared] = []
        self._outside = 0  # connections that the system's own client holds
        self._failed: tuple[float, HostError] | None = None
        self._trimming: threading.Timer | None = None

    @contextlib.contextmanager
    def channel(self, request: Request) -> Iterator[tuple[SshConnection, SshChannel]]:
        """Lend a new channel with that request made; it is closed afterwards. Raises `RequestDenied`, `HostError`."""
        shared, channel = self._open(request)
        try:
            yield shared.connection, channel
        finally:
            channel.close()
            self._give_back(shared)

    @contextlib.contextmanager
    def sftp(self) -> Iterator[tuple[SshConnection, SftpSession]]:
        """Lend a file session, one that was used before if there is one."""
        with self._session(SftpSession, self._open_sftp) as lent:
            yield lent

    @contextlib.contextmanager
    def resident(
        self, request: Request, begin: Callable[[SshChannel], ResidentSession]
    ) -> Iterator[tuple[SshConnection, ResidentSession]]:
        """Lend a session with resident programs, likewise; a new one is begun on a channel with that request made."""

        def opened() -> tuple[_Shared, ResidentSession]:
            shared, channel = self._open(request)
            try:
                return shared, begin(channel)
            except BaseException:
                channel.close()
                self._give_back(shared)
                raise

        with self._session(ResidentSession, opened) as lent:
            yield lent

    @contextlib.contextmanager
    def _session(self, kind: type[_S], opened: Callable[[], tuple[_Shared, _S]]) -> Iterator[tuple[SshConnection, _S]]:
        shared, session = self._lend_idle(kind) or opened()
        try:
            yield shared.connection, session
        finally:
            keep = session.idle and shared.connection.alive
            if not keep:
                session.close()
            self._give_back(shared, session if keep else None)

    @property
    def warm(self) -> bool:
        """Whether a connection is open."""
        with self._changed:
            return bool(self._living())

    @contextlib.contextmanager
    def outside(self) -> Iterator[bool]:
        """Count one connection that is not of this pool; False where the limit has no room for it.

        One is always left for the pool: bulk data takes long, and everything else must not wait for it.
        """
        with self._changed:
            seat, ended = self._outside_seat()
            self._outside += seat is not None
        if ended is not None:
            ended.connection.close()
        try:
            yield seat is not None
        finally:
            if seat is not None:
                seat.free()
                with self._changed:
                    self._outside -= 1
                    self._changed.notify_all()

    @contextlib.contextmanager
    def knocking(self) -> Iterator[None]:
        """Hold while a connection is opened elsewhere: one log-in at a time."""
        with self._connecting:
            yield

    def close(self) -> None:
        """End all connections. What is lent breaks; the next use connects again."""
        with self._changed:
            shared, self._shared = self._shared, []
            self._failed = None
            if self._trimming is not None:
                self._trimming.cancel()
                self._trimming = None
            self._changed.notify_all()
        for each in shared:
            each.end()

    def _outside_seat(self) -> tuple[Seat | None, _Shared | None]:
        """Find a seat for a connection outside: a free one, or that of a connection nobody uses, which then has to end."""
        living = self._living()
        if self._outside + 1 >= self._limit:
            return None, None
        if len(living) + self._outside < self._limit and (seat := self._seats.take()) is not None:
            return seat, None
        idle = next((each for each in living if not each.busy and each.seat is not None), None)
        if idle is None or len(living) < 2:
            return None, None
        self._shared.remove(idle)
        return idle.seat, idle

    def _lend_idle(self, kind: type[_S]) -> tuple[_Shared, _S] | None:
        with self._changed:
            for shared in self._living():
                for session in [each for each in reversed(shared.idle) if isinstance(each, kind)]:
                    shared.idle.remove(session)
                    if session.idle:
                        shared.busy += 1
                        return shared, session
                    session.close()  # the server ended it, the connection lives
        return None

    def _open_sftp(self) -> tuple[_Shared, SftpSession]:
        try:
            shared, channel = self._open(SshChannel.open_files)
        except RequestDenied as error:
            raise HostFault(
                f"host {self.name}: the account takes no files: it has no SFTP",
                host=self.name,
                hint="switch the sftp subsystem on in the server's sshd_config",
            ) from error
        try:
            return shared, SftpSession(channel)
        except BaseException as error:
            channel.close()
            self._give_back(shared)
            if isinstance(error, SftpLost):
                if not shared.connection.alive:
                    raise shared.connection.lost() from error
                raise HostFault(
                    f"host {self.name}: no file session with the account: {error}",
                    host=self.name,
                    hint="does its sftp subsystem start, and are its login files silent?",
                ) from error
            raise

    def _open(self, request: Request) -> tuple[_Shared, SshChannel]:
        shared, channel = self._open_channel()
        try:
            # made once only: when the line breaks now, the program may have been started
            shared.connection.ask(request, channel)
        except BaseException:
            self._give_back(shared)
            raise
        return shared, channel

    def _open_channel(self) -> tuple[_Shared, SshChannel]:
        began = time.monotonic()
        until = began + self._patience
        while True:
            shared, fresh = self._reserve(until)
            try:
                return shared, _insist(shared.connection)
            except ChannelRefused as error:
                with self._changed:
                    others = shared.busy - 1 + len(shared.idle)
                    shared.most = max(1, others)  # that many it does open
                self._give_back(shared)
                if not others and time.monotonic() - began > min(_REFUSED_MOST, self._patience):
                    raise HostUnreachable(f"host {self.name}: the server opens no channel", host=self.name) from error
            except HostUnreachable:
                self._give_back(shared)
                # A connection that lay unused may have ended unseen. Nothing was asked over it, so take another.
                if fresh or shared.connection.alive:
                    raise
            except BaseException:
                self._give_back(shared)
                raise

    def _reserve(self, until: float) -> tuple[_Shared, bool]:
        """Find a connection with room and count one channel more on it. True: it was opened just now."""
        while True:
            entered = time.monotonic()
            with self._changed:
                best = min(self._living(), key=lambda each: each.busy, default=None)
                if best is not None and not best.busy:
                    return self._count(best), False
                full = len(self._shared) + self._outside >= self._limit
                if full or (best is not None and not self._seats.any_free()):
                    if best is not None and best.busy < best.most:
                        return self._count(best), False
                    if self._make_room():
                        continue
                    left = until - time.monotonic()
                    if left <= 0:
                        raise HostUnreachable(f"host {self.name}: all its channels are in use", host=self.name)
                    self._changed.wait(left if full else min(left, _SEAT_EVERY))
                    continue
            # A second connection while the first is at work: a long transfer must not hold up everything else.
            opened = self._add(entered)
            if opened is not None:
                return opened, True

    def _add(self, entered: float) -> _Shared | None:
        """Open one connection more, reserved for the caller. None when another thread, or process, was quicker."""
        with self._connecting:  # one log-in at a time: servers drop connections that come in a bunch
            with self._changed:
                if len(self._shared) + self._outside >= self._limit or any(not each.busy for each in self._living()):
                    return None
                if self._failed is not None:
                    # It failed for another thread while this one waited, or we were refused a moment ago: knocking
                    # again and again gets us shut out.
                    at, failed = self._failed
                    refused = isinstance(failed, HostRefused) and time.monotonic() - at < _REFUSAL_HOLDS
                    if refused or at >= entered:
                        raise type(failed)(failed.message, host=failed.host, hint=failed.hint)
                seat = self._seats.take()
                if seat is None and self._living():
                    return None
            try:
                connection = self._connect()
            except BaseException as error:
                if seat is not None:
                    seat.free()
                if isinstance(error, HostError):
                    self._failed = (time.monotonic(), error)
                raise
            with self._changed:
                shared = self._count(_Shared(connection, seat))
                self._shared.append(shared)
                return shared

    def _count(self, shared: _Shared) -> _Shared:
        shared.busy += 1
        if shared.idle and shared.busy + len(shared.idle) > shared.most:
            shared.idle.pop(0).close()
        return shared

    def _living(self) -> list[_Shared]:
        """Forget the connections that ended; return the others. The lock is held."""
        for each in [each for each in self._shared if not each.connection.alive]:
            self._shared.remove(each)
            if each.seat is not None:
                each.seat.free()
            # ends its threads; done elsewhere because it may wait for them
            threading.Thread(target=each.connection.close, name=f"ssh-end-{self.name}", daemon=True).start()
        return self._shared

    def _give_back(self, shared: _Shared, session: Session | None = None) -> None:
        with self._changed:
            shared.busy -= 1
            shared.used = time.monotonic()
            if session is not None:
                shared.idle.append(session)
            self._trim_later()
            self._changed.notify_all()

    def _trim_later(self) -> None:
        """End what nobody uses in a while: others may want its seat. The lock is held."""
        if self._trimming is None and len(self._shared) > 1:
            self._trimming = threading.Timer(_UNUSED, self._trim)
            self._trimming.daemon = True
            self._trimming.start()

    def _trim(self) -> None:
        with self._changed:
            self._trimming = None
            long_ago = time.monotonic() - _UNUSED
            unused = [each for each in self._living() if not each.busy and each.used <= long_ago]
            if len(unused) == len(self._shared):  # the one that stays, without a seat if there is one
                unused.sort(key=lambda each: each.seat is None)
                unused = unused[:-1]
            for each in unused:
                self._shared.remove(each)
            self._trim_later()
        for each in unused:
            each.end()


def _insist(connection: SshConnection) -> SshChannel:
    for pause in _REFUSED_PAUSES:
        with contextlib.suppress(ChannelRefused):
            return connection.open_channel()
        time.sleep(pause)
    return connection.open_channel()
