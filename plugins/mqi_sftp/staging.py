"""The hidden directory on a host where a case's files arrive, who owns it, and its move to `input`.

    <root>/.incoming-<fence>    files arrive here; the fence (attempt and turn) names the owner
    <root>/.beginning-<fence>   the proven beginning of one file, before it goes on from there
    <root>/.replaced-<fence>    an `input` of other content, on its way out
    <root>/.input.json          which content `input` has, and `.input.sha256` beside it for `sha256sum -c`
    <root>/input                complete and proven, or absent

Whoever comes later renames the directory to a name of its own. From then on every path that an earlier owner knows
leads nowhere; it may hold one file open still, which is why files without the mark of a closed file are never kept.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mqi_cli import Files, HostError, HostFault, Manifest, RemoteLayout, RetryLater
from mqi_sftp.plan import DIRECTORY_MODE, Fence, Mark, Whole, newest
from mqi_sftp.tree import Walk

_INCOMING = ".incoming-"
_TAKEN = ".taken-"
_LEFTOVERS = (_INCOMING, _TAKEN, ".beginning-", ".replaced-", ".receiving-")
_RECORD_LIMIT = 4096


@dataclass(frozen=True)
class Staging:
    """One turn's staging directory of one case."""

    files: Files
    layout: RemoteLayout
    fence: Fence
    former: Sequence[RemoteLayout] = ()  # of earlier revisions, the newest first

    @property
    def path(self) -> PurePosixPath:
        """Where this turn's files arrive."""
        return self.layout.root / f"{_INCOMING}{self.fence}"

    @property
    def beginning(self) -> str:
        """The name, beside `path`, of the copy of a file's beginning."""
        return f".beginning-{self.fence}"

    def claim(self) -> None:
        """Take over what an earlier turn left, or begin anew; remove what else is left of earlier turns.

        Raises `RetryLater` when a later turn is at work: this one is stale.
        """
        self.files.make_directory(self.layout.root, mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        staged, leftovers = self._look()
        taken, overtaken = newest(staged, self.fence)
        if overtaken:
            raise RetryLater("a later turn of this step is at work on the host")
        if taken is not None and self.fence not in staged:
            self.files.rename(self.layout.root / taken, self.path)
            leftovers.remove(taken)
        else:
            self.files.make_directory(self.path, mode=DIRECTORY_MODE, exist_ok=True)
        self._remove(leftovers)

    def newest(self) -> PurePosixPath | None:
        """Return the staging directory that the latest turn left, if any. Changes nothing."""
        staged, _ = self._look()
        return self.layout.root / staged[max(staged)] if staged else None

    def brought(self) -> list[PurePosixPath]:
        """Return the directories that a stream's later turn goes on from, what it prefers first. Changes nothing."""
        found = []
        for name in (each.name for each in self.files.listing(self.layout.root) if each.is_dir):
            prefix = next((each for each in (_INCOMING, _TAKEN) if name.startswith(each)), "")
            if prefix and (fence := Fence.parse(name[len(prefix) :])):
                found.append((fence, prefix == _INCOMING, name))
        return [self.layout.root / name for _, _, name in sorted(found, reverse=True)]

    def earlier(
        self, manifest: Manifest, marks: Mapping[str, Mark], *, alive: Callable[[], None] | None = None
    ) -> tuple[PurePosixPath, Whole]:
        """Look into the input that is to be replaced, or an earlier revision's, where the host can copy from it."""
        if self.files.copies:
            for place in (self.layout.input, *(each.input for each in self.former)):
                # one that can't be read, or is on its way out, is of no use
                with contextlib.suppress(HostFault, FileNotFoundError):
                    if self.files.stat(place) is not None:
                        return place, Whole(manifest, marks, Walk().through(self.files, place, alive=alive))
        return self.layout.input, Whole(manifest, marks, ())

    def clear(self) -> None:
        """Remove what earlier turns left, once the input is there. A later turn's directory is left alone."""
        self._remove(self._look()[1])

    def publish(self, manifest: Manifest) -> None:
        """Make the proven staging directory the case's input, in one step."""
        record = {"fingerprint": manifest.fingerprint, "files": len(manifest.files), "bytes": manifest.size}
        # the records first: with them but without the directory the next turn looks again, and finds this one
        draft = self.layout.root / self.beginning
        self.files.write(draft, _Lines(manifest.checksum_lines()))  # type: ignore[arg-type]
        self.files.rename(draft, self.layout.root / ".input.sha256")
        self.files.write_bytes(self.layout.root / ".input.json", json.dumps(record).encode() + b"\n")
        try:
            self.files.rename(self.path, self.layout.input)
        except FileExistsError:
            aside = self.layout.root / f".replaced-{self.fence}"
            self.files.rename(self.layout.input, aside)
            try:
                self.files.rename(self.path, self.layout.input)
            except (HostError, OSError):  # taken over meanwhile: what was there was published by who took it
                with contextlib.suppress(HostError, OSError):
                    self.files.rename(aside, self.layout.input)
                raise
            self.files.remove_tree(aside)

    def _look(self) -> tuple[dict[Fence, str], list[str]]:
        """Return the staging directories by fence, and the names of all that earlier turns left."""
        staged: dict[Fence, str] = {}
        leftovers: list[str] = []
        for item in self.files.listing(self.layout.root):
            prefix = next((each for each in _LEFTOVERS if item.name.startswith(each)), None)
            fence = Fence.parse(item.name[len(prefix) :]) if prefix else None
            if fence is None:
                continue
            if prefix == _INCOMING and item.is_dir:
                staged[fence] = item.name
            if fence < self.fence:
                leftovers.append(item.name)
        return staged, leftovers

    def _remove(self, names: list[str]) -> None:
        for name in names:
            if name.startswith(".beginning-"):
                self.files.remove(self.layout.root / name)
            else:
                self.files.remove_tree(self.layout.root / name)


class _Lines(io.RawIOBase):
    """Reads like a file that is never in memory as a whole."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        piece = bytearray(self._rest)
        while size < 0 or len(piece) < size:
            line = next(self._lines, b"")
            if not line:
                break
            piece += line
        end = len(piece) if size < 0 else size
        self._rest = bytes(piece[end:])
        return bytes(piece[:end])


def recorded_input(files: Files, layout: RemoteLayout) -> tuple[str, int]:
    """Return the fingerprint and the bytes that the input is said to have; empty and 0 when there is none.

    They prove nothing by themselves.
    """
    try:
        record = json.loads(files.read_bytes(layout.root / ".input.json", limit=_RECORD_LIMIT))
    except (FileNotFoundError, HostFault, ValueError, RecursionError):
        return "", 0
    match record:
        case {"fingerprint": str(fingerprint), "bytes": int(size)}:
            return fingerprint, size
    return "", 0
