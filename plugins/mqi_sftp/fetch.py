"""Reads planned files from a host into a landing directory, each hashed while it comes in."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path, PurePosixPath

from mqi_cli import (
    MAX_DEPTH,
    Entry,
    Files,
    GiveUp,
    Manifest,
    ManifestFile,
    Receiving,
    RetryLater,
    StageContext,
    Unfit,
    Wait,
    hash_file,
    surveyed,
)
from mqi_sftp.arriving import ArrivingFile
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter
from mqi_sftp.plan import SPARE, Mark, directories_of
from mqi_sftp.received import NotedFile, Received
from mqi_sftp.results import Origin
from mqi_sftp.same_names import check_names
from mqi_sftp.tree import Tree, position

LARGE = 4 << 20  # a file of at least this size can be gone on with in its middle
LOOK_AGAIN = 120.0  # seconds until the next look for room on this machine


@dataclass(frozen=True)
class FetchPlan:
    """What to do to a landing directory so that it holds a manifest."""

    keep: tuple[ManifestFile, ...]
    fetch: tuple[ManifestFile, ...]
    drop: tuple[str, ...]

    @property
    def kept_bytes(self) -> int:
        """Bytes that are here already."""
        return sum(each.size for each in self.keep)

    @property
    def missing_bytes(self) -> int:
        """Bytes to fetch."""
        return sum(each.size for each in self.fetch)

    def goes_on(self, landing: Landing) -> bool:
        """Whether it fetches the file that an earlier turn was at."""
        begun = landing.begun()
        return begun is not None and any(each.path == begun[0] for each in self.fetch)

    def freed(self, landing: Landing) -> int:
        """Return how many bytes of the disk here go free before anything is fetched."""
        freed = sum(_taken(landing.results / path) for path in self.drop)
        begun = landing.begun()
        return freed if begun is None or self.goes_on(landing) else freed + _taken(begun[1])


def _taken(path: Path) -> int:
    with contextlib.suppress(OSError):
        info = path.lstat()
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            return info.st_blocks * 512
    return 0


def _all_below(place: Path) -> tuple[str, ...]:
    return tuple(str(each.relative_to(place)) for each in place.rglob("*"))


def plan_fetch(landing: Landing, manifest: Manifest, meter: Meter) -> FetchPlan:
    """Look at what an earlier turn left; a file is kept when its content is right.

    No list of it is held: beside a manifest of a hundred thousand files there is room for none.
    """
    meter.begin("looking at what is here")
    directories = set(directories_of(manifest))
    right, drop = bytearray(len(manifest.files)), []
    try:
        for entry in surveyed(landing.results):
            if entry.is_dir:
                if entry.path not in directories:
                    drop.append(entry.path)
                continue
            at = manifest.position(entry.path)
            if at is not None and _is_right(landing, manifest.files[at], entry, meter):
                right[at] = 1
            else:
                drop.append(entry.path)
    except Unfit:  # nothing of ours: begin anew
        return FetchPlan((), manifest.files, _all_below(landing.results))
    missing = (not each for each in right)
    return FetchPlan(tuple(compress(manifest.files, right)), tuple(compress(manifest.files, missing)), tuple(drop))


def _is_right(landing: Landing, file: ManifestFile, here: Entry, meter: Meter) -> bool:
    return file.size == here.size and file.sha256 == hash_file(landing.results / file.path, read=meter.alive)


def plan_by_size(landing: Landing, tree: Tree) -> FetchPlan:
    """Say by sizes alone what is to be fetched at least, before a byte is read: what a host claims may fill the disk."""
    files = tree.files
    here, drop = bytearray(len(files)), []
    try:
        for entry in surveyed(landing.results):
            if entry.is_dir:
                continue
            at = position(files, entry.path)
            if at is not None and files[at].size == entry.size:
                here[at] = 1
            else:
                drop.append(entry.path)
    except Unfit:
        here, drop = bytearray(len(files)), list(_all_below(landing.results))
    except OSError:
        here, drop = bytearray(len(files)), []
    missing = (ManifestFile(each.path, each.size, "") for each in compress(files, (not each for each in here)))
    return FetchPlan((), tuple(missing), tuple(drop))


def room_missing(landing: Landing, plan: FetchPlan, *, spare: float) -> int:
    """Return how many bytes (or, where those are enough, 1 for want of inodes) the plan needs beyond what is free.

    What it drops is free by then.
    """
    state = os.statvfs(landing.path)
    free = state.f_bavail * state.f_frsize + plan.freed(landing)
    needed = int(plan.missing_bytes * spare)
    if needed > free:
        return needed - free
    return 1 if state.f_files and state.f_favail + len(plan.drop) < len(plan.fetch) * spare else 0


def wait_for_room(landing: Landing, plan: FetchPlan) -> Wait | None:
    """Return a wait where this machine's disk can't take what the plan fetches."""
    missing = room_missing(landing, plan, spare=SPARE)
    if not missing:
        return None
    return Wait(LOOK_AGAIN, f"the disk for the results has {missing / 1e6:.1f} MB too little room")


def is_missing(ctx: StageContext) -> GiveUp:
    """Return the end for results that have no directory."""
    return GiveUp(
        f"what `from` of step {ctx.step} names is not a directory on {ctx.host.name}",
        hint="was it cleaned up already? `mqi case rerun` runs the case again; or mend `from` in the config",
    )


def check_results(ctx: StageContext, origin: Origin, tree: Tree, destination: Path) -> None:
    """Raise `GiveUp` when there is nothing to fetch, or something that can't be fetched as it is."""
    if tree.unfit:
        raise GiveUp(
            f"the results hold what can't be fetched: {tree.describe_unfit()}",
            hint="let the run step leave regular files only, or narrow `from`",
        )
    if not all(tree.below(prefix).files for prefix in origin.places):
        of_part = "a part of " if "" not in origin.places else ""
        raise GiveUp(
            f"{of_part}step {origin.step} left no file where `from` of step {ctx.step} points",
            hint="mend `from`, or declare the run step's `outputs` so that it fails by itself",
        )
    if any(each.is_dir and each.path.count("/") + 1 >= MAX_DEPTH for each in tree.entries):
        raise GiveUp(  # parts lie one level deeper here than there
            f"the results hold what can't be fetched: directories nested deeper than {MAX_DEPTH}", hint="narrow `from`"
        )
    check_names(destination, tree)


