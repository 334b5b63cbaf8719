"""Stage `archive`: one proven file holds the case for good, and only then is the case removed from its hosts."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqi_archiver.clearing import Overdue, clear_hosts, hosts_of, require_key
from mqi_archiver.contents import MANIFEST, Contents, downloads, downloads_before, gather, identity
from mqi_archiver.index import Archived, Index
from mqi_archiver.place import Place, find_place, mark_root, partial_path, publish, remove_partials
from mqi_archiver.tarball import Changed, Damaged, Proven, pack, peek, prove
from mqi_cli import (
    CaseRef,
    Clock,
    Done,
    GiveUp,
    RetryLater,
    StageContext,
    Wait,
    describe_os_error,
    is_for_effect,
    may_be_one,
    seen_attempts,
    unfetched,
)

LOOK_AGAIN = 120.0  # s until the next look for room or for the disk
SPARE = 1 << 20  # bytes beside the archive itself
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Stopping(Exception):
    """The worker is asked to end."""


class NoRoom(Exception):
    """The archives' disk is full, or not there. The text is a note for whoever waits."""


@dataclass(frozen=True)
class Filed:
    """The proven archive of a case."""

    path: Path
    sha256: str
    size: int
    files: int
    bytes: int


class Meter:
    """Tells how far a phase is, and ends the work where the worker is asked to end."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self.begin("", 0)

    def begin(self, what: str, total: int) -> None:
        """Begin a phase of `total` bytes (0: not known)."""
        self._what, self._total, self._done = what, total, 0

    def add(self, count: int) -> None:
        """Count bytes. Raises `Stopping`."""
        self._done += count
        self._ctx.progress(self._done, max(self._total, self._done), "B", detail=self._what)
        if self._ctx.stopping():
            raise Stopping


def archive(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """File the case, prove the file, then clear the hosts. Called again it finds what is done and goes on from there."""
    require_key(case)
    place = find_place(case, ctx)
    left = _left_with_results(case, ctx) if ctx.options.clear_host else []
    try:
        filed = _remembered(case, ctx) or _file(case, ctx, place)
    except Stopping:
        return Wait(0, "the worker stops; nothing half packed is left")
    except NoRoom as note:
        return Wait(LOOK_AGAIN, str(note))
    except Changed as error:
        raise RetryLater("a file changed while it was packed", hint="does a program still write there?") from error
    except OSError as error:
        raise RetryLater(
            f"the archive can't be written: {describe_os_error(error)}", hint="check the disk that `to` names"
        ) from error
    facts: dict[str, Any] = {
        "files": filed.files, "bytes": filed.bytes, "archive_bytes": filed.size, "sha256": filed.sha256,
        "of": seen_attempts(ctx.earlier, downloads_before(ctx)),
    }  # fmt: skip
    if ctx.options.clear_host:
        same = (ctx.facts.get("identity"), ctx.facts.get("cleared_by")) == (identity(case, ctx), ctx.attempt)
        done = ctx.facts.get("cleared", []) if same else []  # after that a run that failed may have come there
        try:
            facts["cleared"] = clear_hosts(case, ctx, done=done, left=left)
        except Overdue:
            return Wait(0, "it is filed; a turn of its own clears its hosts, if that is still wanted")
    return Done(facts)


def _left_with_results(case: CaseRef, ctx: StageContext) -> list[str]:
    """Return the hosts that are left as they are: a run may have results there, by this name of the host or by another,
    but the config knows of none.

    Raises `GiveUp` where results that the config does know of were not fetched.
    """
    steps = ctx.workflow.steps
    ran = [step.name for at, step in enumerate(steps) if step.stage.job and not is_for_effect(steps, at)]
    if ran and not any(downloads(ctx)):
        raise GiveUp(
            f"nothing was fetched of what step {ran[-1]} computed, and clearing its host would lose it",
            hint="add a download step before this one, or set clear_host: false",
        )
    hosts = []
    for left in (each for host in hosts_of(ctx) for each in unfetched(ctx.workflow, ctx.earlier, host)):
        if left.download:
            again = f"mqi transfer download {case.key} --step {left.download}"
            if left.unused_by:
                again = f"mqi exec run {case.key} --step {left.unused_by}, then: {again}"
            then = f"mqi case retry {case.key} (of a case that is done: mqi archive run {case.key} --step {ctx.step})"
            what = f"do step {left.unused_by} again" if left.unused_by else "fetch them"
            hint = f"{what}: {again}, then: {then}"
            raise GiveUp(f"{left}, and clearing its host would lose them", hint=hint)
        if getattr(left.step.options, "outputs", ()):
            hint = "add a download step before this one, or set clear_host: false"
            raise GiveUp(f"{left}, and clearing its host would lose them", hint=hint)
        ctx.log.warning("%s: host %s is not cleared. mqi host clean tells what to do", left, left.step.host)
        hosts.append(left.step.host)
    return [name for name in hosts_of(ctx) if any(_may_share(ctx, name, other) for other in hosts)]


def _may_share(ctx: StageContext, name: str, other: str) -> bool:
    """Whether a case's directory on one host may be its directory on another."""
    return name == other or may_be_one(*(str(ctx.host_named(each).config.base_dir) for each in (name, other)))


