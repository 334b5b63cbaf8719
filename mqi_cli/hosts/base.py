"""The host contract: a place where files go and commands run. Two implementations, one test suite: `ssh.py`, `local.py`.

A host object belongs to one process and may be used from several threads; connections are opened when first needed,
shared, and capped by the host's limits. Errors are the `Host…` classes of `mqi_cli.errors`, never a library's own.
Paths on a host are absolute `PurePosixPath`s. Error messages carry no path: paths below a case hold patients' file names.
"""

from __future__ import annotations

import hashlib
import stat as stat_module
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, runtime_checkable

Sent = Callable[[int], None]  # called with the number of bytes that were just acknowledged


@dataclass(frozen=True)
class Completed:
    """What a command left behind. `code` is None when its end is unknown (cut connection, killed by a signal)."""

    code: int | None
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Return standard output as text, decoded tolerantly."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One entry of a directory on a host, not followed when it is a link. `mtime` in whole seconds."""

    name: str
    mode: int
    size: int
    mtime: int

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory (a link to one is not)."""
        return stat_module.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat_module.S_ISREG(self.mode)


@dataclass(frozen=True)
class Space:
    """What is left on the file system below a path. `free_inodes` is None where the file system doesn't count them."""

    free_bytes: int
    total_bytes: int
    free_inodes: int | None


@dataclass(frozen=True)
class Sending:
    """One file of many that go out: a new file. It has `open_mode` until it is closed, then its `mode` and `mtime`."""

    path: PurePosixPath
    size: int  # a hint, for how many are under way
    source: Callable[[], AbstractContextManager[IO[bytes]]]
    open_mode: int
    mode: int
    mtime: int


@dataclass(frozen=True)
class Copying:
    """One file of many that the host copies by itself into a new file, whose modes and time are as in `Sending`."""

    origin: PurePosixPath
    path: PurePosixPath
    size: int
    open_mode: int
    mode: int
    mtime: int


@dataclass(frozen=True)
class Receiving:
    """One file of many that come in, of known size."""

    path: PurePosixPath
    size: int
    sink: Callable[[], AbstractContextManager[IO[bytes]]]


class Process(Protocol):
    """A running command with its three streams, for bulk data. Close it; leaving the context does."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    bulk: bool  # whether it has the quickest way that there is
    way: str  # over what it runs, in words for a log

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Write bytes of an open file, from its position on and at most `size`; return how many, 0 at its end.

        Raises the file's own `OSError` as it is.
        """

    def wait(self, timeout: float) -> Completed:
        """Wait for its end. `stdout` holds nothing that was read through the stream; `stderr` is the last 64 KiB."""

    def abort(self) -> None:
        """Break it off, from any thread: whoever reads or writes its streams fails at once. `close` is still due."""

    def close(self) -> None:
        """End the channel; what still runs on the far side gets a hang-up, what was not flushed is dropped."""


