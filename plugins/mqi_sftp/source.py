"""A case's directory on this machine: what it holds, and its files as they are read."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mqi_cli import (
    CaseRef,
    Entry,
    GiveUp,
    Manifest,
    RetryLater,
    Unfit,
    build_manifest,
    describe_os_error,
    survey,
    unchanged,
)
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Mark, Marks, whole_mtime

if TYPE_CHECKING:
    from typing_extensions import Buffer  # brought by pydantic; the standard library has it from 3.12 on

CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """What the directory holds, proven, each file's mark, and the directories' times in seconds."""

    directory: Path
    manifest: Manifest
    marks: Mapping[str, Mark]
    directories: Mapping[str, int]


class WatchedSource(io.FileIO):
    """A local file that is hashed as it is read, from its first byte on. Raises what `source_error` makes of an error.

    Of one that is to have `size` bytes no more than one beyond that is read: it may grow faster than it can be sent.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.digest = hashlib.sha256()
        self._most = None if size is None else size + 1
        try:
            super().__init__(path, "rb")
        except OSError as error:
            raise source_error(error) from error

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and hash."""
        if self._most is not None:
            left = max(0, self._most - self.tell())
            size = left if size is None or size < 0 else min(size, left)
        try:
            data = (super().readall() if size is None or size < 0 else super().read(size)) or b""
        except OSError as error:
            raise source_error(error) from error  # else the host would be blamed for it
        self.digest.update(data)
        return data

    def readall(self) -> bytes:
        """Read the rest and hash it."""
        return self.read(-1)

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer and hash what came."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def skip(self, length: int, *, alive: Callable[[int], None] | None = None) -> None:
        """Read so many bytes for the hash alone."""
        while length > 0 and (data := self.read(min(CHUNK, length))):
            length -= len(data)
            if alive:
                alive(len(data))

    def begin_anew(self) -> None:
        """Go back to the first byte, and forget what was hashed."""
        self.seek(0)
        self.digest = hashlib.sha256()


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of the source to be sent as it is."""
    try:
        with path.open("rb", buffering=0) as source:
            yield source
    except OSError as error:
        raise source_error(error) from error  # else the host would be blamed for it


def survey_source(case: CaseRef, meter: Meter) -> list[Entry]:
    """List the case's directory. Raises `GiveUp` for what a person must mend, `RetryLater` for the rest."""
    meter.begin("looking at the source")
    try:
        entries = survey(case.directory)
    except Unfit as problem:
        raise GiveUp(
            f"the source can't be sent: {problem.reason}", hint="put it right there, then: mqi case retry"
        ) from problem
    except OSError as error:
        raise source_error(error) from error
    files = [each.size for each in entries if not each.is_dir]
    meter.expect(files=len(files), size=sum(files))
    return entries


def check_at_rest(case: CaseRef, entries: list[Entry]) -> None:
    """Raise `RetryLater` when the directory is no longer as it was listed."""
    try:
        if unchanged(case.directory, entries):
            return
    except (Unfit, OSError):
        pass
    raise RetryLater("the source is not at rest: it changed while it was read")


def check_accepted(case: CaseRef, manifest: Manifest) -> None:
    """Raise `GiveUp` when the content is not what was accepted."""
    if case.fingerprint and manifest.fingerprint != case.fingerprint:
        raise GiveUp(
            f"the source is not what was accepted: it now holds {len(manifest.files)} files, {manifest.size} bytes",
            hint="mqi scan takes it as it is now as a new revision; or put the accepted files back, then: mqi case retry",
        )


def read_source(case: CaseRef, meter: Meter) -> Source:
    """List and hash the case's directory."""
    entries = survey_source(case, meter)
    times, modes = array("Q"), array("Q")  # in the manifest's order
    for each in entries:
        if not each.is_dir:
            mark = Mark.due(each)
            times.append(mark.mtime)
            modes.append(mark.mode)
    directories = {each.path: whole_mtime(each.mtime_ns) for each in entries if each.is_dir}
    meter.begin("reading the source")
    try:
        manifest = build_manifest(case.directory, entries=entries, read=meter.alive)
    except Unfit as problem:
        raise RetryLater(f"the source is not at rest: {problem.reason}") from problem
    except OSError as error:
        raise source_error(error) from error
    check_accepted(case, manifest)
    return Source(case.directory, manifest, Marks(manifest, times, modes), directories)


def source_error(error: OSError) -> GiveUp | RetryLater:
    """Say what keeps the source from being read: a person must mend permissions, shares come back by themselves."""
    said = describe_os_error(error)
    if isinstance(error, PermissionError):
        return GiveUp(f"the source can't be read: {said}", hint="give mqi's account the right to read it")
    if isinstance(error, FileNotFoundError):
        return RetryLater("the source, or a file of it, is not there", hint="is the share mounted?")
    return RetryLater(f"the source can't be read: {said}")
