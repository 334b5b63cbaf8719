"""The SSH transport below a connection: socket, algorithms and key exchange, up to where the host has shown its key."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from mqi_cli.errors import HostRefused, HostUnreachable, describe_os_error
from mqi_cli.hosts import ssh_channel

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection

# Fast first: AES-GCM is sealed by the processor in one step. Left out: CBC modes, MD5, SHA-1 and cut-off MACs, which
# paramiko still offers.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_KEY_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # one kind of key, several ways to sign

_GREETING_TRIES = 5
_READ = 256 * 1024
_IDLE_TURN = 2.0  # seconds; paramiko's thread would wake ten times a second for as long as a connection is idle

# A failure is told by the exception; paramiko's own log would tell it again, with a traceback.
_WIRE_LOG = logging.getLogger("mqi_cli.wire")
_WIRE_LOG.addHandler(logging.NullHandler())
_WIRE_LOG.propagate = False


class Wire:
    """The socket as paramiko sees it. Reads ahead, and remembers when the far side was last heard."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._ahead = memoryview(b"")
        self.heard = time.monotonic()

    @property
    def _closed(self) -> bool:  # paramiko asks when it ends its thread
        return self._link.fileno() < 0

    def recv(self, size: int) -> bytes:
        if not self._ahead:
            # paramiko asks for a header, then for the rest: two calls of the system for one packet, but for this
            data = self._link.recv(max(size, _READ))
            self.heard = time.monotonic()
            if len(data) <= size:
                return data
            self._ahead = memoryview(data)
        taken, self._ahead = bytes(self._ahead[:size]), self._ahead[size:]
        return taken

    def send(self, data: bytes) -> int:
        return self._link.send(data)

    def settimeout(self, seconds: float | None) -> None:
        self._link.settimeout(seconds)

    def getpeername(self) -> Any:
        return self._link.getpeername()

    def close(self) -> None:
        # shut down first: a thread that waits for bytes hears of it at once
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()


class Transport(paramiko.Transport):
    """Remembers the words with which the server ended the connection, and the channels whose close awaits an answer."""

    _channel_handler_table = paramiko.Transport._channel_handler_table | ssh_channel.HANDLERS  # type: ignore[attr-defined]

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)  # type: ignore[arg-type]  # anything that behaves like a socket
        self.parting = ""
        self.unanswered: set[paramiko.Channel] = set()

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        # its own words, which are for people; no more of them than fit on a line
        self.parting = "".join(each for each in m.get_text() if each.isprintable())[:200]


def greet(name: str, config: SshHostSection, kinds: list[str]) -> tuple[Transport, Wire]:
    """Connect as far as the key exchange. A busy server drops connections at random (`MaxStartups`): try again then."""
    until = time.monotonic() + config.connect_timeout
    for turn in range(1, _GREETING_TRIES + 1):
        wire = Wire(_connect(name, config))
        transport = Transport(wire)
        transport.set_log_channel(_WIRE_LOG.name)
        transport.banner_timeout = transport.handshake_timeout = config.connect_timeout
        transport.auth_timeout = transport.channel_timeout = config.connect_timeout
        options = transport.get_security_options()
        options.ciphers, options.digests = _CIPHERS, _MACS
        # the pinned kind first: a host has keys of several kinds and would offer another than the one we know
        wanted = [algorithm for kind in kinds for algorithm in _KEY_ALGORITHMS.get(kind, (kind,))]
        offered = tuple(options.key_types)
        options.key_types = sorted(offered, key=lambda each: wanted.index(each) if each in wanted else len(wanted))
        try:
            transport.start_client(timeout=config.connect_timeout)
            transport.get_remote_server_key()  # fails where the time ran out
            wire.settimeout(_IDLE_TURN)
            return transport, wire
        except (paramiko.SSHException, EOFError, OSError) as error:
            end(transport)
            if isinstance(error, IncompatiblePeer):
                raise HostRefused(
                    f"host {name}: no SSH connection: the two ends agree on no algorithm",
                    host=name,
                    hint="the server is too old or too narrowly set: it has to offer AES in GCM or CTR mode",
                ) from error
            if transport.remote_version or turn == _GREETING_TRIES or time.monotonic() >= until:
                raise HostUnreachable(
                    f"host {name}: no SSH connection: {why(transport, error)}",
                    host=name,
                    hint="is this an SSH server? is it overloaded?",
                ) from error
        time.sleep(random.uniform(0.5, 1.5) * 0.2 * turn)  # noqa: S311 nothing secret hangs on it
    raise AssertionError("the last try returns or raises")


def _connect(name: str, config: SshHostSection) -> socket.socket:
    where = f"{config.hostname}:{config.port}"
    try:
        link = socket.create_connection((config.hostname, config.port), timeout=config.connect_timeout)
    except TimeoutError as error:
        raise HostUnreachable(f"host {name}: {where} does not answer", host=name) from error
    except OSError as error:
        raise HostUnreachable(
            f"host {name}: no connection to {where}: {describe_os_error(error)}", host=name
        ) from error
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", int(config.idle_timeout / 2) or 1),
        ("TCP_KEEPINTVL", int(config.idle_timeout / 6) or 1),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", int(config.idle_timeout * 1000) or 1),  # milliseconds that sent bytes may go unanswered
    ):
        if (number := getattr(socket, option, None)) is not None:
            link.setsockopt(socket.IPPROTO_TCP, number, value)
    return link


def why(transport: Transport, error: BaseException) -> str:
    if transport.parting:
        return f"the server ended it: {transport.parting}"
    if isinstance(error, paramiko.SSHException) and "banner" in str(error):
        return "the server hung up before its greeting"
    if isinstance(error, OSError):
        return describe_os_error(error)
    return "the connection broke"


def end(transport: Transport) -> None:
    transport.close()
    transport.sock.close()
    transport.packetizer.complete_handshake()  # ends the timer of a handshake that failed
    if transport.is_alive() and transport is not threading.current_thread():
        transport.join(2.0)