def _remembered(case: CaseRef, ctx: StageContext) -> Filed | None:
    """Return the archive that an earlier turn proved, as long as it and what it is to hold are untouched since."""
    facts = ctx.facts
    if facts.get("identity") != identity(case, ctx):
        return None
    known = next((each for each in Index(ctx.data_dir).of(case.key) if each.sha256 == facts.get("sha256")), None)
    if known is None or known.pruned_at is not None or _stamp(Path(known.path)) != facts.get("stamp"):
        return None
    return Filed(Path(known.path), known.sha256, known.size, known.files, int(facts.get("bytes", 0)))


def _file(case: CaseRef, ctx: StageContext, place: Place) -> Filed:
    meter = Meter(ctx)
    if not mark_root(place.root, ctx.data_dir):
        raise NoRoom("the directory of archives is not the one that was used before: is its disk mounted?")
    meter.begin("proving what is to be filed", 0)
    contents = gather(case, ctx, read=meter.add)
    place.stem.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    remove_partials(place.stem.parent, case, ctx)
    for target in place.candidates():
        try:
            proven = _adopt(target, case, contents, meter) if _is_there(target) else None
            if proven is None and _is_there(target):
                continue  # another archive: of this case before a rerun, or of another case of the same name
            proven = proven or _make(target, case, ctx, contents, meter)
        except FileExistsError:
            proven = _adopt(target, case, contents, meter)  # somebody was quicker; is it the same?
            if proven is None:
                continue
        return _noted(case, ctx, place, target, contents, proven)
    raise AssertionError("there is always another name")


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _adopt(target: Path, case: CaseRef, contents: Contents, meter: Meter) -> Proven | None:
    """Return the proof of an archive that is there already and holds the same; None when it is another one."""
    try:
        document, sums = peek(target)
        if not _holds_the_same(document, sums, case, contents):
            return None
        meter.begin("proving the archive that is there", 0)
        return prove(target, read=meter.add)
    except Damaged:
        return None


def _holds_the_same(document: Mapping[str, Any], sums: Mapping[str, str], case: CaseRef, contents: Contents) -> bool:
    if (document.get("key"), document.get("fingerprint")) != (case.key, case.fingerprint):
        return False
    # the document itself may differ: another attempt or another version of mqi, the same files
    return {**sums, MANIFEST: ""} == {**contents.sums, MANIFEST: ""}


def _make(target: Path, case: CaseRef, ctx: StageContext, contents: Contents, meter: Meter) -> Proven:
    if ctx.options.compression == "none":
        free = shutil.disk_usage(target.parent).free
        if free < contents.size + SPARE:
            raise NoRoom(f"the disk for archives has {(contents.size + SPARE - free) / 1e6:.1f} MB too little room")
    partial = partial_path(target, case, ctx)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb") as stream:
            meter.begin("packing", contents.size)
            pack(stream, contents, compression=ctx.options.compression, written=meter.add)
            stream.flush()
            os.fsync(stream.fileno())
        meter.begin("reading the archive back", partial.stat().st_size)
        proven = prove(partial, read=meter.add)
        if proven.sums != contents.sums:
            raise Damaged("it does not hold what was packed")
        publish(partial, target)
    except Damaged as error:
        raise RetryLater(
            f"the archive did not prove when it was read back: {error}", hint="check the disk that `to` names"
        ) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NoRoom(f"the disk for archives is full: {contents.size / 1e6:.1f} MB are to be packed") from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    return proven


def _noted(case: CaseRef, ctx: StageContext, place: Place, target: Path, contents: Contents, proven: Proven) -> Filed:
    Index(ctx.data_dir).put(
        Archived(
            key=case.key, name=case.name, source=case.source, revision=case.revision, fingerprint=case.fingerprint,
            path=str(target), root=str(place.root), sha256=proven.sha256, size=proven.size, files=contents.files,
            archived_at=Clock().now(),
        )
    )  # fmt: skip
    ctx.remember(
        identity=identity(case, ctx),
        sha256=proven.sha256,
        stamp=_stamp(target),
        bytes=contents.size,
        cleared=[],
        asked=0,
    )
    return Filed(target, proven.sha256, proven.size, contents.files, contents.size)


def _stamp(path: Path) -> str:
    """Return what changes when a file is replaced or written to; nothing when it is not there."""
    try:
        info = path.stat(follow_symlinks=False)
    except OSError:
        return ""
    return f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
