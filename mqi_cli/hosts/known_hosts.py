"""The file of pinned host keys, in OpenSSH's format: who may answer under a host's name. Pure but for the file."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mqi_cli.hosts.base import HostKey

DEFAULT_PORT = 22


def known_name(hostname: str, port: int) -> str:
    """Return the name under which OpenSSH keeps a host's key: bare on port 22, else `[name]:port`."""
    name = hostname.lower()
    return name if port == DEFAULT_PORT else f"[{name}]:{port}"


def host_key(name: str, kind: str, blob: bytes) -> HostKey:
    """Return a key as it is shown to people and written down. `blob` is the public key as SSH sends it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return HostKey(kind=kind, fingerprint=f"SHA256:{digest}", line=f"{name} {kind} {base64.b64encode(blob).decode()}")


@dataclass(frozen=True)
class _Line:
    text: str
    names: tuple[str, ...] = ()
    kind: str = ""
    blob: bytes = b""

    def without(self, name: str) -> str | None:
        """Return the line with a name taken out; None when it named nobody else."""
        left = [each for each in self.names if not _matches(each, name)]
        if len(left) == len(self.names):
            return self.text
        return " ".join([",".join(left), *self.text.split(None, 1)[1:]]) if left else None


class KnownHosts:
    """One file. Read anew at each question, so that a key that was just trusted counts in every process at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self, name: str) -> list[HostKey]:
        """Return all keys that are pinned for `name`, in the file's order. Raises `OSError` when it can't be read."""
        return [host_key(name, line.kind, line.blob) for line in self._lines() if _names(line, name)]

    def pin(self, name: str, key: HostKey) -> None:
        """Make `key` the only one of `name`. Other hosts' lines stay as they are. Raises `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.with_name(self.path.name + ".lock")):
            kept = [line.without(name) for line in self._lines()]
            kind, blob = key.line.split()[1:3]
            lines = [*(text for text in kept if text is not None), f"{name} {kind} {blob}"]
            _replace(self.path, "\n".join(lines) + "\n")

    def _lines(self) -> list[_Line]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return []
        return list(_parse(text.splitlines()))


def _parse(lines: Iterable[str]) -> Iterator[_Line]:
    for text in lines:
        fields = text.split()
        # `@revoked` and `@cert-authority` lines pin nothing; they are kept, as is what nobody understands
        if len(fields) < 3 or fields[0].startswith(("#", "@")):
            yield _Line(text)
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            yield _Line(text)
            continue
        yield _Line(text, names=tuple(fields[0].split(",")), kind=fields[1], blob=blob)


def _names(line: _Line, name: str) -> bool:
    return any(_matches(each, name) for each in line.names)


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("|1|"):
        return pattern.lower() == name
    # OpenSSH's HashKnownHosts: |1|salt|HMAC-SHA1(salt, name)
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