class Files(Protocol):
    """File operations over one channel of the host. For one thread at a time."""

    copies: bool  # whether the host copies files by itself

    def stat(self, path: PurePosixPath) -> RemoteEntry | None:
        """Look at a path without following a link. None when nothing is there."""

    def listing(self, path: PurePosixPath) -> Iterator[RemoteEntry]:
        """List a directory, without `.` and `..`, in the server's order. Names are checked: no `/`, no NUL, UTF-8."""

    def list_many(
        self, paths: Sequence[PurePosixPath], *, alive: Callable[[], None] | None = None
    ) -> Iterator[tuple[PurePosixPath, Iterator[RemoteEntry]]]:
        """List directories, several under way; give what comes of each, piece by piece. `alive` is called meanwhile.

        More than a million entries, 64 MiB of names or a name of 255 bytes is a `HostFault`.
        """

    def make_directory(
        self, path: PurePosixPath, *, mode: int = 0o750, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory. Raises `FileExistsError` when it is there and `exist_ok` is False: this is an atomic claim."""

    def make_directories(self, paths: Sequence[PurePosixPath], *, mode: int = 0o750) -> None:
        """Make directories, parents before what lies in them, several under way. Raises likewise."""

    def write(
        self, path: PurePosixPath, source: IO[bytes], *, offset: int = 0, mode: int = 0o640, sent: Sent | None = None
    ) -> int:
        """Write `source` from its position to its end into `path` at `offset`; return the bytes written.

        Every write is acknowledged by the far side before this returns. `offset` 0 makes or empties the file; a larger
        one needs the file to have at least that size and cuts it there first.
        """

    def read(
        self, path: PurePosixPath, sink: IO[bytes], *, offset: int = 0, size: int | None = None, got: Sent | None = None
    ) -> int:
        """Copy `path` from `offset` into `sink`; return the bytes. Short of `size` (default: what stat says) is a `HostFault`."""

    def write_many(
        self, place: PurePosixPath, files: Iterable[Sending], *, sent: Sent | None = None
    ) -> Iterator[Sending]:
        """Write whole new files below `place`, several under way; give each when it is acknowledged, flushed and closed."""

    def copy_many(self, place: PurePosixPath, files: Iterable[Copying]) -> Iterator[Copying]:
        """Have whole new files copied below `place`, several under way; give each when it is flushed and closed.

        One that the host would not copy is not given: it is missing, or what is there of it is worth nothing.
        """

    def read_many(self, files: Iterable[Receiving], *, got: Sent | None = None) -> Iterator[Receiving]:
        """Copy whole files into their sinks, several under way; give each when all of it is there. Short is a `HostFault`."""

    def read_bytes(self, path: PurePosixPath, *, limit: int) -> bytes:
        """Return a small file. Raises `FileNotFoundError` when it is not there, `HostFault` when it is larger than `limit`."""

    def write_bytes(self, path: PurePosixPath, data: bytes, *, mode: int = 0o640) -> None:
        """Make a small file appear complete or not at all (temp name, then rename over what is there)."""

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        """Rename; replaces a file that is there. Raises `FileExistsError` for a directory that is there and not empty."""

    def set_times(self, path: PurePosixPath, *, mtime: float, mode: int | None = None) -> None:
        """Set the modification time (whole seconds) and the permission bits."""

    def date_many(self, times: Iterable[tuple[PurePosixPath, int]]) -> None:
        """Set directories' modification times (whole seconds), several under way, where the server has any."""

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file or a link. Nothing there is no error."""

    def remove_tree(self, path: PurePosixPath, *, alive: Callable[[], None] | None = None) -> None:
        """Remove a directory and all below it, without following links. Nothing there is no error.

        `alive` is called meanwhile, where that takes requests.
        """

    def space(self, path: PurePosixPath) -> Space | None:
        """Say what is left on the file system of `path`. None where the server can't tell."""


class Host(Protocol):
    """One place. `base_dir` is where all of mqi's directories lie there, absolute after the first connection."""

    name: str
    config: Any  # the host's section of the config

    @property
    def base_dir(self) -> PurePosixPath:
        """Return the absolute base directory; connects when the config gives it relative to the home (`~`)."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 20) -> Completed:
        """Run a program and wait. Each item of `argv` arrives as it is, whatever the login shell.

        Both streams are read at once, each kept up to `limit` bytes. Raises `HostUnreachable` when `timeout` seconds
        pass or the connection breaks, `NoShell` when the account can't run programs. An end by signal has code None.
        """

    def start(self, argv: Sequence[str], *, bulk: bool | None = False) -> AbstractContextManager[Process]:
        """Start a program with open streams.

        `bulk`: many bytes will pass, worth a connection of their own. None: nobody knows yet, so take what is open.
        """

    def files(self, *, bulk: bool = False) -> AbstractContextManager[Files]:
        """Open a channel for file operations; `bulk` likewise."""

    def describe(self) -> str:
        """Say in a few words what this is and how far it is, for `mqi host list`: `mqi@hpc.example.org:22`."""

    def close(self) -> None:
        """End all connections. May be called twice; the next use connects again."""


@dataclass(frozen=True)
class HostKey:
    """A host's public key. `fingerprint` is written as OpenSSH does: `SHA256:…`."""

    kind: str
    fingerprint: str
    line: str  # as known_hosts holds it


@runtime_checkable
class KeyedHost(Protocol):
    """A host that proves who it is by a pinned key (`type: ssh`)."""

    def offered_key(self) -> HostKey:
        """Ask the host for its key, without logging in."""

    def pinned_key(self) -> HostKey | None:
        """Return the key that is trusted today."""

    def pin(self, key: HostKey) -> None:
        """Trust this key from now on, instead of any other for this host."""


@dataclass(frozen=True)
class Resident:
    """A Python program that stays loaded on a host: the text of a module with `answer(request: bytes) -> bytes`.

    Python 3.6 and its standard library have to do; what a request does must be over, or left alone for good, when it
    answers. `name` is what errors call it.
    """

    name: str
    text: bytes

    @cached_property
    def digest(self) -> str:
        """The hash that names the text."""
        return hashlib.sha256(self.text).hexdigest()


@runtime_checkable
class ResidentHost(Protocol):
    """A host that can keep programs loaded (`type: ssh`), where it has Python."""

    def ask(
        self,
        program: Resident,
        request: bytes,
        *,
        timeout: float = 60.0,
        cold: bool = True,
        alive: Callable[[], None] | None = None,
    ) -> bytes | None:
        """Have a resident program answer. None where there is none, or it failed: do it another way, that bears repetition.

        `cold` False: None too where no connection is open yet, since the other way would open one of its own. `alive` is
        called when the host is reached and the request is about to go there, and every second until its answer is here;
        what it raises breaks the request off, which may be done all the same.

        Raises `HostUnreachable` when `timeout` seconds pass or the connection breaks: it may have been done.
        """
