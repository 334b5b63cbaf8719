"""The program on the far side of a stream (`far_program`), spoken with line by line; what it says, and what it means."""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from mqi_cli import Entry, HostFault, HostFull, Process, Space
from mqi_sftp.held import Held
from mqi_sftp.listing import Listing
from mqi_sftp.meter import Meter
from mqi_sftp.tree import Tree

if TYPE_CHECKING:
    from typing import Self

PROTOCOL = b"mqi-far 1"
LONGEST_LINE = 16 * 1024
MOST_ENTRIES = 1_000_000
MOST_NAMES = 128 << 20  # bytes of paths in a listing
_MOST_WORDS = 100  # lines of an answer that has a few
_BATCH = 256 << 20
_SIGN_EVERY = 5.0  # seconds
_LOOK_EVERY = 1.0


class Unable(Exception):
    """The far side lacks what a stream needs: the files go one by one."""


class FarSide:
    """One program on the far side, spoken with line by line."""

    def __init__(self, host: str, process: Process, meter: Meter, *, doing: str, limit: float) -> None:
        self.host = host
        self._doing = doing  # in words, for errors
        self.process = process
        self._meter = meter
        self._limit = self._patience = limit  # seconds of silence; as long as hashing 256 MiB may take
        self._heard_at = time.monotonic()
        self._waiting = False  # for the far side: while this side is at work, that has nothing to say
        self._reason: Exception | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name=f"far-side-{host}", daemon=True)
        self.hash_tool = ""
        self.way = process.way
        self._listed = b""  # hashes over the listings that were read
        self._listed_lines = 0
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
        for line in self.lines(_MOST_WORDS):
            word, _, rest = line.partition(b" ")
            if word == b"lacks":
                raise Unable(f"it lacks {rest.decode('ascii', 'replace')}")
            if word == b"hash":
                self.hash_tool = rest.decode("ascii", "replace")
            elif word == b"space":
                self.space = self._read_space(rest)
            elif word == b"failed":
                raise self.failure()
            else:
                return word.decode("ascii", "replace")
        raise AssertionError("`lines` ends by an exception")

    def _read_space(self, text: bytes) -> Space:
        try:
            blocks, unit, inodes, free = (int(each) for each in text.split())
        except ValueError:
            raise HostFault(
                f"host {self.host}: it does not tell how much room is left there",
                host=self.host,
                hint="what does `stat -f` say in its base directory?",
            ) from None
        return Space(blocks * unit, 0, free if inodes else None)

    def line(self) -> bytes:
        """Read one line without its end. Raises `HostFault` where the program ended instead."""
        self._wait()
        line = self.process.stdout.readline(LONGEST_LINE)
        self._heard()
        if not line.endswith(b"\n"):
            raise self.failure()
        return line[:-1]

    def lines(self, most: int) -> Iterator[bytes]:
        """Read line after line, and show life now and then. Raises `HostFault` where there are more than so many."""
        shown = self._heard_at
        for _ in range(most):
            yield self.line()
            if self._heard_at - shown > _LOOK_EVERY:
                shown = self._heard_at
                self._meter.alive()
        raise self.nonsense()

    def nonsense(self) -> HostFault:
        """Return the exception for an answer that none of our programs gives."""
        return HostFault(f"host {self.host}: the far side of the stream says what makes no sense", host=self.host)

    def say(self, text: str, *, now: bool = True) -> None:
        """Send one line."""
        self.send(text.encode("utf-8", "surrogateescape") + b"\n", now=now)

    def send(self, data: bytes, *, now: bool = False) -> None:
        """Send bytes."""
        self._wait()
        self.process.stdin.write(data)
        if now:
            self.process.stdin.flush()
        self._heard()

    def end_input(self) -> None:
        """Tell the far side that nothing more comes; what was sent goes there first."""
        self._wait()
        self.process.stdin.close()
        self._heard()

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Pass bytes of an open file on, at most so many; return how many, 0 at its end."""
        self._wait()
        count = self.process.pass_on(source, size)
        self._heard()
        return count

    def take(self, buffer: memoryview) -> int:
        """Fill a buffer and return the bytes; fewer than it takes only where the program ended."""
        self._wait()
        count: int = self.process.stdout.readinto(buffer)  # type: ignore[attr-defined]  # a buffered stream has it
        self._heard()
        return count

    def says(self, word: str) -> bool:
        """Read what is to be one word; False when it is anything else, or the program ended."""
        expected = word.encode() + b"\n"
        self._wait()
        line = self.process.stdout.readline(len(expected))
        self._heard()
        return line == expected

    def answer(self, word: str) -> str:
        """Read a line that begins with that word, and return the rest."""
        line = self.line()
        if not line.startswith(word.encode() + b" "):
            raise self.failure()
        return line[len(word) + 1 :].decode("ascii", "replace")

    @contextmanager
    def patient(self, size: int) -> Iterator[None]:
        """Wait longer while the far side hashes or copies `size` bytes and says nothing."""
        more = self._limit * size / _BATCH
        self._patience += more
        try:
            yield
        finally:
            self._patience -= more

    def inventory(self) -> tuple[Tree, dict[str, str]]:
        """Read what a directory holds, and the hash of each file."""
        tree = self.listing()
        return tree, self.hashes(tree)

    def held(self, wanted: Sequence[Entry]) -> Held:
        """Read what a directory holds of files that are wanted, sorted by path, and keep no more of it."""
        held = Held(wanted)
        self._list(held)
        with self.patient(held.bytes):
            for path, sha256 in self._each_hash(held.count):
                held.prove(path, sha256)
        return held

    def listing(self) -> Tree:
        """Read what a directory holds. Raises `HostFault` where that has no end, or can't be read."""
        found = Listing()
        self._list(found)
        return found.tree()

    def _list(self, found: Listing) -> None:
        digest = hashlib.sha256()
        broken = False
        for line in self.lines(2 * MOST_ENTRIES):
            if line == b"hashes":
                self._listed += digest.digest()
                self._listed_lines += found.count
                if broken:
                    raise self.failure("listing the files there")
                return
            digest.update(line + b"\n")
            if line == b"broken":
                broken = True
                continue
            if line == b"end" or found.count >= MOST_ENTRIES or found.size > MOST_NAMES:
                break
            found.add(line)
        raise HostFault(f"host {self.host}: a directory can't be listed, or holds too much", host=self.host)

    def forget_listings(self) -> None:
        """Forget the listings that were read: what follows is compared with the next ones."""
        self._listed, self._listed_lines = b"", 0

    def same_listing(self, count: int) -> bool:
        """Read so many listings once more; True when they are what they were."""
        listed, lines = b"", 0
        for _ in range(count):
            digest = hashlib.sha256()
            for line in self.lines(self._listed_lines + 2):
                if line == b"hashes":
                    break
                lines += 1
                if lines > self._listed_lines:
                    return False
                digest.update(line + b"\n")
            listed += digest.digest()
        return listed == self._listed

    def hashes(self, tree: Tree) -> dict[str, str]:
        """Read the hash of each file of a tree."""
        with self.patient(tree.size):
            return self.named_hashes(len(tree.entries), [each.path for each in tree.entries])

    def named_hashes(self, most: int, paths: Sequence[str] = ()) -> dict[str, str]:
        """Read hashes with their paths. Raises `HostFault` where there are more than so many.

        Of `paths`, sorted ones, those that come are given as they are: no text is held twice.
        """
        hashes: dict[str, str] = {}
        for path, sha256 in self._each_hash(most):
            at = bisect_left(paths, path)
            hashes[paths[at] if at < len(paths) and paths[at] == path else path] = sha256
        return hashes

    def _each_hash(self, most: int) -> Iterator[tuple[str, str]]:
        for line in self.lines(most + 1):
            if line == b"end":
                return
            path = line[66:].removeprefix(b"./").decode("utf-8", "surrogateescape")
            yield path, line[:64].decode("ascii", "replace")

    def _wait(self) -> None:
        self._heard_at = time.monotonic()
        self._waiting = True

    def _heard(self) -> None:
        self._waiting = False
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        """Show life while the far side is at work, and end it where it is silent for far too long."""
        signed = time.monotonic()
        while not self._ended.wait(min(_LOOK_EVERY, self._limit / 4)):
            now = time.monotonic()
            try:
                if self._waiting and now - self._heard_at > self._patience:
                    raise HostFault(
                        f"host {self.host}: the far side of the stream says nothing any more", host=self.host
                    )
                # while this side is at work it shows life by itself: what hangs there must not look alive
                if self._waiting and now - max(signed, self._heard_at) > _SIGN_EVERY:
                    signed = now
                    self._meter.alive()
            except Exception as error:  # noqa: BLE001  raised in the thread whose turn it is
                self._reason = error
                self.process.abort()  # its streams are another thread's, who may wait in one and hold it
                return

    def failure(self, doing: str = "") -> HostFault | HostFull:
        """Return the exception for a program that ended early, by what it said on standard error."""
        done = self.process.wait(30.0)
        return read_errors(self.host, done.stderr, doing=doing or self._doing)


_FULL = (b"No space left", b"Disk quota exceeded", b"quota exceeded")
_REASONS = (
    (b"Permission denied", "permission denied"),
    (b"Read-only file system", "its file system is read-only"),
    (b"Input/output error", "its disk reports an error"),
    (b"Cannot allocate memory", "it is out of memory"),
    (b"File name too long", "a name is longer than its file system takes"),
    (b"Unexpected EOF", "the stream ended too early"),
)


def read_errors(host: str, text: bytes, *, doing: str) -> HostFault | HostFull:
    """Say what the programs' own words on standard error mean, without the names in them. Pure."""
    if any(each in text for each in _FULL):
        quota = "its quota is used up" if b"uota" in text else "no space left"
        return HostFull(f"host {host}: {doing} failed: {quota}", host=host, hint="make room on the host")
    reason = next((meaning for said, meaning in _REASONS if said in text), "it gives no reason that is known")
    return HostFault(f"host {host}: {doing} failed: {reason}", host=host)
