"""Decides what has to be moved: compares what should be with what is there. Pure."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from mqi_cli import Entry, Manifest, ManifestFile

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
# A file has this mode until it is closed. A stale worker may still hold such a file open and write into it later, so
# it is never taken over as it is: what it holds is copied, or it is sent again.
OPEN_MODE = 0o600
RESUME_FROM = 1 << 20  # a shorter beginning is sent again faster than it is proven
RESUME_STEP = 64 * 1024
LATEST_MTIME = 2**32 - 1  # SFTP version 3 has 32 bits for it
SPARE = 1.05  # room to ask for beyond the plain sum

BATCH_BYTES = 256 << 20
BATCH_FILES = 2000  # 67 bytes of answer each: far below what `Host.run` keeps

_FENCE = re.compile(r"(\d+)-(\d+)\Z")

_T = TypeVar("_T")
_File = TypeVar("_File", Entry, ManifestFile)


@dataclass(frozen=True, order=True)
class Fence:
    """Attempt and turn: the later pair owns what both could touch."""

    attempt: int
    turn: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.turn}"

    @classmethod
    def parse(cls, text: str) -> Fence | None:
        """Read `<attempt>-<turn>`; None for anything else."""
        found = _FENCE.match(text)
        return cls(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class Mark:
    """A file's time in whole seconds and its mode, set when it is closed: only a whole file bears them."""

    mtime: int
    mode: int

    @classmethod
    def of(cls, found: Entry) -> Mark:
        """Return the mark that a file bears."""
        return cls(found.mtime_ns // 1_000_000_000, found.mode)

    @classmethod
    def due(cls, source: Entry) -> Mark:
        """Return the mark that a copy of a file gets."""
        return cls(whole_mtime(source.mtime_ns), sent_mode(source.mode))


class Marks(Mapping[str, Mark]):
    """The mark that each file's copy gets, sixteen bytes a file: a case may hold a hundred thousand."""

    def __init__(self, manifest: Manifest, times: array[int], modes: array[int]) -> None:
        self._manifest = manifest
        self._times = times
        self._modes = modes

    def __getitem__(self, path: str) -> Mark:
        at = self._manifest.position(path)
        if at is None:
            raise KeyError(path)
        return Mark(self._times[at], self._modes[at])

    def __iter__(self) -> Iterator[str]:
        return (each.path for each in self._manifest.files)

    def __len__(self) -> int:
        return len(self._manifest.files)


@dataclass(frozen=True)
class Proven:
    """What was proven at the far end."""

    files: int
    size: int
    fingerprint: str

    @classmethod
    def of(cls, manifest: Manifest) -> Proven:
        """Return what a manifest says in short."""
        return cls(len(manifest.files), manifest.size, manifest.fingerprint)


@dataclass(frozen=True)
class UploadPlan:
    """What to do to a staging directory so that it holds a manifest. Paths are relative to it."""

    keep: tuple[ManifestFile, ...]
    resume: tuple[tuple[ManifestFile, int], ...]  # with the length of the beginning that may be there already
    copy: tuple[ManifestFile, ...]  # from the input of an earlier revision; sent where the host doesn't copy
    send: tuple[ManifestFile, ...]
    make: tuple[str, ...]  # directories, parents first
    drop_files: tuple[str, ...]
    drop_trees: tuple[str, ...]

    @property
    def work(self) -> int:
        """How many files are to be written."""
        return len(self.resume) + len(self.copy) + len(self.send)

    @property
    def kept_bytes(self) -> int:
        """Bytes that are there already as whole files."""
        return sum(each.size for each in self.keep)

    @property
    def missing_bytes(self) -> int:
        """The most that has to be written."""
        return sum(each.size for each in chain((each for each, _ in self.resume), self.copy, self.send))


def directories_of(manifest: Manifest) -> tuple[str, ...]:
    """Return every directory that a manifest needs, parents before what lies in them."""
    wanted = set(manifest.empty_dirs)
    for path in chain((each.path for each in manifest.files), manifest.empty_dirs):
        parent = path.rpartition("/")[0]
        while parent and parent not in wanted:
            wanted.add(parent)
            parent = parent.rpartition("/")[0]
    return tuple(sorted(wanted))


def sent_mode(mode: int) -> int:
    """Return the mode that a file gets: ours, executable where the owner may execute it. Never set-user-id."""
    return FILE_MODE | 0o110 if mode & 0o100 else FILE_MODE


def whole_mtime(mtime_ns: int) -> int:
    """Return a modification time as SFTP can carry it."""
    return min(max(mtime_ns // 1_000_000_000, 0), LATEST_MTIME)


class Whole:
    """Which files of a manifest a listing has whole, by size, time and mode: a byte for each."""

    def __init__(self, manifest: Manifest, marks: Mapping[str, Mark], found: Iterable[Entry]) -> None:
        self._whole = bytearray(len(manifest.files))
        for each in found:
            at = manifest.position(each.path)
            if at is not None and _is_whole(manifest.files[at], each, marks):
                self._whole[at] = 1

    def __getitem__(self, at: int) -> bool:
        return bool(self._whole[at])


def _is_whole(file: ManifestFile, there: Entry | None, marks: Mapping[str, Mark]) -> bool:
    return bool(there and not there.is_dir and there.size == file.size and Mark.of(there) == marks[file.path])


def plan_upload(
    manifest: Manifest,
    found: Sequence[Entry],
    marks: Mapping[str, Mark],
    *,
    earlier: Sequence[Entry] | Whole = (),
    wrong: frozenset[str] = frozenset(),
) -> UploadPlan:
    """Plan the way from what a staging directory holds to what it should hold.

    A file is kept only when its writer has closed it (mode and time are set after the close) and its size is right;
    its content is proven at the end, with all others. What `earlier` holds, the input of an earlier revision, is copied
    by the same signs. `wrong` names files whose content was disproved.
    """
    directories = directories_of(manifest)
    here = {each.path: each for each in found}
    before = earlier if isinstance(earlier, Whole) else Whole(manifest, marks, earlier)
    keep, resume, copy, send = [], [], [], []
    for at, each in enumerate(manifest.files):
        there = here.get(each.path)
        if each.path in wrong:
            send.append(each)
        elif _is_whole(each, there, marks):
            keep.append(each)
        elif before[at]:
            copy.append(each)
        elif there is None or there.is_dir:
            send.append(each)
        elif there.size >= RESUME_FROM and each.size >= RESUME_FROM:
            length = min(there.size, each.size)
            resume.append((each, length - length % RESUME_STEP))
        else:
            send.append(each)
    kept = {each.path for each in keep} | {each.path for each, _ in resume}
    trees = _outermost([each.path for each in found if each.is_dir and each.path not in directories])
    return UploadPlan(
        keep=tuple(keep),
        resume=tuple(resume),
        copy=tuple(copy),
        send=tuple(send),
        make=tuple(path for path in directories if path not in here or not here[path].is_dir),
        # what stands where another kind of thing belongs goes too
        drop_files=tuple(
            each.path for each in found if not each.is_dir and each.path not in kept and not _below(each.path, trees)
        ),
        drop_trees=trees,
    )


def _outermost(paths: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for path in sorted(paths):
        if not _below(path, found[-1:]):
            found.append(path)
    return tuple(found)


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path.startswith(each + "/") for each in directories)


@dataclass(frozen=True)
class Difference:
    """How a directory differs from what it should be, path by path."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.changed)

    def __str__(self) -> str:
        counts = ((self.changed, "differ"), (self.missing, "are missing"), (self.extra, "are there that should not be"))
        return ", ".join(f"{len(paths)} {what}" for paths, what in counts if paths) or "nothing differs"


def compare(wanted: Manifest, found: Manifest) -> Difference:
    """Compare two manifests both ways, empty directories included (they end with `/`)."""
    missing, changed = [], []
    for each in wanted.files:
        at = found.position(each.path)
        if at is None:
            missing.append(each.path)
        elif found.files[at] != each:
            changed.append(each.path)
    extra = [each.path for each in found.files if wanted.position(each.path) is None]
    left, right = dict.fromkeys(wanted.empty_dirs), dict.fromkeys(found.empty_dirs)
    missing += [f"{path}/" for path in left if path not in right]
    extra += [f"{path}/" for path in right if path not in left]
    return Difference(tuple(missing), tuple(extra), tuple(changed))


def compare_hashes(wanted: Mapping[str, str], found: Manifest) -> Difference:
    """Compare what is there with a list of hashes, which says nothing of empty directories."""
    hashes = {each.path: each.sha256 for each in found.files}
    return Difference(
        missing=tuple(path for path in wanted if path not in hashes),
        extra=tuple(path for path in hashes if path not in wanted),
        changed=tuple(path for path, value in wanted.items() if path in hashes and hashes[path] != value),
    )


def batches(entries: Sequence[_File]) -> Iterator[list[_File]]:
    """Split files into pieces that one command hashes in a bearable time. A larger file is a batch of its own."""
    batch: list[_File] = []
    size = 0
    for each in entries:
        if batch and (len(batch) >= BATCH_FILES or size + each.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


def has_room(*, free_bytes: int, free_inodes: int | None, size: int, count: int) -> bool:
    """Whether `count` files of `size` bytes in all fit, with something to spare."""
    return free_bytes >= size * SPARE and (free_inodes is None or free_inodes >= count * SPARE)


def newest(fences: Mapping[Fence, _T], mine: Fence) -> tuple[_T | None, bool]:
    """Return what the newest fence before `mine` left, and whether a later one than `mine` is at work."""
    earlier = [each for each in fences if each < mine]
    return (fences[max(earlier)] if earlier else None), any(each > mine for each in fences)
