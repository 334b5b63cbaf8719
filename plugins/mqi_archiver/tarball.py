"""One tar file for a case: written the same way each time, read with distrust, proven by reading every byte back."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mqi_archiver.contents import CHECKSUMS, MANIFEST, Contents, Tree
from mqi_cli import ManifestFile, parse_checksums

CHUNK = 1 << 20
MAX_DOCUMENT = 64 << 20  # bytes of the manifest or the checksum file
ENDINGS = {"none": ".tar", "gzip": ".tar.gz", "xz": ".tar.xz"}


class Damaged(ValueError):
    """An archive that doesn't prove. The text counts and classifies and names no member."""


class Changed(Exception):
    """A file is no longer what was proven just before."""


@dataclass(frozen=True)
class Proven:
    """An archive that was read from end to end. `sha256` and `size` are of the archive file itself."""

    sha256: str
    size: int
    document: dict[str, Any]
    sums: dict[str, str] = field(repr=False)


# --- writing


def pack(stream: IO[bytes], contents: Contents, *, compression: str, written: Callable[[int], None]) -> None:
    """Write the archive. Two packs of equal contents are equal: fixed order, owner, rights; times are the files' own.

    Raises `Changed` when a file is no longer what its manifest says, and `OSError`.
    """
    with (
        _compressed(stream, compression) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        # The two documents come first: whoever reads knows what to expect before the first file.
        for name, data in ((MANIFEST, contents.document), (CHECKSUMS, contents.checksums)):
            tar.addfile(_member(name, size=len(data)), io.BytesIO(data))
        for tree in contents.trees:
            for path in tree.manifest.empty_dirs:
                tar.addfile(_member(f"{tree.prefix}/{path}", directory=True))
            for each in tree.manifest.files:
                _add_file(tar, tree, each, written)


def _add_file(tar: tarfile.TarFile, tree: Tree, file: ManifestFile, written: Callable[[int], None]) -> None:
    try:
        descriptor = os.open(tree.directory / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise Changed from error
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.size:
            raise Changed
        source = _Hashing(stream, written)
        tar.addfile(_member(f"{tree.prefix}/{file.path}", size=file.size, mtime=int(info.st_mtime)), source)  # type: ignore[arg-type]
        if source.sha256 != file.sha256:
            raise Changed


def _member(name: str, *, size: int = 0, mtime: int = 0, directory: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    member.mode = 0o750 if directory else 0o640
    member.size, member.mtime = size, max(mtime, 0)
    return member


@contextmanager
def _compressed(stream: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if compression == "gzip":
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            yield packed  # type: ignore[misc]
    elif compression == "xz":
        with lzma.LZMAFile(stream, "wb", check=lzma.CHECK_SHA256) as packed:
            yield packed
    else:
        yield stream


class _Hashing:
    """Hashes what is read through it. A file that ends early is `Changed`, whatever tarfile would make of it."""

    def __init__(self, stream: IO[bytes], seen: Callable[[int], None]) -> None:
        self._stream = stream
        self._seen = seen
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more  # a network file system may give less than was asked for
        if len(data) < size:
            raise Changed
        self._digest.update(data)
        self._seen(len(data))
        return data

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


# --- reading


class _Raw(io.RawIOBase):
    """The archive file's own bytes, hashed on their way to the decompressor."""

    def __init__(self, stream: IO[bytes], seen: Callable[[int], None]) -> None:
        self._stream = stream
        self._seen = seen
        self._digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._digest.update(data)
        self.size += len(data)
        self._seen(len(data))
        return len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


Take = Callable[[PurePosixPath, tarfile.TarInfo, Iterator[bytes]], None]


def prove(path: Path, *, read: Callable[[int], None] = lambda count: None, take: Take | None = None) -> Proven:
    """Read an archive from end to end and prove every file in it; give each member to `take` as it comes by.

    `take` gets files and directories whose names lead nowhere but below the place it puts them; their content counts
    only when this returns. Raises `Damaged` for anything that is not exactly one of our archives, and `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Damaged("it is not a regular file")
        # What was just written is to come from the disk, not from memory. Advice only: a file system may not take it.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        raw = _Raw(stream, read)
        buffered = io.BufferedReader(raw, CHUNK)
        with _damage_named(), _decompressed(buffered) as plain:
            document, sums = _members(plain, take)
            while plain.read(CHUNK):  # to the very end: that is where a compressor keeps its own check
                pass
            while buffered.read(CHUNK):
                pass
        return Proven(raw.sha256, raw.size, document, sums)


def peek(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what an archive says of itself, its document and its checksums, without proving them. Raises like `prove`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Damaged("it is not a regular file")
        with (
            _damage_named(),
            _decompressed(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|", encoding="utf-8") as tar,
        ):
            return _documents(tar)


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except Damaged:
        raise
    # ValueError and OverflowError: what tarfile lets through for headers that nobody writes on purpose
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        ValueError,
        OverflowError,
    ) as error:
        raise Damaged("it can't be read as an archive") from error


@contextmanager
def _decompressed(stream: io.BufferedReader[Any]) -> Iterator[IO[bytes]]:
    magic = stream.peek(6)[:6]
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=stream, mode="rb") as plain:
            yield plain  # type: ignore[misc]
    elif magic == b"\xfd7zXZ\0":
        with lzma.LZMAFile(stream, "rb", format=lzma.FORMAT_XZ) as plain:
            yield plain
    else:
        yield stream


def _members(plain: IO[bytes], take: Take | None) -> tuple[dict[str, Any], dict[str, str]]:
    with tarfile.open(fileobj=plain, mode="r|", encoding="utf-8") as tar:
        document, sums = _documents(tar, take)
        left = {name: sha256 for name, sha256 in sums.items() if name != MANIFEST}
        while (member := tar.next()) is not None:
            path = _fit(member)
            name = str(path)
            if member.isdir():
                if take:
                    take(path, member, iter(()))
                continue
            if name not in left:
                raise Damaged("it holds a file that its checksum file does not list, or holds it twice")
            content = _Content(tar, member)
            if take:
                take(path, member, iter(content))
            for _ in content:  # whatever `take` has left
                pass
            if content.sha256 != left.pop(name):
                raise Damaged("a file in it does not match its checksum")
        if left:
            raise Damaged(f"{len(left)} of {len(sums)} files are missing in it")
    return document, sums


def _documents(tar: tarfile.TarFile, take: Take | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    texts = []
    for name in (MANIFEST, CHECKSUMS):
        member = tar.next()
        if member is None or member.name != name or member.type != tarfile.REGTYPE or member.size > MAX_DOCUMENT:
            raise Damaged(f"it does not begin with {MANIFEST} and {CHECKSUMS}: not one of mqi's archives")
        texts.append(b"".join(_Content(tar, member)))
        if take:
            take(PurePosixPath(name), member, iter(texts[-1:]))
    sums = parse_checksums(texts[1])
    if sums.get(MANIFEST) != hashlib.sha256(texts[0]).hexdigest():
        raise Damaged(f"{MANIFEST} does not match its checksum")
    try:
        document = json.loads(texts[0])
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} can't be read") from error
    if not isinstance(document, dict):
        raise Damaged(f"{MANIFEST} can't be read")
    return document, sums


class _Content:
    """A member's bytes, chunk by chunk, hashed."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        stream = tar.extractfile(member)
        if stream is None:
            raise Damaged("it holds something that is neither file nor directory")
        self._stream = stream
        self._digest = hashlib.sha256()
        self._left = member.size

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            chunk = self._stream.read(min(CHUNK, self._left))
            if not chunk:
                raise Damaged("it ends in the middle of a file")
            self._digest.update(chunk)
            self._left -= len(chunk)
            yield chunk

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _fit(member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE) or member.issparse() or member.size < 0:
        raise Damaged("it holds something that is neither file nor directory")
    if path.is_absolute() or ".." in path.parts or "\0" in member.name or str(path) != member.name.rstrip("/"):
        raise Damaged("it holds a name that leads out of its place")
    if not path.parts or path.parts[0] not in ("results", "input"):
        raise Damaged("it holds a name that no archive of mqi's has")
    return path
