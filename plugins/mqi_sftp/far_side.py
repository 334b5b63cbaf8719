"""The program on the far side of a stream (`far_program`), spoken with line by line; what it says, and what it means."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from mqi_cli import HostFault, HostFull, Process, Space
from mqi_sftp.listing import Listing
from mqi_sftp.meter import Meter
from mqi_sftp.tree import Tree

if TYPE_CHECKING:
    from typing import Self

PROTOCOL = b"mqi-far 1"
LONGEST_LINE = 16 * 1024
MOST_ENTRIES = 1_000_000
_BATCH = 256 << 20
_SIGN_EVERY = 5.0  # seconds
_LOOK_EVERY = 1.0


class Unable(Exception):
    """The far side lacks what a stream needs: the files go one by one."""


class FarSide:
    """One program on the far side, spoken with line by line."""

    def __init__(self, host: str, process: Process, meter: Meter, *, limit: float) -> None:
        self.host = host
        self.process = process
        self._meter = meter
        self._limit = self._patience = limit  # seconds of silence; as long as hashing 256 MiB may take
        self._heard_at = time.monotonic()
        self._reason: Exception | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name=f"far-side-{host}", daemon=True)
        self.hash_tool = ""
        self.way = process.way
        self.listed = b""  # hashes over the listings that were read
        self.space = Space(0, 0, None)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._watch.join()
        if self._reason is not None and error is not None:
            raise self._reason from error

    def greet(self) -> str:
        """Read what the host can, and return the first word of the state that it reports. Raises `Unable`."""
        if self.line() != PROTOCOL:
            raise Unable("it answers otherwise than a shell does")
        return self.state()

    def state(self) -> str:
        """Read on to the next word of the state, past what the host says of itself. Raises `Unable`."""
        for line in self.lines():
            word, _, rest = line.partition(b" ")
            if word == b"lacks":
                raise Unable(f"it lacks {rest.decode('ascii', 'replace')}")
            if word == b"hash":
                self.hash_tool = rest.decode("ascii", "replace")
            elif word == b"space":
                blocks, unit, inodes, free = (int(each) for each in rest.split())
                self.space = Space(blocks * unit, 0, free if inodes else None)
            elif word == b"failed":
                raise self.failure()
            else:
                return word.decode("ascii", "replace")
        raise AssertionError("`lines` has no end of its own")

    def line(self) -> bytes:
        """Read one line without its end. Raises `HostFault` where the program ended instead."""
        line = self.process.stdout.readline(LONGEST_LINE)
        self._heard()
        if not line.endswith(b"\n"):
            raise self.failure()
        return line[:-1]

    def lines(self) -> Iterator[bytes]:
        """Read line after line."""
        while True:
            yield self.line()

    def say(self, text: str, *, now: bool = True) -> None:
        """Send one line."""
        self.send(text.encode("utf-8", "surrogateescape") + b"\n", now=now)

    def send(self, data: bytes, *, now: bool = False) -> None:
        """Send bytes."""
        self.process.stdin.write(data)
        if now:
            self.process.stdin.flush()
        self._heard()

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Pass bytes of an open file on, at most so many; return how many, 0 at its end."""
        count = self.process.pass_on(source, size)
        self._heard()
        return count

    def take(self, buffer: memoryview) -> int:
        """Fill a buffer and return the bytes; fewer than it takes only where the program ended."""
        count: int = self.process.stdout.readinto(buffer)  # type: ignore[attr-defined]  # a buffered stream has it
        self._heard()
        return count

    def answer(self, word: str) -> str:
        """Read a line that begins with that word, and return the rest."""
        line = self.line()
        if not line.startswith(word.encode() + b" "):
            raise self.failure()
        return line[len(word) + 1 :].decode("ascii", "replace")

    @contextmanager
    def patient(self, size: int) -> Iterator[None]:
        """Wait longer while the far side hashes `size` bytes and says nothing."""
        self._heard()
        self._patience = self._limit * (1 + size / _BATCH)
        try:
            yield
        finally:
            self._heard()
            self._patience = self._limit

    def inventory(self) -> tuple[Tree, dict[str, str]]:
        """Read what a directory holds, and the hash of each file."""
        tree = self.listing()
        return tree, self.hashes(tree)

    def listing(self) -> Tree:
        """Read what a directory holds. Raises `HostFault` where that has no end."""
        found, digest = Listing(), hashlib.sha256()
        for line in self.lines():
            if line == b"hashes":
                self.listed += digest.digest()
                return found.tree()
            digest.update(line + b"\n")
            if line == b"end" or found.count >= MOST_ENTRIES:
                break
            found.add(line)
            if not found.count % 1024:
                self._meter.alive()
        raise HostFault(f"host {self.host}: a directory can't be listed, or holds too much", host=self.host)

    def same_listing(self, count: int) -> bool:
        """Read so many listings once more; True when they are what they were."""
        listed = b""
        for _ in range(count):
            digest = hashlib.sha256()
            for line in self.lines():
                if line == b"hashes":
                    break
                digest.update(line + b"\n")
            listed += digest.digest()
        return listed == self.listed

    def hashes(self, tree: Tree) -> dict[str, str]:
        """Read the hash of each file of a tree."""
        with self.patient(tree.size):
            return self.named_hashes(len(tree.entries))

    def named_hashes(self, most: int) -> dict[str, str]:
        """Read hashes with their paths. Raises `HostFault` where there are more than so many."""
        hashes: dict[str, str] = {}
        for line in self.lines():
            if line == b"end":
                break
            path = line[66:].removeprefix(b"./").decode("utf-8", "surrogateescape")
            hashes[path] = line[:64].decode("ascii", "replace")
            if len(hashes) > most:
                raise HostFault(f"host {self.host}: more hashes than files", host=self.host)
        return hashes

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        """Show life while the far side is at work, and end it where it is silent for far too long."""
        signed = time.monotonic()
        while not self._ended.wait(min(_LOOK_EVERY, self._limit / 4)):
            now = time.monotonic()
            try:
                if now - self._heard_at > self._patience:
                    raise HostFault(
                        f"host {self.host}: the far side of the stream says nothing any more", host=self.host
                    )
                if now - max(signed, self._heard_at) > _SIGN_EVERY:
                    signed = now
                    self._meter.alive()
            except Exception as error:  # noqa: BLE001  raised in the thread whose turn it is
                self._reason = error
                self.process.abort()  # its streams are another thread's, who may wait in one and hold it
                return

    def failure(self) -> HostFault | HostFull:
        """Return the exception for a program that ended early, by what it said on standard error."""
        done = self.process.wait(30.0)
        return read_errors(self.host, done.stderr)


_FULL = (b"No space left", b"Disk quota exceeded", b"quota exceeded")
_REASONS = (
    (b"Permission denied", "permission denied"),
    (b"Read-only file system", "its file system is read-only"),
    (b"Input/output error", "its disk reports an error"),
    (b"Cannot allocate memory", "it is out of memory"),
    (b"Unexpected EOF", "the stream ended too early"),
)


def read_errors(host: str, text: bytes) -> HostFault | HostFull:
    """Say what the programs' own words on standard error mean, without the names in them. Pure."""
    if any(each in text for each in _FULL):
        quota = "its quota is used up" if b"uota" in text else "no space left"
        return HostFull(f"host {host}: writing the stream failed: {quota}", host=host, hint="make room on the host")
    reason = next((meaning for said, meaning in _REASONS if said in text), "it gives no reason that is known")
    return HostFault(f"host {host}: receiving the stream failed: {reason}", host=host)
