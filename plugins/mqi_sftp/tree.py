"""What lies below a directory on a host, in the same records that a survey of a local directory gives."""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath

from mqi_cli import (
    MAX_DEPTH,
    Entry,
    Files,
    Manifest,
    ManifestFile,
    RemoteEntry,
    describe_unfit,
    empty_directories,
    fingerprint_of,
)

MAX_ENTRIES = 1_000_000
LONGEST_NAME = 255  # bytes, as Linux has it
LONGEST_PATH = 4096
LARGEST = (1 << 63) - 1  # bytes, as Linux has it
MAX_CHARACTERS = 128 << 20  # of all paths
MAX_UNFIT = 1000  # paths that are kept of what can't be moved; all of it is counted


@dataclass(frozen=True)
class Tree:
    """Regular files and directories, sorted by path, and what else was met: kind to count, and the paths of those."""

    entries: tuple[Entry, ...] = ()
    unfit: Mapping[str, int] | None = None
    unfit_paths: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Entry, ...]:
        """The regular files."""
        return tuple(each for each in self.entries if not each.is_dir)

    @property
    def sum(self) -> int:
        """A number that says whether another listing is equal, whatever its order."""
        return sum(map(_sum, self.entries))

    @property
    def size(self) -> int:
        """Sum of the files' sizes in bytes."""
        return sum(each.size for each in self.files)

    def describe_unfit(self) -> str:
        """Count what is neither a file nor a directory with a usable name; empty when there is no such thing."""
        return describe_unfit(self.unfit or {})

    def below(self, prefix: str) -> Tree:
        """Return what lies below a directory of it, `<name>/`, with paths from there; all of it for none."""
        if not prefix:
            return self
        return Tree(
            tuple(
                replace(each, path=each.path.removeprefix(prefix))
                for each in self.entries
                if each.path.startswith(prefix)
            )
        )

    @property
    def empty_directories(self) -> tuple[str, ...]:
        """The directories that nothing lies in."""
        return empty_directories(list(self.entries))

    def manifest(self, hashes: Mapping[str, str]) -> Manifest:
        """Return the manifest of this tree; a file without a hash gets an empty one, which equals no other."""
        return Manifest(tuple(self._hashed(hashes)), self.empty_directories)

    def fingerprint(self, hashes: Mapping[str, str]) -> str:
        """Return the fingerprint of that manifest, without making it."""
        return fingerprint_of(self._hashed(hashes), self.empty_directories)

    def _hashed(self, hashes: Mapping[str, str]) -> Iterator[ManifestFile]:
        return (
            ManifestFile(each.path, each.size, hashes.get(each.path, "")) for each in self.entries if not each.is_dir
        )


def _sum(entry: Entry) -> int:
    seen = f"{entry.size} {entry.mtime_ns} {entry.mode} {entry.is_dir} {entry.path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(seen).digest()[:16])


def position(files: Sequence[Entry], path: str) -> int | None:
    """Return where a file stands among files that are sorted by path; None for one that doesn't."""
    at = bisect_left(files, path, key=lambda each: each.path)
    return at if at < len(files) and files[at].path == path else None


def joined(trees: Mapping[str, Tree]) -> Tree:
    """Put trees side by side, each below its prefix: `<name>/`, or nothing where there is but one."""
    if set(trees) == {""}:
        return trees[""]
    entries: list[Entry] = []
    unfit: Counter[str] = Counter()
    unfit_paths: list[str] = []
    for prefix, tree in trees.items():
        if prefix:
            entries.append(_above(prefix))
        entries += [replace(each, path=prefix + each.path) for each in tree.entries]
        unfit.update(tree.unfit or {})
        unfit_paths += [prefix + path for path in tree.unfit_paths]
    return Tree(tuple(sorted(entries, key=lambda each: each.path)), unfit, tuple(unfit_paths))


def _above(prefix: str) -> Entry:
    return Entry(prefix.rstrip("/"), 0, 0, 0, 0o750, is_dir=True)


