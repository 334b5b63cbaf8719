"""The hidden directory beside the destination where results arrive, who owns it, and its move into their place.

    <parent>/.mqi-<key>.<step>.<part>.<fence>.part/
        arriving/    a large file, until it is whole
        begun/       the beginning of a large file that an earlier turn was at
        received     what has come in over SFTP alone, and its hashes (`received.py`)
        results/     files under their own names; what is kept of them is what has the right hash
        replaced/    earlier results of this case, on their way out

A later turn renames the directory to a name of its own, as on a host; an earlier one then writes nowhere. The ending
is one that scanners pass over, and the name holds the case's key only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mqi_cli import Entry, RetryLater
from mqi_sftp.arriving import ArrivingFile
from mqi_sftp.plan import DIRECTORY_MODE, Fence, Mark, newest, whole_mtime

# what a rename onto something says
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Landing:
    """One turn's landing directory for one destination. All of it raises `OSError`."""

    destination: Path
    key: str
    step: str
    part: str
    fence: Fence

    @property
    def path(self) -> Path:
        """The landing directory."""
        return self.destination.parent / f"{self._prefix}{self.fence}.part"

    @property
    def results(self) -> Path:
        """Where whole files lie."""
        return self.path / "results"

    @property
    def _prefix(self) -> str:
        return f".mqi-{self.key}.{self.step}.{self.part or '_'}."

    def restore(self) -> None:
        """Put earlier results back that a crash in the middle of `settle` left without a place."""
        for fence, path in self._look().items():
            replaced = path / "replaced"
            if fence <= self.fence and os.path.lexists(replaced) and not os.path.lexists(self.destination):
                replaced.rename(self.destination)

    def claim(self) -> None:
        """Take over what an earlier turn left, or begin anew; remove what else is left of earlier turns.

        Raises `RetryLater` when a later turn is at work: this one is stale.
        """
        self.destination.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = self._look()
        taken, overtaken = newest(found, self.fence)
        if overtaken:
            raise RetryLater("a later turn of this step is at work here")
        self._rescue(found.values())
        if taken is not None and self.fence not in found:
            taken.rename(self.path)
        self._remove(path for fence, path in found.items() if fence < self.fence and path != taken)
        self.path.mkdir(mode=0o700, exist_ok=True)
        begun, arriving = self.path / "begun", self.path / "arriving"
        self._remove((self.path / "replaced",))
        if _noted(arriving)[1] > _noted(begun)[1]:  # else that turn did not get beyond what it was to go on from
            self._remove((begun,))
            arriving.rename(begun)
        self._remove((arriving,))
        arriving.mkdir(mode=0o700)
        self.results.mkdir(mode=0o700, exist_ok=True)

    def newest(self) -> Landing | None:
        """Return the landing directory that the latest turn left, if any. Changes nothing."""
        found = self._look()
        return replace(self, fence=max(found)) if found else None

    def clear(self) -> None:
        """Remove what this and earlier turns left, once the results are in their place."""
        found = [path for fence, path in self._look().items() if fence <= self.fence]
        self._rescue(found)
        self._remove(found)

    @property
    def empty(self) -> bool:
        """Whether earlier turns left nothing."""
        return self.begun() is None and not any(self.results.iterdir())

    def begun(self) -> tuple[str, Path] | None:
        """Return the file that an earlier turn was at, a large one: its path, and where its beginning lies."""
        name, size = _noted(self.path / "begun")
        return (name, self.path / "begun" / "file") if size > 0 else None

    def beginning_of(self, path: str) -> int:
        """Return how many bytes of a large file's beginning a later turn would find here. Changes nothing."""
        name, size = max((_noted(self.path / each) for each in ("begun", "arriving")), key=lambda noted: noted[1])
        return size if name == path else 0

    def forget_begun(self) -> None:
        """Remove the beginning of a file: all of the file is here, or it began otherwise."""
        self._remove((self.path / "begun",))

    def open_file(self, path: str = "", *, slot: str = "file", hashed: bool = True) -> ArrivingFile:
        """Open a file that arrives. With its path noted it can be gone on with in a later turn."""
        place = self.arriving.with_name(slot)
        place.unlink(missing_ok=True)
        sink = ArrivingFile(place, hashed=hashed)
        if path:
            self.note_file(path)
        return sink

    def note_file(self, path: str) -> None:
        """Note which file arrives, so that a later turn can go on with it."""
        self.arriving.with_name("name").write_text(path, encoding="utf-8")

    @property
    def arriving(self) -> Path:
        """Where a file lies until it is whole."""
        return self.path / "arriving" / "file"

    def keep_file(self, path: str, *, mark: Mark, slot: str = "file") -> None:
        """Give the file that has arrived its name among the results; its directory is there."""
        place = self.arriving.with_name(slot)
        place.chmod(mark.mode)
        os.utime(place, (mark.mtime, mark.mtime))
        place.rename(self.results / path)
        if place == self.arriving:
            self.arriving.with_name("name").unlink(missing_ok=True)

    def drop(self, paths: Sequence[str]) -> None:
        """Remove files and directories among the results that do not belong there."""
        for path in paths:
            target = self.results / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    target.unlink()

    def date_directories(self, entries: Iterable[Entry]) -> None:
        """Give the directories among the results their times, once nothing more comes into them."""
        for each in entries:
            if each.is_dir and each.mtime_ns:
                mtime = whole_mtime(each.mtime_ns)
                os.utime(self.results / each.path, (mtime, mtime))

    def settle(self, check: Callable[[Path], None]) -> bool:
        """Put the results in their place in one step; what is there is moved out of the way first, then removed.

        `check` raises when that is not to be replaced. False when something came to be there in the last moment; it is
        left, or put back.
        """
        for folder, _, _ in os.walk(self.results, topdown=False):
            Path(folder).chmod(DIRECTORY_MODE)
        sync_file_system(self.results)
        replaced = self.path / "replaced"
        if os.path.lexists(self.destination):
            seen = marks_of(self.destination)
            check(self.destination)
            self.destination.rename(replaced)
            if marks_of(replaced) != seen:  # written to while it was looked at
                self._put_back(replaced)
                return False
        try:
            self.results.rename(self.destination)  # of all that may be there it replaces an empty directory only
        except OSError as error:
            if os.path.lexists(self.destination) and error.errno in _TAKEN:
                self._rescue((self.path,))  # no later turn may come, to whom they would not be hidden
                return False
            raise
        sync_directory(self.destination.parent)
        shutil.rmtree(self.path)
        return True

    def _put_back(self, replaced: Path) -> None:
        """Give back what is not ours; where its place was taken meanwhile, beside it under a name of its own."""
        if os.path.lexists(self.destination):
            replaced.rename(self.destination.with_name(f"{self.destination.name}.before-{self.key}-{self.fence}"))
        else:
            replaced.rename(self.destination)

    def _rescue(self, places: Iterable[Path]) -> None:
        """Give back what earlier turns moved aside and put nothing in the place of: nobody has proven it ours."""
        for place in places:
            if os.path.lexists(place / "replaced") and (place / "results").exists():
                self._put_back(place / "replaced")

    def clear_empty(self) -> None:
        """Remove the directory where nothing has come in: who names another place next would leave it behind."""
        if self.results.exists() and self.empty:
            shutil.rmtree(self.path)

    def _look(self) -> dict[Fence, Path]:
        pattern = re.compile(re.escape(self._prefix) + r"(\d+-\d+)\.part\Z")
        found: dict[Fence, Path] = {}
        try:
            names = [each.name for each in self.destination.parent.iterdir()]
        except FileNotFoundError:
            return found
        for name in names:
            match = pattern.match(name)
            fence = Fence.parse(match[1]) if match else None
            if fence is not None:
                found[fence] = self.destination.parent / name
        return found

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)


def _noted(place: Path) -> tuple[str, int]:
    """Return the path of a file that a turn was at, and how much of it is there: nothing where it noted none."""
    try:
        return (place / "name").read_text(encoding="utf-8"), (place / "file").stat().st_size
    except (OSError, UnicodeDecodeError):
        return "", 0


def marks_of(place: Path) -> int:
    """Say what lies there, as far as its entries tell: whatever is written there changes it. Zero for nothing."""
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return 0
    total = hash(mode)
    pending = [(str(place), "")] if stat.S_ISDIR(mode) else []
    while pending:
        folder, base = pending.pop()
        with contextlib.suppress(OSError):  # gone in between, or not ours to read: the first changes it too
            for item in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    info = item.stat(follow_symlinks=False)
                    total += hash((base + item.name, info.st_size, info.st_mtime_ns, info.st_mode))
                    if stat.S_ISDIR(info.st_mode):
                        pending.append((item.path, f"{base}{item.name}/"))
    return total


def sync_file_system(path: Path) -> None:
    """Bring all that was written on a directory's file system to the disk: one wait, however many files there are."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
