"""Connect to a host: prove its key, then log in with ours.

Written on paramiko's transport rather than its client: the host's key is compared before one byte of the log-in is
sent, every wait has an end, and a peer that fell silent is noticed, none of which `SSHClient` gives.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from mqi_cli.errors import HostRefused, HostUnreachable, describe_os_error
from mqi_cli.hosts.base import HostKey
from mqi_cli.hosts.known_hosts import KnownHosts, host_key, known_name
from mqi_cli.hosts.ssh_connection import SshConnection
from mqi_cli.hosts.ssh_transport import Transport, end, greet, why

if TYPE_CHECKING:
    from mqi_cli.config.model import SshHostSection


def connect(name: str, config: SshHostSection, known_hosts: Path) -> SshConnection:
    """Connect and log in. Raises `HostUnreachable`, or `HostRefused` when a person has to mend something."""
    key = _load_key(name, config)
    pinned = _pinned(name, config, known_hosts)
    transport, wire = greet(name, config, [each.kind for each in pinned])
    try:
        _check_key(name, config, transport, pinned)
        _log_in(name, config, transport, key)
        return SshConnection(name, config, transport, wire)
    except BaseException:
        end(transport)
        raise


def ask_key(name: str, config: SshHostSection) -> HostKey:
    """Return the key that the host offers, without logging in."""
    transport, _ = greet(name, config, [])
    try:
        return _offered(name, config, transport)
    finally:
        end(transport)


def _pinned(name: str, config: SshHostSection, known_hosts: Path) -> list[HostKey]:
    try:
        return KnownHosts(known_hosts).keys(known_name(config.hostname, config.port))
    except OSError as error:
        raise HostRefused(
            f"host {name}: the file of known host keys can't be read: {describe_os_error(error)}",
            host=name,
            hint=f"make {known_hosts} readable",
        ) from error


def _offered(name: str, config: SshHostSection, transport: Transport) -> HostKey:
    try:
        key = transport.get_remote_server_key()
    except paramiko.SSHException as error:
        raise HostUnreachable(f"host {name}: the connection broke", host=name) from error
    return host_key(known_name(config.hostname, config.port), key.get_name(), key.asbytes())


def _check_key(name: str, config: SshHostSection, transport: Transport, pinned: list[HostKey]) -> None:
    offered = _offered(name, config, transport)
    if any(each.line == offered.line for each in pinned):
        return
    if not pinned:
        raise HostRefused(
            f"host {name}: its host key is unknown",
            host=name,
            hint=f"look at its fingerprint and trust it: mqi host trust {name}",
        )
    raise HostRefused(
        f"host {name}: its host key has changed: it offers {offered.kind} {offered.fingerprint}",
        host=name,
        hint=f"somebody may be in between: ask the host's administrator, and only then: mqi host trust {name}",
    )


def _load_key(name: str, config: SshHostSection) -> paramiko.PKey:
    path = config.key_file
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise HostRefused(
                f"host {name}: others may read the private key {path}", host=name, hint=f"close it: chmod 600 {path}"
            )
        secret = config.key_passphrase.get_secret_value().encode() if config.key_passphrase else None
        return paramiko.PKey.from_path(path, secret)  # type: ignore[arg-type]  # the library below it wants bytes
    except FileNotFoundError:
        raise HostRefused(
            f"host {name}: there is no private key at {path}",
            host=name,
            hint="set key_file, or make a key: ssh-keygen -t ed25519",
        ) from None
    except OSError as error:
        raise HostRefused(
            f"host {name}: the private key {path} can't be read: {describe_os_error(error)}",
            host=name,
            hint="make it readable for the account that runs mqi",
        ) from error
    except (paramiko.SSHException, ValueError, TypeError) as error:
        raise HostRefused(
            f"host {name}: the private key {path} can't be used: wrong passphrase, or not a private key",
            host=name,
            hint="set key_passphrase_file when the key has a passphrase",
        ) from error


def _log_in(name: str, config: SshHostSection, transport: Transport, key: paramiko.PKey) -> None:
    hint = f"is the public key of {config.key_file} in the account's authorized_keys?"
    try:
        further = transport.auth_publickey(config.user, key)
    except paramiko.AuthenticationException as error:
        # paramiko tells a cut line and a lapse of time as a failed log-in too; only the server's word is one
        if "timeout" in str(error).lower() or (not transport.is_active() and not transport.parting):
            raise HostUnreachable(f"host {name}: the connection broke during the log-in", host=name) from error
        raise HostRefused(
            f"host {name}: it does not let {config.user} in with this key", host=name, hint=hint
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostUnreachable(f"host {name}: the log-in broke off: {why(transport, error)}", host=name) from error
    if further:
        raise HostRefused(
            f"host {name}: the key is not enough for it: it also asks for {', '.join(further)}",
            host=name,
            hint="ask its administrator for an account that logs in by key alone",
        )
