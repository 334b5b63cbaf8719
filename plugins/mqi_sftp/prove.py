"""Hashes files on a host where they lie, so that what is proven is what is there and not what was sent."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from mqi_cli import Entry, Files, Host, HostFault, ManifestFile, NoShell, Receiving
from mqi_sftp.meter import Meter
from mqi_sftp.plan import batches
from mqi_sftp.tree import Tree

if TYPE_CHECKING:
    from typing_extensions import Buffer  # brought by pydantic; the standard library has it from 3.12 on

_File = TypeVar("_File", Entry, ManifestFile)

# Names come over standard input and go into redirections: a name on a command line would show in the far side's
# process list, and one that begins with a dash would be an option. One answer a name, in order.
# One Python does for all of them what `sha256sum` does at a process each; one that can't says so before it reads.
_HASH = """\
cd -- "$1" || exit 2
command -v python3 >/dev/null 2>&1 && python3 -I -c "$2" 2>/dev/null && exit 0
command -v sha256sum >/dev/null 2>&1 || exit 127
while IFS= read -r name; do sha256sum < "./$name" || echo -; done
"""
_HASH_ALL = """\
import hashlib, sys
for name in sys.stdin.buffer:
    digest = hashlib.sha256()
    try:
        with open(b"./" + name.rstrip(b"\\n"), "rb", 0) as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
        print(digest.hexdigest() + "  -")
    except OSError:
        print("-")
"""
# A worker that was given up may hold the file open still. So its beginning goes into a new file, which only we have.
_COPY_BEGINNING = """\
command -v sha256sum >/dev/null 2>&1 || exit 127
cd -- "$1" || exit 2
umask 077
IFS= read -r name
head -c "$2" < "./$name" > "../$3" && sha256sum < "../$3"
"""
_ANSWER = re.compile(rb"(?:([0-9a-f]{64})  -|-)\Z")


class HashSink(io.BytesIO):
    """Takes bytes and keeps only their SHA-256."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.sha256()

    def write(self, data: Buffer, /) -> int:
        """Hash one piece."""
        view = memoryview(data)
        self.digest.update(view)
        return view.nbytes


def parse_hashes(output: bytes, count: int) -> list[str] | None:
    """Read the answers of the hash script; an empty text for a file that can't be read. None when some are missing.

    Lines of another form are passed over: a login shell may print a greeting.
    """
    answers = [found for line in output.splitlines() if (found := _ANSWER.match(line))]
    if len(answers) != count:
        return None
    return [(found[1] or b"").decode() for found in answers]


def hash_tree(
    host: Host, files: Files, directory: PurePosixPath, tree: Tree, *, timeout: float, meter: Meter
) -> dict[str, str]:
    """Return the hash of each file of a tree; files that the account can't read are left out."""
    found = hashed(host, files, directory, tree.files, timeout=timeout, meter=meter)
    return {each.path: value for each, value in found if value}


def hashed(
    host: Host, files: Files | None, directory: PurePosixPath, entries: Sequence[_File], *, timeout: float, meter: Meter
) -> Iterator[tuple[_File, str]]:
    """Give each file with its hash, empty for one that the account can't read; made there where a program does that.

    Where none does they are read back, or, without `files`, `NoShell` is raised before anything is given.
    """
    programs = True
    for batch in batches(entries):
        found = hash_there(host, directory, batch, timeout=timeout) if programs else None
        if found is None:
            programs = False
            if files is None:
                raise NoShell(f"host {host.name}: no program there hashes", host=host.name)
            found = _read_back(files, directory, batch, meter)
        else:
            meter.alive(sum(each.size for each in batch))
        yield from zip(batch, found, strict=True)


def hash_there(host: Host, directory: PurePosixPath, batch: Sequence[_File], *, timeout: float) -> list[str] | None:
    """Return None when the account can't run programs, or has none that hashes."""
    names = "".join(each.path + "\n" for each in batch).encode("utf-8", "surrogateescape")
    try:
        done = host.run(["sh", "-c", _HASH, "mqi-hash", str(directory), _HASH_ALL], stdin=names, timeout=timeout)
    except NoShell:
        return None
    if done.code == 127:
        return None
    hashes = parse_hashes(done.stdout, len(batch))
    if done.code is None or hashes is None:
        raise HostFault(f"hashing {len(batch)} files on {host.name} broke off", host=host.name)
    return hashes


def _read_back(files: Files, directory: PurePosixPath, batch: Sequence[_File], meter: Meter) -> list[str]:
    sinks = {directory / each.path: HashSink() for each in batch}
    wanted = (
        Receiving(path, each.size, partial(sinks.__getitem__, path)) for path, each in zip(sinks, batch, strict=True)
    )
    for _ in files.read_many(wanted, got=meter.read_back):
        pass
    return [each.digest.hexdigest() for each in sinks.values()]


def copy_beginning(
    host: Host, directory: PurePosixPath, name: str, *, size: int, copy: str, timeout: float
) -> str | None:
    """Copy the first `size` bytes of a file into `../<copy>` on the host, and return the copy's hash. None when it can't."""
    try:
        done = host.run(
            ["sh", "-c", _COPY_BEGINNING, "mqi-copy", str(directory), str(size), copy],
            stdin=(name + "\n").encode("utf-8", "surrogateescape"),
            timeout=timeout,
        )
    except NoShell:
        return None
    hashes = parse_hashes(done.stdout, 1)
    return hashes[0] if done.code == 0 and hashes else None
