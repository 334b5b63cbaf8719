"""Where an archive lies, how it gets there complete or not at all, and that its disk is the one we know."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mqi_archiver.tarball import ENDINGS
from mqi_cli import CaseRef, GiveUp, StageContext, local_path

MARK = ".mqi-archive"
MARK_TEXT = "Archives of mqi lie below. While this file is missing mqi takes the disk for not mounted.\n"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@dataclass(frozen=True)
class Place:
    """The root of the archives, and the path of one without number and ending."""

    root: Path
    stem: Path
    ending: str

    def candidates(self) -> Iterator[Path]:
        """Yield the paths that an archive of this case may have: a second one, after a rerun, never overwrites the first."""
        number = 1
        while True:
            yield self.stem.with_name(self.stem.name + (f"~{number}" if number > 1 else "") + self.ending)
            number += 1


def find_place(case: CaseRef, ctx: StageContext) -> Place:
    """Return where this case's archive goes. Raises `GiveUp` for no place, and for one inside the source."""
    template = ctx.options.to or ctx.config.directory
    if template is None:
        raise GiveUp(
            f"neither step {ctx.step} nor the archiver's section says where archives go",
            hint="set `archive: {to: …}` or `archiver: {directory: …}`",
        )
    root = root_of(template)
    filled = template if root != template else template / "{case_name}"
    try:
        stem = local_path(filled, case, part=ctx.part)
    except ValueError as error:
        raise GiveUp(f"`to` of step {ctx.step} gives no usable path for this case: {error}") from error
    if not stem.is_absolute():
        raise GiveUp(f"`to` of step {ctx.step} is not an absolute path", hint="mend it in the config: mqi config check")
    if stem.resolve().is_relative_to(_source_root(case).resolve()):
        raise GiveUp(
            f"`to` of step {ctx.step} lies inside the source, where mqi writes nothing",
            hint="name another directory in the config, then: mqi case retry",
        )
    return Place(root, stem, ENDINGS[ctx.options.compression])


def root_of(template: Path) -> Path:
    """Return the part of a path before its first placeholder: what the operator names, and may mount."""
    parts = []
    for part in template.parts:
        if "{" in part:
            break
        parts.append(part)
    return Path(*parts)


def _source_root(case: CaseRef) -> Path:
    name = PurePosixPath(case.name).parts
    above = case.directory.parents
    if name and len(name) <= len(above) and case.directory.parts[-len(name) :] == name:
        return above[len(name) - 1]
    return case.directory


# --- the disk


def mark_root(root: Path, data_dir: Path) -> bool:
    """Make sure that the archives' root is the one that we used before; False when its disk seems not to be mounted.

    An archive that is written below an unmounted mount point is hidden as soon as the disk is back. So the root is
    marked when it is first used, and that it was marked is remembered on this machine. Raises `OSError`.
    """
    known = data_dir / "roots"
    mark = root / MARK
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    used = (
        known / name
    ).exists()  # asked first: another turn may mark the root in this moment, and notes it after that
    if not mark.exists():
        if used:
            return False
        root.mkdir(parents=True, exist_ok=True, mode=0o750)
        mark.write_text(MARK_TEXT)
        sync(root)
    known.mkdir(parents=True, exist_ok=True, mode=0o700)
    (known / name).touch()
    return True


# --- appearing complete


def partial_path(target: Path, case: CaseRef, ctx: StageContext) -> Path:
    """Return the temporary name that this turn writes to, beside the target; no archive ends like that."""
    return target.with_name(f".{case.key}.{ctx.step}.{ctx.fence}.part")


def remove_partials(directory: Path, case: CaseRef, ctx: StageContext) -> None:
    """Remove what earlier turns of this step have left half written. An older turn that still writes can't publish then."""
    begin = f".{case.key}.{ctx.step}."
    for entry in directory.iterdir():
        if entry.name.startswith(begin) and entry.name.endswith(".part"):
            entry.unlink(missing_ok=True)


def publish(partial: Path, target: Path) -> None:
    """Give a finished file its name, for good. Raises `FileExistsError` rather than replace anything."""
    try:
        target.hardlink_to(partial)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists() or target.is_symlink():  # a file system without links: nearly as good
            raise FileExistsError(errno.EEXIST, "File exists") from error
        partial.rename(target)
    sync(target.parent)
    partial.unlink(missing_ok=True)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems can't, and need not
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
