"""One SSH connection that is logged in: opens channels, and notices that the far side is gone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import paramiko

from mqi_cli.errors import HostUnreachable
from mqi_cli.hosts.ssh_channel import SshChannel
from mqi_cli.hosts.ssh_transport import Transport, Wire, end

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection

_PATIENCE = 3  # times the idle time, for an answer over a connection that lives
_WINDOW = 8 * 1024 * 1024  # bytes under way to us, of each channel


Request = Callable[[SshChannel], None]  # what a channel is for: a command, a subsystem


class ChannelRefused(Exception):
    """The server opens no further channel on this connection (`MaxSessions`)."""


class RequestDenied(Exception):
    """The server opens the channel and denies what it is for: no command, no subsystem."""


class SshConnection:
    """A connection that is logged in. Channels may be opened from any thread; `close` may be called twice."""

    def __init__(self, name: str, config: SshHostSection, transport: Transport, wire: Wire) -> None:
        self.name = name
        self._config = config
        self._transport = transport
        self._wire = wire
        self._opening = threading.Lock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_silence, name=f"ssh-watch-{name}", daemon=True)
        self._watch.start()

    @property
    def alive(self) -> bool:
        """Whether it stands, as far as is known."""
        return bool(self._transport.is_active())

    def open_channel(self) -> SshChannel:
        """Open a channel that is for nothing yet.

        Raises `ChannelRefused` when the server opens no more, `HostUnreachable` when the connection is gone.
        """
        with self._opening:  # paramiko keeps one exception for a whole connection: two openings would swap theirs
            try:
                opened = self._transport.open_session(window_size=_WINDOW, timeout=self._config.connect_timeout)
            except (paramiko.SSHException, EOFError, OSError) as error:
                if self.alive and "Timeout" not in str(error):
                    raise ChannelRefused from error
                raise self.lost("no channel") from error
        # Patient: a disk may take long to flush. That the far side is gone is noticed by the watch.
        return SshChannel(opened, timeout=_PATIENCE * self._config.idle_timeout)

    def ask(self, request: Request, channel: SshChannel) -> None:
        """Make a request of a new channel: a program, a subsystem. Closes the channel when it fails.

        Raises `RequestDenied` when the server says no. After `HostUnreachable` it is not known whether it was granted.
        """
        alarm = threading.Timer(self._config.connect_timeout, channel.close)  # paramiko waits without end
        alarm.daemon = True
        alarm.start()
        try:
            request(channel)
        except (paramiko.SSHException, EOFError, OSError) as error:
            late = not alarm.is_alive()
            channel.close()
            if self.alive and not late:
                raise RequestDenied from error
            raise self.lost("no answer to a request") from error
        finally:
            alarm.cancel()

    def lost(self, why: str = "the connection broke") -> HostUnreachable:
        """Return the exception that says that the connection is gone."""
        parting = self._transport.parting
        return HostUnreachable(
            f"host {self.name}: {f'the server ended it: {parting}' if parting else why}", host=self.name
        )

    def close(self) -> None:
        """End the connection and its threads."""
        self._ended.set()
        end(self._transport)
        if self._watch is not threading.current_thread():
            self._watch.join(2.0)

    def _watch_silence(self) -> None:
        limit = self._config.idle_timeout
        asker: threading.Thread | None = None
        while not self._ended.wait(min(limit / 8, 5.0)) and self.alive:
            silent = time.monotonic() - self._wire.heard
            if silent >= limit:
                end(self._transport)
            elif silent >= limit / 3 and (asker is None or not asker.is_alive()):
                # A long command is silent too: ask for a sign of life. In a thread of its own, because sending waits
                # when the far side takes nothing any more.
                asker = threading.Thread(target=self._ask_for_life, name=f"ssh-ask-{self.name}", daemon=True)
                asker.start()

    def _ask_for_life(self) -> None:
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._transport.global_request("keepalive@openssh.com", wait=True)


@contextlib.contextmanager
def translated(connection: SshConnection) -> Iterator[None]:
    """Turn what a channel raises into `HostUnreachable`."""
    try:
        yield
    except TimeoutError as error:
        raise connection.lost("no answer in time") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise connection.lost() from error
