"""Many directories over one SFTP session: listed, made and removed with many requests under way, and within bounds.

What a server lists is believed only so far: an endless listing, or directories without end, would fill the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from mqi_cli.hosts import sftp_calls as calls
from mqi_cli.hosts.sftp_many import Job, run_steps
from mqi_cli.hosts.sftp_protocol import (
    Answer,
    Ask,
    Attributes,
    Reply,
    SftpLost,
    SftpOverflow,
    SftpRefused,
    Status,
    pack_attributes,
    pack_string,
)
from mqi_cli.hosts.sftp_session import SftpSession

MOST_ENTRIES = 1_000_000
MOST_BYTES = 64 * 1024 * 1024  # of names
LONGEST_NAME = 255  # what file systems allow
LONGEST_PATH = 4096
_AHEAD = 16  # requests of one listing that are under way

Alive = Callable[[], None]
Found = list[tuple[bytes, Attributes]]


@dataclass
class Bounds:
    """What may still be listed, in all listings that belong together."""

    entries: int
    size: int  # of their names, in bytes

    def take(self, name: bytes) -> None:
        """Count a name. Raises `SftpOverflow` when that is too much."""
        self.entries -= 1
        self.size -= len(name)
        if len(name) > LONGEST_NAME:
            raise SftpOverflow(f"it lists a name of more than {LONGEST_NAME} bytes")
        if self.entries < 0:
            raise SftpOverflow(f"it lists more than {MOST_ENTRIES:,} entries")
        if self.size < 0:
            raise SftpOverflow(f"it lists names of more than {MOST_BYTES >> 20} MiB")


def bounds() -> Bounds:
    """Return what one question to a server may bring."""
    return Bounds(MOST_ENTRIES, MOST_BYTES)


def list_many(
    session: SftpSession, paths: Sequence[bytes], within: Bounds, alive: Alive | None, *, gone_is_empty: bool = False
) -> Iterator[tuple[int, Found]]:
    """List directories side by side, without `.` and `..`; give position and entries, a piece of a listing at a time.

    Raises `SftpOverflow` for what goes beyond the bounds, and for names that can't be any.
    """
    come: deque[tuple[int, Found]] = deque()

    def give(position: int, found: Found) -> None:
        come.append((position, found))

    def jobs() -> Iterator[tuple[int, Job]]:
        for position, path in enumerate(paths):
            yield 0, _list(session, path, partial(give, position), within, alive, gone_is_empty)

    for _ in run_steps(session, jobs()):
        while come:
            position, found = come.popleft()
            yield position, [(name, each) for name, each in found if name not in (b".", b"..")]


def _list(
    session: SftpSession,
    path: bytes,
    give: Callable[[Found], None],
    within: Bounds,
    alive: Alive | None,
    gone_is_empty: bool,
) -> Job:
    reply = yield session.send(Ask.OPENDIR, pack_string(path))
    try:
        handle = pack_string(reply.expect(Answer.HANDLE).string())
    except SftpRefused as refused:
        if gone_is_empty and refused.status == Status.NO_SUCH_FILE:
            return
        raise
    pending: deque[int] = deque([session.send(Ask.READDIR, handle)])
    ahead = 1
    with calls.handle_of(session, handle) as close:
        while pending:
            reply = yield pending.popleft()
            if alive:
                alive()
            if found := _take_names(reply, within):
                give(found)
            else:
                ahead = 0  # the end; what was asked beyond it says so too
            ahead = min(2 * ahead, _AHEAD)
            while len(pending) < ahead:
                pending.append(session.send(Ask.READDIR, handle))
        (yield close()).expect(Answer.STATUS)


def _take_names(reply: Reply, within: Bounds) -> Found:
    """Return the entries of one answer; none at the end."""
    try:
        count = reply.expect(Answer.NAME).number()
    except SftpRefused as refused:
        if refused.status == Status.EOF:
            return []
        raise
    if not count:
        raise SftpLost("a listing goes on without names")
    entries: Found = []
    for _ in range(count):
        name, _long = reply.string(), reply.string()
        within.take(name)
        entries.append((name, reply.attributes()))
    # such a name leads out of the directory; no file system makes one
    if bad := sum(1 for name, _ in entries if not name or b"/" in name or b"\0" in name):
        raise SftpOverflow(f"of a listing on it {bad} can't be names: empty, or with `/` or NUL")
    return entries


def make_many(session: SftpSession, paths: Sequence[bytes], mode: int) -> int | None:
    """Make directories, parents first; return the position of the first that was refused."""
    payload = pack_attributes(mode=mode)
    for start, end in _levels(paths):
        numbers = [session.send(Ask.MKDIR, pack_string(each) + payload) for each in paths[start:end]]
        refused = None
        for position, number in enumerate(numbers, start):
            try:
                session.take(number).expect(Answer.STATUS)
            except SftpRefused:
                refused = position if refused is None else refused
        if refused is not None:
            return refused
    return None


def _levels(paths: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Split into runs of at most 64 that hold no directory of one of themselves: a server may do them in any order."""
    start, inside = 0, set[bytes]()
    for end, path in enumerate(paths):
        if end - start >= calls.AT_ONCE or path.rpartition(b"/")[0] in inside:
            yield start, end
            start, inside = end, set()
        inside.add(path)
    if start < len(paths):
        yield start, len(paths)


def remove_tree(session: SftpSession, path: bytes, alive: Alive | None) -> None:
    """Remove a directory and all below it. Links are removed, never followed."""
    directories: list[bytes] = []
    level, size = [path], 0
    while level:
        directories += level
        below: list[bytes] = []
        others: list[bytes] = []
        for position, found in list_many(session, level, bounds(), alive, gone_is_empty=True):
            entries = [(level[position] + b"/" + name, each) for name, each in found]
            inside = [path for path, each in entries if each.is_dir]
            size += sum(map(len, inside))
            if size > MOST_BYTES or any(len(each) > LONGEST_PATH for each in inside):
                raise SftpOverflow("it lists directories without end")
            below += inside
            others += [path for path, each in entries if not each.is_dir]
        calls.ask_all(session, Ask.REMOVE, others)  # a listing that is going on would not like it
        level = below
    # from the inside out: a directory is found before what it holds
    calls.ask_all(session, Ask.RMDIR, directories[::-1])


def raw_paths(paths: Iterable[object]) -> list[bytes]:
    """Return paths as the server takes them."""
    return [str(each).encode("utf-8", "surrogateescape") for each in paths]
