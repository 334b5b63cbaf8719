"""The system's own OpenSSH client as a second way to a host, for bulk bytes: a process of its own, about three times as
fast as the connections that this program holds itself.

It is given nothing of the account's own settings, only what the host's section says: the same key, the same pinned
host keys, no agent, no question. What it says when it fails is read here and becomes the same errors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mqi_cli.errors import HostError, HostRefused, HostUnreachable, describe_os_error
from mqi_cli.hosts.local_command import plain_environment
from mqi_cli.hosts.streams import ErrorTail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqi_cli.config.model import SshHostSection

CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
FAILED = 255  # the client's own exit code; any other is the program's
ALIVE_ASKS = 3
# OpenSSH 8.5 to 9.8 prefer sntrup761, which takes 0.1 s of both machines for each connection. Without it they agree on
# ML-KEM, as strong and quick, where both know it; else on curve25519, as mqi's own connections do.
KEY_EXCHANGES = "-sntrup761x25519*"

_PIPE = 1 << 20
_SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)
_CHUNK = 256 * 1024
# a path that means itself in the client's option syntax, which knows quotes, tokens and lists
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@=,-]+\Z")


class Unsuitable(Exception):
    """The system's client can't be used for this host; the other way can."""


def find_client() -> str | None:
    """Return the path of the system's SSH client; None where there is none."""
    return shutil.which("ssh")


def client_arguments(program: str, config: SshHostSection, known_hosts: Path) -> list[str]:
    """Return the command up to the host's name. Pure. Raises `Unsuitable` for what it can't be told."""
    if config.key_passphrase is not None:
        raise Unsuitable("a passphrase could reach it only by the environment or a file")
    for path in (config.key_file, known_hosts):
        if not path.is_absolute() or not _PLAIN_PATH.match(str(path)):
            raise Unsuitable("a path that its options can't carry")
    seconds = max(1, int(config.connect_timeout))
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": str(config.key_file),
        "PreferredAuthentications": "publickey",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "EscapeChar": "none",
        "RequestTTY": "no",
        "Compression": "no",
        "Ciphers": CIPHERS,
        "KexAlgorithms": KEY_EXCHANGES,
        "ConnectTimeout": str(seconds),
        # silence for the whole of idle_timeout means that the far side is gone
        "ServerAliveInterval": str(max(1, int(config.idle_timeout / (ALIVE_ASKS + 1)))),
        "ServerAliveCountMax": str(ALIVE_ASKS),
        "LogLevel": "ERROR",
    }
    flags = [item for name, value in options.items() for item in ("-o", f"{name}={value}")]
    return [program, "-F", "none", "-T", *flags, "-p", str(config.port), "-l", config.user]


def read_failure(name: str, config: SshHostSection, text: str) -> HostError | Unsuitable:
    """Say what the client's own words mean when it ended with code 255. Pure."""
    if re.search(r"Bad configuration option|Bad SSH2 |Unsupported|no matching|illegal option", text):
        return Unsuitable("this client knows other options")
    if "Permission denied" in text or "Too many authentication failures" in text:
        return HostRefused(
            f"host {name}: it does not let {config.user} in with this key",
            host=name,
            hint=f"is the public key of {config.key_file} in the account's authorized_keys?",
        )
    if "IDENTIFICATION HAS CHANGED" in text:
        return HostRefused(
            f"host {name}: its host key has changed",
            host=name,
            hint=f"somebody may be in between: ask the host's administrator, and only then: mqi host trust {name}",
        )
    if "host key is known" in text or "Host key verification failed" in text:
        return HostRefused(
            f"host {name}: its host key is unknown",
            host=name,
            hint=f"look at its fingerprint and trust it: mqi host trust {name}",
        )
    where = f"{config.hostname}:{config.port}"
    for said, meaning in (
        ("Connection refused", f"no connection to {where}: Connection refused"),
        ("timed out", f"{where} does not answer"),
        ("Timeout, server", "the far side fell silent"),
        ("Could not resolve", f"no connection to {where}: its name is not known"),
        ("No route to host", f"no connection to {where}: No route to host"),
        ("Network is unreachable", f"no connection to {where}: Network is unreachable"),
    ):
        if said in text:
            return HostUnreachable(f"host {name}: {meaning}", host=name)
    return HostUnreachable(f"host {name}: the connection broke", host=name)


