"""Writes planned files into a staging directory, each read and hashed once while it goes out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path, PurePosixPath

from mqi_cli import Copying, Host, ManifestFile, RetryLater, Sending
from mqi_sftp.meter import Meter
from mqi_sftp.plan import DIRECTORY_MODE, OPEN_MODE, Mark, UploadPlan
from mqi_sftp.prove import copy_beginning
from mqi_sftp.source import WatchedSource
from mqi_sftp.staging import Staging


@dataclass(frozen=True)
class Sender:
    """Carries a plan out. A seam: other ways to move many files take the same plan and leave the same directory."""

    host: Host
    source: Path
    staging: Staging
    marks: Mapping[str, Mark]
    earlier: PurePosixPath  # what is copied from
    meter: Meter
    timeout: float

    def carry_out(self, plan: UploadPlan) -> None:
        """Make the staging directory hold what the plan says. Raises `RetryLater` when a file is not what was hashed."""
        files, place = self.staging.files, self.staging.path
        for path in plan.drop_files:
            files.remove(place / path)
        for path in plan.drop_trees:
            files.remove_tree(place / path, alive=self.meter.alive)
        files.make_directories([place / path for path in plan.make], mode=DIRECTORY_MODE)
        for each, length in plan.resume:
            self._send(each, length)
        self._send_many([*plan.send, *self._copy_many(plan.copy)])

    def _send(self, file: ManifestFile, length: int) -> None:
        files, target = self.staging.files, self.staging.path / file.path
        self.meter.begin_file(file.path)
        with WatchedSource(self.source / file.path, file.size) as source:
            offset = self._continue_from(file, length, source) if length else 0
            if length and not offset:
                files.remove(target)  # a new file: an earlier owner may hold this one open
            self.meter.done += offset
            files.write(target, source, offset=offset, mode=OPEN_MODE, sent=self.meter.move)
        self._check(file, source)
        # the mark of a closed file: see plan.OPEN_MODE
        mark = self.marks[file.path]
        files.set_times(target, mtime=mark.mtime, mode=mark.mode)

    def _copy_many(self, unchanged: Sequence[ManifestFile]) -> Iterable[ManifestFile]:
        """Have files copied from the earlier input; return those that were not. They are sorted by path."""
        staging = self.staging
        copying = (
            Copying(
                origin=self.earlier / each.path,
                path=staging.path / each.path,
                size=each.size,
                open_mode=OPEN_MODE,
                mode=self.marks[each.path].mode,
                mtime=self.marks[each.path].mtime,
            )
            for each in unchanged
        )
        left = bytearray(b"\1") * len(unchanged)  # of a hundred thousand no second list is kept
        self.meter.begin("copying what did not change")
        for done in staging.files.copy_many(staging.path, copying):
            path = str(done.path.relative_to(staging.path))
            left[bisect_left(unchanged, path, key=lambda each: each.path)] = 0
            self.meter.done += done.size
            self.meter.files += 1
            self.meter.alive()
        return compress(unchanged, left)

    def _send_many(self, whole: Sequence[ManifestFile]) -> None:
        """Send whole new files, several under way."""
        opened: dict[PurePosixPath, tuple[ManifestFile, WatchedSource]] = {}

        def sending(file: ManifestFile) -> Sending:
            path, mark = self.staging.path / file.path, self.marks[file.path]

            def source() -> WatchedSource:
                self.meter.begin_file(file.path)
                opened[path] = (file, WatchedSource(self.source / file.path, file.size))
                return opened[path][1]

            return Sending(path, file.size, source, OPEN_MODE, mark.mode, mark.mtime)

        each = map(sending, whole)
        for done in self.staging.files.write_many(self.staging.path, each, sent=self.meter.move):
            self._check(*opened.pop(done.path))

    def _check(self, file: ManifestFile, source: WatchedSource) -> None:
        if source.digest.hexdigest() != file.sha256:
            raise RetryLater("the source is not at rest: a file changed while it was sent")

    def _continue_from(self, file: ManifestFile, length: int, source: WatchedSource) -> int:
        """Put a copy of the file's beginning in its place and return its length; 0 when it has to begin anew."""
        staging = self.staging
        there = copy_beginning(
            self.host, staging.path, file.path, size=length, copy=staging.beginning, timeout=self.timeout
        )
        if there is None and not self._have_copied(file, length):
            return 0
        copy = staging.layout.root / staging.beginning
        source.skip(length, alive=self.meter.alive)
        # without a hash it is proven with all of the file, at the end, and the file sent whole if it was wrong
        if there is None or source.digest.hexdigest() == there:
            staging.files.rename(copy, staging.path / file.path)
            return length
        staging.files.remove(copy)
        source.begin_anew()
        return 0

    def _have_copied(self, file: ManifestFile, length: int) -> bool:
        """Have the file server copy a beginning, where no program does. In place it is not gone on with: see OPEN_MODE."""
        staging = self.staging
        copy = staging.layout.root / staging.beginning
        copying = Copying(staging.path / file.path, copy, length, OPEN_MODE, OPEN_MODE, 0)
        if list(staging.files.copy_many(staging.layout.root, [copying])):
            return True
        staging.files.remove(copy)
        return False