def changed_meanwhile() -> RetryLater:
    """Return the end for results that are not at rest."""
    return RetryLater(
        "the results changed on the host while they were fetched", hint="does a program still write there?"
    )


@dataclass(frozen=True)
class Fetcher:
    """Fetches files. A seam: other ways to fetch many of them leave the same directory."""

    files: Files
    origin: Origin
    landing: Landing
    tree: Tree
    received: Received
    meter: Meter

    def fetch(self, hashes: dict[str, str]) -> dict[str, str]:
        """Fetch the files of the tree that are named; return the same paths with the hashes that came.

        `hashes` are the host's own, or empty. Raises `RetryLater` when a file comes in otherwise.
        """
        for each in self.tree.entries:
            if each.is_dir:  # parents come first; a landing directory that a later turn took over is not made again
                (self.landing.results / each.path).mkdir(exist_ok=True)
        wanted = [each for each in self.tree.files if each.path in hashes]
        try:
            begun = self._continue(wanted, hashes)
            self.landing.forget_begun()  # finished, disproved, or of no use
            self._fetch([each for each in wanted if each is not begun], hashes)
        finally:
            self.received.close()
        return hashes

    def _continue(self, wanted: Sequence[Entry], hashes: dict[str, str]) -> Entry | None:
        """Go on in the middle of the file that an earlier turn was at, behind what came in then."""
        begun = self.landing.begun()
        file = next((each for each in wanted if begun and each.path == begun[0]), None)
        if begun is None or file is None or not (beginnings := self.received.beginnings(file)):
            return None
        self.meter.begin_file(file.path)
        with self._open(file) as sink:
            length = sink.take_over(begun[1], beginnings)
            if not length:
                return None
            self.meter.done += length
            rest = file.size - length
            self.files.read(self.origin.there(file.path), sink, offset=length, size=rest, got=self.meter.move)
        if hashes[file.path] not in ("", sink.digest.hexdigest()):
            self.meter.done -= file.size
            return None  # the host has another one by now: all of it again
        self._keep(file, sink, hashes)
        return file

    def _fetch(self, wanted: Sequence[Entry], hashes: dict[str, str]) -> None:
        arriving: dict[PurePosixPath, tuple[Entry, ArrivingFile]] = {}

        def receiving(number: int, file: Entry) -> Receiving:
            path = self.origin.there(file.path)

            def sink() -> ArrivingFile:
                self.meter.begin_file(file.path)
                # of large files no two are under way at once, so one name is enough
                large = file.size >= LARGE
                opened = self._open(file) if large else self.landing.open_file(slot=f"file-{number}")
                arriving[path] = (file, opened)
                return opened

            return Receiving(path, file.size, sink)

        each = (receiving(number, file) for number, file in enumerate(wanted))
        for done in self.files.read_many(each, got=self.meter.move):
            file, sink = arriving.pop(done.path)
            if hashes[file.path] not in ("", sink.digest.hexdigest()):
                raise RetryLater(
                    "1 file came in otherwise than it was hashed on the host", hint="does a program still write there?"
                )
            self._keep(file, sink, hashes)

    def _open(self, file: Entry) -> NotedFile:
        """Open a file that a later turn can go on with."""
        self.landing.arriving.unlink(missing_ok=True)
        sink = NotedFile(self.landing.arriving, file, self.received)
        self.landing.note_file(file.path)
        return sink

    def _keep(self, file: Entry, sink: ArrivingFile, hashes: dict[str, str]) -> None:
        hashes[file.path] = sink.digest.hexdigest()
        self.received.note(file, file.size, hashes[file.path])
        self.landing.keep_file(file.path, mark=Mark.due(file), slot=sink.path.name)
