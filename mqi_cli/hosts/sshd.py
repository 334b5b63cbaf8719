"""A throw-away OpenSSH server on loopback: own keys, own directories, nothing left behind. For `mqi demo` and the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mqi_cli.errors import HostError, HostFault

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection

_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"))
_LOOPBACK = "127.0.0.1"
_READY_WITHIN = 10.0
_PORT_TRIES = 5
_MARK = "MQI_SSHD"  # in the environment of every session, so that `stop` finds what they left running


def find_sshd() -> str | None:
    """Return the path of this machine's OpenSSH server; None when it, or `ssh-keygen`, is not installed."""
    # sshd runs itself again for each connection, so it insists on an absolute path
    found = shutil.which("sshd", path=_SEARCH)
    return str(Path(found).absolute()) if found and shutil.which("ssh-keygen", path=_SEARCH) else None


class OpenSSHServer:
    """One server below `directory`, for the account that runs this process. `lines` are further lines of its config,
    `environment` is what programs get beside what it always sets.

    `kill` ends the server as a crash would: what its sessions started goes on. `stop` ends all of it, detached
    programs too, and may be called twice. `start` after either comes back on the same port with the same keys.
    """

    def __init__(
        self, directory: Path, *, lines: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.environment = dict(environment or {})
        self.directory = directory
        self.lines = tuple(lines)
        self.user = getpass.getuser()
        self.port = 0
        self.home = directory / "home"
        self.base_dir = directory / "base"
        self.key_file = directory / "client_key"
        self.host_key_file = directory / "host_key"
        self.known_hosts = directory / "known_hosts"
        self.log_file = directory / "sshd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._variants: list[OpenSSHServer] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start and wait until it answers. Raises `HostFault` with the end of its log when it does not."""
        program = find_sshd()
        if program is None:
            raise HostFault("no OpenSSH server on this machine", host=_LOOPBACK, hint="install openssh-server")
        self._prepare()
        chosen = self.port
        for left in reversed(range(_PORT_TRIES)):
            self.port = chosen or _free_port()
            config = self._write_config(program)
            environment = {"PATH": _SEARCH, _MARK: str(self.directory)}
            self._process = subprocess.Popen(
                [program, "-D", "-f", str(config), "-E", str(self.log_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a Ctrl-C at the terminal is for us to handle, not for the server
            )
            if self._answers():
                return self
            self.kill()
            if chosen or not left or "Address already in use" not in self.log():
                break
        raise HostFault(f"the OpenSSH server does not start: {self.log()[-400:].strip()}", host=_LOOPBACK)

    def stop(self) -> None:
        """End the server, its sessions and whatever they left running."""
        for variant in self._variants:
            variant.stop()
        self.kill()
        for pid in _marked(f"{_MARK}={self.directory}".encode()):
            _signal(pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the server and its connections at once. Programs that sessions started are left to go on."""
        process, self._process = self._process, None
        if process is None:
            return
        # stopped first: no connection is taken between looking for the children and ending them
        _signal(process.pid, signal.SIGSTOP)
        children = [pid for pid in _descendants(process.pid) if _is_server(pid)]
        process.kill()
        process.wait()
        for pid in children:
            _signal(pid, signal.SIGKILL)

    def restart(self) -> Self:
        """Crash and come back."""
        self.kill()
        return self.start()

    def drop_connections(self) -> None:
        """End all connections at once; the server goes on taking new ones."""
        if self._process is not None:
            for pid in _descendants(self._process.pid):
                if _is_server(pid):
                    _signal(pid, signal.SIGKILL)

    def variant(self, *lines: str) -> OpenSSHServer:
        """Start another server with other config lines and the same keys and directories; ends with this one."""
        place = self.directory / f"variant{len(self._variants)}"
        other = OpenSSHServer(place, lines=lines)
        other.key_file, other.host_key_file = self.key_file, self.host_key_file
        other.home, other.base_dir = self.home, self.base_dir
        self._variants.append(other)
        return other.start()

    def sftp_only(self) -> OpenSSHServer:
        """Start a variant whose accounts take files and run no programs."""
        return self.variant(f"ForceCommand internal-sftp -d {self.home}")

    def host_section(self, **changes: Any) -> SshHostSection:
        """Return the section of the config that reaches this server; `changes` replace single keys."""
        from mqi_cli.config.model import SshHostSection

        values: dict[str, Any] = {
            "type": "ssh",
            "hostname": _LOOPBACK,
            "port": self.port,
            "user": self.user,
            "key_file": self.key_file,
            "known_hosts": self.known_hosts,
            "base_dir": str(self.base_dir),
        }
        return SshHostSection(**(values | changes))

    def log(self) -> str:
        """Return what the server has logged so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _prepare(self) -> None:
        for place in (self.directory, self.home, self.base_dir):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in (self.key_file, self.host_key_file):
            if not key.exists():
                make_key(key)
        shutil.copyfile(self.key_file.with_suffix(".pub"), self.directory / "authorized_keys")
        if os.geteuid() == 0:
            # where the server's unprivileged half is locked in; the path is compiled into it
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def _write_config(self, program: str) -> Path:
        kind, key = self.host_key_file.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{_LOOPBACK}]:{self.port} {kind} {key}\n")
        # the first line of a keyword counts, so a caller's come first
        lines = [*self.lines, *_settings(self), *_version_settings(program)]
        config = self.directory / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        return config

    def _answers(self) -> bool:
        until = time.monotonic() + _READY_WITHIN
        while time.monotonic() < until and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self.port), timeout=2) as link:
                link.settimeout(2)
                # greets like a client: a server of the 9.8 line and later punishes those who hang up before
                link.sendall(b"SSH-2.0-mqi_ready\r\n")
                if link.recv(4) == b"SSH-":
                    return self._process.poll() is None
            time.sleep(0.01)
        return False


def make_key(path: Path) -> None:
    """Make an Ed25519 key pair without a passphrase: `path` and, beside it, `<path>.pub`."""
    program = shutil.which("ssh-keygen", path=_SEARCH) or "ssh-keygen"
    command = [program, "-q", "-t", "ed25519", "-N", "", "-C", "mqi", "-f", str(path)]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError("ssh-keygen made no key", host=_LOOPBACK, hint="install openssh-client") from error


def _settings(server: OpenSSHServer) -> list[str]:
    settings = [
        f"ListenAddress {_LOOPBACK}",
        f"Port {server.port}",
        f"HostKey {server.host_key_file}",
        f"AuthorizedKeysFile {server.directory / 'authorized_keys'}",
        "PidFile none",
        "StrictModes no",  # below /tmp, which others may write to
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PubkeyAuthentication yes",
        f"AllowUsers {server.user}",
        "AllowTcpForwarding no",
        "X11Forwarding no",
        "PermitUserRC no",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "MaxStartups 100",
        "LogLevel VERBOSE",
        f"Subsystem sftp internal-sftp -d {server.home}",
        # a home of its own: the account's real one may have start-up files that take long or print something
        " ".join(  # the first such line is the only one that counts
            [
                f"SetEnv HOME={server.home} {_MARK}={server.directory}",
                *(f"{k}={v}" for k, v in server.environment.items()),
            ]
        ),
    ]
    # the one keyword that a server refuses to read twice
    own = any(line.startswith("Subsystem ") for line in server.lines)
    return [line for line in settings if not (own and line.startswith("Subsystem "))]


@cache
def _version_settings(program: str) -> tuple[str, ...]:
    """Return the settings that only newer servers know; an unknown keyword keeps a server from starting."""
    answer = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", answer.stderr + answer.stdout)
    if found and (int(found[1]), int(found[2])) >= (9, 8):
        return ("PerSourcePenalties no",)
    return ()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _processes() -> Iterator[Path]:
    return (each for each in Path("/proc").iterdir() if each.name.isdigit())


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for process in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the name in brackets may hold spaces; what follows it is split by them
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(process.name))
    found: list[int] = []
    generation = children.get(root, [])
    while generation:
        found.extend(generation)
        generation = [child for pid in generation for child in children.get(pid, [])]
    return found


def _is_server(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return False


def _marked(mark: bytes) -> list[int]:
    found: list[int] = []
    for process in _processes():
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found
