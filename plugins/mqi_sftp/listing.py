"""Reads a far side's own listing, line by line, and believes none of it: each path is checked before it is used."""

from __future__ import annotations

import stat
from collections import Counter

from mqi_cli import MAX_DEPTH, Entry, RemoteEntry
from mqi_sftp.tree import LONGEST_PATH, Tree, problem_of

_LONGEST_MODE = 5  # octal digits
_KINDS = {b"f": stat.S_IFREG, b"d": stat.S_IFDIR, b"l": stat.S_IFLNK}


class Listing:
    """Takes lines `<kind> <mode> <size> <mtime> ./<path>` as GNU find prints them."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0  # bytes of the paths, and of what is none
        self._modes: dict[bytes, int] = {}  # one number for all files of a mode
        self._mtime = 0  # and for those in a row of a time
        self._entries: dict[str, Entry] = {}
        self._unfit: Counter[str] = Counter()
        self._paths: list[str] = []

    def add(self, line: bytes) -> None:
        """Take one line."""
        self.count += 1
        try:
            kind, mode, size, written, raw = line.split(b" ", 4)
            if len(mode) > _LONGEST_MODE:
                raise ValueError
            item = RemoteEntry(
                "",
                _KINDS.get(kind, 0) | self._modes.setdefault(mode, int(mode, 8)),
                int(size),
                int(written.partition(b".")[0]),
            )
        except ValueError:
            self.size += len(line)
            self._refuse("names with control characters or backslashes", "?")  # a line break in a name
            return
        self.size += len(raw)
        try:
            path = raw.removeprefix(b"./").decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("names that are not UTF-8", raw.decode("utf-8", "replace"))
            return
        parts = path.split("/")
        problem = _elsewhere(raw, parts) or _too_long(raw) or problem_of(item, parts[-1], len(parts))
        bits = stat.S_IMODE(item.mode)
        if (mtime := item.mtime * 1_000_000_000) != self._mtime:
            self._mtime = mtime
        entry = Entry(path, item.size, self._mtime, 0, bits, is_dir=item.is_dir)
        if problem or not self.keep(entry):
            self._refuse(problem or "names that stand there twice", path)

    def keep(self, entry: Entry) -> bool:
        """Keep an entry; False for one whose path is there already."""
        return self._entries.setdefault(entry.path, entry) is entry

    def tree(self) -> Tree:
        """Return what was listed. A path whose directory wasn't listed leads elsewhere."""
        for path in [each for each in self._entries if not self._has_parent(each)]:
            del self._entries[path]
            self._refuse("names that lead elsewhere", path)
        entries = sorted(self._entries.values(), key=lambda each: each.path)
        self._entries.clear()
        return Tree(tuple(entries), self._unfit, tuple(self._paths))

    def _has_parent(self, path: str) -> bool:
        parent = path.rpartition("/")[0]
        return not parent or (parent in self._entries and self._entries[parent].is_dir)

    def _refuse(self, problem: str, path: str) -> None:
        self._unfit[problem] += 1
        if len(self._paths) < 1000:
            self._paths.append(path)


def _too_long(raw: bytes) -> str:
    return f"paths of more than {LONGEST_PATH} bytes" if len(raw) - 2 > LONGEST_PATH else ""


def _elsewhere(raw: bytes, parts: list[str]) -> str:
    wrong = not raw.startswith(b"./") or any(each in ("", ".", "..") for each in parts) or len(parts) > MAX_DEPTH
    return "names that lead elsewhere" if wrong else ""