class Client:
    """One run of the client: a child process with its two pipes. Close it."""

    def __init__(self, name: str, config: SshHostSection, arguments: Sequence[str]) -> None:
        self.name = name
        self._config = config
        try:
            self._child = subprocess.Popen(
                list(arguments),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=plain_environment(os.environ),
                start_new_session=True,  # a Ctrl-C at our terminal is not for it
            )
        except OSError as error:
            raise Unsuitable(describe_os_error(error)) from error
        to_child, from_child, errors = self._child.stdin, self._child.stdout, self._child.stderr
        if to_child is None or from_child is None or errors is None:
            raise AssertionError("a program is started with three pipes")
        self._in, self._out, self._stderr = to_child, from_child, errors
        for pipe in (to_child, from_child):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, _PIPE)
        self._errors = ErrorTail(errors.read, name=f"ssh-stderr-{name}")

    def send(self, data: bytes | memoryview) -> int:
        """Send a piece; return how much of it went. Raises `BrokenPipeError` when the client has ended."""
        return os.write(self._in.fileno(), data)

    def splice(self, source: IO[bytes], size: int) -> int:
        """Send bytes of an open file from its position on; return how many went, 0 at its end. Raises likewise."""
        return os.splice(source.fileno(), self._in.fileno(), size)

    def receive(self, size: int, within: float | None) -> bytes:
        """Read what is there; empty at the end. Raises `TimeoutError`."""
        if within is not None:
            poll = select.poll()
            poll.register(self._out.fileno(), select.POLLIN)
            if not poll.poll(within * 1000):
                raise TimeoutError
        return os.read(self._out.fileno(), size)

    def receive_into(self, view: memoryview) -> int:
        """Read what is there into a buffer; 0 at the end."""
        return os.readv(self._out.fileno(), [view])

    def end_input(self) -> None:
        """Tell the far side that no more comes."""
        with contextlib.suppress(OSError):
            self._in.close()

    def kill(self) -> None:
        """End the client at once, from any thread. Its pipes stay open here: another thread may be at work on them."""
        self._child.kill()

    @property
    def ended(self) -> bool:
        """Whether the client has ended."""
        return self._child.poll() is not None

    def exit_code(self, within: float) -> int | None:
        """Wait for the client's end and return its code, None when it came by a signal. Raises `TimeoutError`."""
        try:
            code = self._child.wait(within)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        return code if code >= 0 else None

    def error_text(self) -> bytes:
        """Return the end of what came on standard error, once the client has ended."""
        return self._errors.finish(2.0)

    def failure(self) -> HostError | Unsuitable:
        """Return what the client's end means when it was its own, not the program's."""
        return read_failure(self.name, self._config, self.error_text().decode("utf-8", "replace"))

    def close(self) -> None:
        """End the client; what still runs on the far side hears of it. May be called twice."""
        self.end_input()
        if not self.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(0.2)
        if not self.ended:
            self._child.terminate()
            try:
                self._child.wait(2.0)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._errors.finish(2.0)
        self._out.close()
        self._stderr.close()


class ClientChannel:
    """What carries an SFTP session over a client of its own."""

    def __init__(self, client: Client, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    @property
    def ended(self) -> bool:
        """Whether the client has ended."""
        return self._client.ended

    def send(self, data: bytes, /) -> int:
        """Send a piece; return how much of it went."""
        return self._client.send(data)

    def recv(self, size: int, /) -> bytes:
        """Read what is there; empty at the end. Raises `TimeoutError`."""
        return self._client.receive(size, self._timeout)

    def close(self) -> None:
        """End the client."""
        self._client.close()


def pause(turn: int, chance: float) -> None:
    """Wait before the next try of a connection that a busy server dropped. `chance` lies between 0 and 1."""
    time.sleep((0.5 + chance) * 0.2 * turn)