def walk(
    files: Files,
    directory: PurePosixPath,
    *,
    alive: Callable[[], None] | None = None,
    share: Callable[[Entry], Entry] | None = None,
) -> Tree:
    """List a directory on a host, links not followed. It must exist. `alive` is called for each directory at least.

    `share` may give an equal entry whose path is a text that is held already.
    """
    walked = Walk()
    found = walked.through(files, directory, alive=alive)
    entries = list(map(share, found) if share else found)
    entries.sort(key=lambda each: each.path)
    for each, after in pairwise(entries):
        if each.path == after.path:
            walked.refuse("names that stand there twice", each.path)
    return Tree(tuple(entries), walked.unfit, tuple(walked.unfit_paths))


def walk_sum(files: Files, directory: PurePosixPath, prefix: str, *, alive: Callable[[], None] | None = None) -> int:
    """List it again and keep nothing: return what `Tree.sum` says of it, below a prefix as `joined` puts it."""
    walked = Walk()
    total = _sum(_above(prefix)) if prefix else 0
    for each in walked.through(files, directory, alive=alive):
        total += _sum(replace(each, path=prefix + each.path) if prefix else each)
    return total + sum(walked.unfit.values())


class Walk:
    """One way through a directory on a host, and what was met on it that can't be moved."""

    def __init__(self) -> None:
        self.unfit: Counter[str] = Counter()
        self.unfit_paths: list[str] = []
        self.full = False
        self._entries = 0
        self._bytes = 0
        self._modes: dict[int, int] = {}  # one number for all files of a mode
        self._mtime = 0  # and for those in a row of a time

    def through(
        self, files: Files, directory: PurePosixPath, *, alive: Callable[[], None] | None = None
    ) -> Iterator[Entry]:
        """Give regular files and directories, level by level, in no order."""
        level: list[tuple[PurePosixPath, str]] = [(directory, "")]
        depth = 1
        while level and not self.full:
            bases = dict(level)
            level = []
            for folder, items in files.list_many(list(bases), alive=alive):
                for each in self._take(bases[folder], items, depth):
                    yield each
                    if each.is_dir:
                        level.append((directory / each.path, f"{each.path}/"))
                if self.full:
                    break
            depth += 1

    def _take(self, base: str, items: Iterable[RemoteEntry], depth: int) -> Iterator[Entry]:
        """Take one directory's entries; give those that can be moved."""
        for item in items:
            path = base + item.name
            self._bytes += len(path)
            problem = problem_of(item, item.name, depth) or self._too_much(path)
            if problem:
                self.refuse(problem, path)
                if self.full:
                    break
                continue
            self._entries += 1
            mode = stat.S_IMODE(item.mode)
            if (mtime := item.mtime * 1_000_000_000) != self._mtime:
                self._mtime = mtime
            yield Entry(path, item.size, self._mtime, 0, self._modes.setdefault(mode, mode), is_dir=item.is_dir)

    def refuse(self, problem: str, path: str) -> None:
        """Count what can't be moved."""
        self.unfit[problem] += 1
        if len(self.unfit_paths) < MAX_UNFIT:
            self.unfit_paths.append(path)

    def _too_much(self, path: str) -> str:
        if len(path) > LONGEST_PATH:
            return f"paths of more than {LONGEST_PATH} bytes"
        if self._entries >= MAX_ENTRIES:
            self.full = True
            return f"entries beyond {MAX_ENTRIES:,}"
        if self._bytes > MAX_CHARACTERS:
            self.full = True
            return f"paths beyond {MAX_CHARACTERS >> 20} MiB of them"
        return ""


def problem_of(item: RemoteEntry, name: str, depth: int) -> str:
    """Say what keeps an entry from being moved; empty when nothing does."""
    if "/" in name or name in ("", ".", ".."):
        return "names that lead elsewhere"  # hosts refuse them; this stands for a kind of host that does not
    if len(os.fsencode(name)) > LONGEST_NAME:
        return f"names of more than {LONGEST_NAME} bytes"
    if item.size < 0:
        return "sizes below zero"
    if item.size > LARGEST:
        return "sizes that no file can have"
    if not (item.is_dir or item.is_file):
        return "symbolic links" if stat.S_ISLNK(item.mode) else "special files (FIFO, socket or device)"
    # the same rule as for what goes up: such names can't be written in a checksum file as they are
    if any(ord(char) < 32 or ord(char) == 127 for char in name) or "\\" in name:
        return "names with control characters or backslashes"
    return f"directories nested deeper than {MAX_DEPTH}" if item.is_dir and depth >= MAX_DEPTH else ""
