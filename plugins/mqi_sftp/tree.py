"""What lies below a directory on a host, in the same records that a survey of a local directory gives."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mqi_cli import Entry, Files, Manifest, ManifestFile, RemoteEntry, describe_unfit, empty_directories

MAX_ENTRIES = 1_000_000
MAX_DEPTH = 64
MAX_PATH = 4096
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

    def manifest(self, hashes: Mapping[str, str]) -> Manifest:
        """Return the manifest of this tree; a file without a hash gets an empty one, which equals no other."""
        files = tuple(ManifestFile(each.path, each.size, hashes.get(each.path, "")) for each in self.files)
        return Manifest(files, empty_directories(list(self.entries)))


def joined(trees: Mapping[str, Tree]) -> Tree:
    """Put trees side by side, each below its prefix: `<name>/`, or nothing where there is but one."""
    if set(trees) == {""}:
        return trees[""]
    entries: list[Entry] = []
    unfit: Counter[str] = Counter()
    unfit_paths: list[str] = []
    for prefix, tree in trees.items():
        if prefix:
            entries.append(Entry(prefix.rstrip("/"), 0, 0, 0, 0o750, is_dir=True))
        entries += [replace(each, path=prefix + each.path) for each in tree.entries]
        unfit.update(tree.unfit or {})
        unfit_paths += [prefix + path for path in tree.unfit_paths]
    return Tree(tuple(sorted(entries, key=lambda each: each.path)), unfit, tuple(unfit_paths))


def walk(files: Files, directory: PurePosixPath, *, alive: Callable[[], None] | None = None) -> Tree:
    """List a directory on a host, links not followed. It must exist. `alive` is called for each directory at least."""
    walked = _Walk()
    level: list[tuple[PurePosixPath, str]] = [(directory, "")]
    depth = 1
    while level and not walked.full:
        bases = dict(level)
        level = []
        for folder, items in files.list_many(list(bases), alive=alive):
            found = walked.take(bases[folder], items, depth)
            level += [(folder / name, f"{bases[folder]}{name}/") for name in found]
            if walked.full:
                break
        depth += 1
    walked.entries.sort(key=lambda each: each.path)
    return Tree(tuple(walked.entries), walked.unfit, tuple(walked.unfit_paths))


class _Walk:
    """What was met so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.unfit: Counter[str] = Counter()
        self.unfit_paths: list[str] = []
        self.full = False
        self._bytes = 0

    def take(self, base: str, items: Iterable[RemoteEntry], depth: int) -> list[str]:
        """Take one directory's entries; return the names of the directories among them."""
        directories: list[str] = []
        names: set[str] = set()
        for item in items:
            path = base + item.name
            self._bytes += len(path)
            problem = problem_of(item, item.name, depth) or self._too_much(path)
            if item.name in names:
                problem = problem or "names that stand there twice"
            if problem:
                self.unfit[problem] += 1
                if len(self.unfit_paths) < MAX_UNFIT:
                    self.unfit_paths.append(path)
                if self.full:
                    break
                continue
            names.add(item.name)
            self.entries.append(
                Entry(path, item.size, item.mtime * 1_000_000_000, 0, stat.S_IMODE(item.mode), is_dir=item.is_dir)
            )
            if item.is_dir:
                directories.append(item.name)
        return directories

    def _too_much(self, path: str) -> str:
        if len(path) > MAX_PATH:
            return f"paths of more than {MAX_PATH} characters"
        if len(self.entries) >= MAX_ENTRIES:
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
    if not (item.is_dir or item.is_file):
        return "symbolic links" if stat.S_ISLNK(item.mode) else "special files (FIFO, socket or device)"
    # the same rule as for what goes up: such names can't be written in a checksum file as they are
    if any(ord(char) < 32 or ord(char) == 127 for char in name) or "\\" in name:
        return "names with control characters or backslashes"
    return f"directories nested deeper than {MAX_DEPTH}" if item.is_dir and depth >= MAX_DEPTH else ""
