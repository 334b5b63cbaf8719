"""What a directory holds, file by file, and the one hash over it that says whether two directories are the same.

A manifest is made once when a case is accepted and again while it is sent; the fingerprints must agree. Its text form
is that of `sha256sum`, so anybody can prove a directory with `sha256sum -c` and nothing of ours.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
MAX_ENTRIES = 1_000_000
MAX_DEPTH = 64  # names in a path


class Unfit(ValueError):
    """A directory that cannot be a case as it is. The text counts and classifies; `entries` name what is in the way."""

    def __init__(self, reason: str, entries: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.entries = entries


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file or a directory below the case. `path` is relative, with `/`; `mtime_ns` and `inode` are this machine's."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    mode: int
    is_dir: bool = False


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of a manifest, proven by its SHA-256 (64 hex digits)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Files sorted by path, and the directories that hold no file, sorted."""

    files: tuple[ManifestFile, ...]
    empty_dirs: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Sum of the files' sizes in bytes."""
        return sum(each.size for each in self.files)

    def position(self, path: str) -> int | None:
        """Return where a file stands among `files`; None for one that doesn't."""
        at = bisect_left(self.files, path, key=lambda each: each.path)
        return at if at < len(self.files) and self.files[at].path == path else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every path, size and hash and the empty directories: equal only for equal content."""
        return fingerprint_of(self.files, self.empty_dirs)

    def checksums(self) -> bytes:
        """Return the text that `sha256sum -c` reads."""
        return b"".join(self.checksum_lines())

    def checksum_lines(self) -> Iterator[bytes]:
        """Give that text line by line."""
        for each in self.files:
            path = "./-" if each.path == "-" else each.path  # a bare dash would be standard input
            yield each.sha256.encode() + b"  " + path.encode("utf-8", "surrogateescape") + b"\n"


def survey(directory: Path, *, max_entries: int = MAX_ENTRIES) -> list[Entry]:
    """Return every regular file and directory below `directory`, sorted by path, without reading any content.

    Raises `Unfit` for what no case may hold: links, devices, FIFOs, sockets, names with a line break, names that are
    not UTF-8, unreadable directories, more than `max_entries`. A vanished entry is passed over: the next look tells.
    """
    return sorted(surveyed(directory, max_entries=max_entries), key=lambda each: each.path)


def surveyed(directory: Path, *, max_entries: int = MAX_ENTRIES) -> Iterator[Entry]:
    """Give what `survey` returns, in no order but directories before what lies in them. Raises likewise, at the end too."""
    for count, entry in enumerate(_surveyed(directory)):
        if count >= max_entries:
            raise Unfit(f"more than {max_entries} entries")
        yield entry


def look_over(directory: Path) -> tuple[list[Entry], dict[str, list[str]]]:
    """Return what `survey` returns, and beside it what no case may hold: paths by kind. Raises `OSError`."""
    unfit: dict[str, list[str]] = {}
    entries = sorted(_fit(directory, unfit), key=lambda each: each.path)
    return entries, unfit


def describe_one(kind: str) -> str:
    """Return the kind of one thing that can't be moved: `symbolic link`."""
    return _ONE.get(kind, kind)


def unchanged(directory: Path, entries: list[Entry]) -> bool:
    """Look again, without holding a second list: True when all is as it was listed. Raises `Unfit`, `OSError`."""
    return _sum(_surveyed(directory)) == _sum(entries)


def _sum(entries: Iterable[Entry]) -> int:
    """Hash a listing whatever its order."""
    return sum(int.from_bytes(hashlib.sha256(_seen(each)).digest()[:16]) for each in entries)


def _surveyed(directory: Path) -> Iterator[Entry]:
    unfit: dict[str, list[str]] = {}
    yield from _fit(directory, unfit)
    if unfit:
        counted = describe_unfit({what: len(paths) for what, paths in unfit.items()})
        raise Unfit(f"it holds {counted}", tuple(path for paths in unfit.values() for path in paths))


def _fit(directory: Path, unfit: dict[str, list[str]]) -> Iterator[Entry]:
    device = directory.stat().st_dev
    for entry in _walk(directory, "", unfit):
        if entry is None:
            continue
        info, relative, is_dir, item_device = entry
        if is_dir and item_device != device:
            unfit.setdefault("other file systems", []).append(relative)
            continue
        yield Entry(relative, info.st_size, info.st_mtime_ns, info.st_ino, stat.S_IMODE(info.st_mode), is_dir)


def _walk(
    directory: Path, prefix: str, unfit: dict[str, list[str]]
) -> Iterator[tuple[os.stat_result, str, bool, int] | None]:
    pending = [(directory, prefix)]
    while pending:
        folder, base = pending.pop()
        depth = base.count("/") + 1
        try:
            items = list(os.scandir(folder))
        except FileNotFoundError:
            continue
        except OSError:
            unfit.setdefault("unreadable directories", []).append(base or ".")
            continue
        for item in items:
            relative = base + item.name
            try:
                info = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            problem = _problem(item.name, info, depth)
            if problem:
                unfit.setdefault(problem, []).append(relative)
            elif stat.S_ISDIR(info.st_mode):
                yield info, relative, True, info.st_dev
                pending.append((Path(item.path), relative + "/"))
            else:
                yield info, relative, False, info.st_dev


_ONE = {
    "names that are not UTF-8": "name that is not UTF-8",
    "names with control characters or backslashes": "name with control characters or backslashes",
    "other file systems": "other file system",
    "special files (FIFO, socket or device)": "special file (FIFO, socket or device)",
    "symbolic links": "symbolic link",
    "unreadable directories": "unreadable directory",
    f"directories nested deeper than {MAX_DEPTH}": f"directory nested deeper than {MAX_DEPTH}",
    # of a listing that a host gives
    "names of more than 255 bytes": "name of more than 255 bytes",
    "names that lead elsewhere": "name that leads elsewhere",
    "names that stand there twice": "name that stands there twice",
    "paths of more than 4096 bytes": "path of more than 4096 bytes",
    "sizes below zero": "size below zero",
    "sizes that no file can have": "size that no file can have",
}


def describe_unfit(counts: Mapping[str, int]) -> str:
    """Count what can't be moved, kind by kind, without a name: `1 symbolic link, 2 names that are not UTF-8`. Pure."""
    return ", ".join(
        f"1 {_ONE.get(what, what)}" if count == 1 else f"{count} {what}" for what, count in sorted(counts.items())
    )


def _problem(name: str, info: os.stat_result, depth: int) -> str:
    if stat.S_ISLNK(info.st_mode):
        return "symbolic links"
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return "special files (FIFO, socket or device)"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "names that are not UTF-8"
    if any(ord(char) < 32 or ord(char) == 127 for char in name) or "\\" in name:
        return "names with control characters or backslashes"
    # a host's listing is read no deeper either: what goes there could not be proven
    return f"directories nested deeper than {MAX_DEPTH}" if stat.S_ISDIR(info.st_mode) and depth >= MAX_DEPTH else ""


def snapshot(entries: list[Entry]) -> str:
    """Hash what `survey` saw (path, size, mtime, inode): two equal snapshots mean that nothing was written in between."""
    digest = hashlib.sha256()
    for each in entries:
        digest.update(_seen(each))
    return digest.hexdigest()


def _seen(entry: Entry) -> bytes:
    kind = "d" if entry.is_dir else "f"
    size = 0 if entry.is_dir else entry.size  # a directory's size is the file system's own business
    return f"{kind} {size} {entry.mtime_ns} {entry.inode} {entry.path}\0".encode()


def empty_directories(entries: list[Entry]) -> tuple[str, ...]:
    """Return the directories that nothing lies in, sorted."""
    parents = {each.path.rpartition("/")[0] for each in entries}
    return tuple(each.path for each in entries if each.is_dir and each.path not in parents)


def hash_file(path: Path | str, *, read: Callable[[int], None] | None = None) -> str:
    """Return a file's SHA-256 as 64 hex digits; `read` is told of the bytes as they are read. Raises `OSError`."""
    digest = hashlib.sha256()
    with io.FileIO(path) as stream:  # of a hundred thousand small files, opening them is most of the work
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            if read:
                read(len(chunk))
    return digest.hexdigest()


def build_manifest(
    directory: Path, *, entries: list[Entry] | None = None, read: Callable[[int], None] | None = None
) -> Manifest:
    """Hash every file below `directory`. Raises `Unfit` (also when a file changed while it was read) and `OSError`.

    `entries`, what `survey` gave, is emptied meanwhile.
    """
    seen = survey(directory) if entries is None else entries
    empty_dirs = empty_directories(seen)
    return Manifest(tuple(_hashed(directory, seen, read)), empty_dirs)


def fingerprint_directory(
    directory: Path, *, read: Callable[[int], None] | None = None, known: Callable[[Entry], str] | None = None
) -> str:
    """Return the fingerprint of what lies below `directory`, and keep no list of it. Raises likewise.

    `known` may give the hash of a file that needs not be read; an empty text for one that has to be.
    """
    seen = survey(directory)
    empty_dirs = empty_directories(seen)
    return fingerprint_of(_hashed(directory, seen, read, known), empty_dirs)


def _hashed(
    directory: Path,
    seen: list[Entry],
    read: Callable[[int], None] | None,
    known: Callable[[Entry], str] | None = None,
) -> Iterator[ManifestFile]:
    """Hash file by file; `seen` shrinks meanwhile, for a case may hold a hundred thousand."""
    before = _sum(seen)
    seen.reverse()
    while seen:
        each = seen.pop()
        if not each.is_dir:
            sha256 = (known(each) if known else "") or hash_file(f"{directory}/{each.path}", read=read)
            yield ManifestFile(each.path, each.size, sha256)
    if _sum(_surveyed(directory)) != before:
        raise Unfit("it changed while it was read")


def fingerprint_of(files: Iterable[ManifestFile], empty_dirs: Iterable[str]) -> str:
    """Return the fingerprint of a manifest of which no list is held."""
    digest = hashlib.sha256()
    for each in files:
        digest.update(f"f {each.size} {each.sha256} ".encode() + each.path.encode("utf-8", "surrogateescape") + b"\0")
    for path in empty_dirs:
        digest.update(b"d " + path.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def parse_checksums(data: bytes) -> dict[str, str]:
    """Read `sha256sum` text: path to hash. Raises `Unfit` for a line that is none, an absolute path or one with `..`."""
    found: dict[str, str] = {}
    text = data.decode("utf-8", "surrogateescape")
    for number, ended in enumerate(text.split("\n"), 1):  # not splitlines: a name may hold U+2028, to it a line break
        line = ended.removesuffix("\r")
        if not line.strip():
            continue
        digest, gap, path = line[:64].lower(), line[64:66], line[66:]
        path = path.removeprefix("./")
        parts = path.split("/")
        if len(digest) != 64 or gap not in ("  ", " *") or not path or path.startswith("/") or ".." in parts:
            raise Unfit(f"line {number} of its checksum file is not one that sha256sum writes")
        found[path] = digest
    return found
