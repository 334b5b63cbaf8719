"""Proves both sides of finished transfers again, and names what differs. For the operator's terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from mqi_cli import (
    CaseRef,
    Entry,
    Files,
    HostFault,
    Manifest,
    ManifestFile,
    StageContext,
    Unfit,
    describe_one,
    describe_os_error,
    empty_directories,
    hash_file,
    look_over,
    parse_checksums,
)
from mqi_sftp.meter import Meter, Show, silent
from mqi_sftp.plan import compare, compare_hashes
from mqi_sftp.prove import hashed
from mqi_sftp.results import Origin, Placed, find_destination, find_origin

_LIST_LIMIT = 256 << 20


@dataclass(frozen=True)
class Finding:
    """One path that differs, and how."""

    path: str
    problem: str


@dataclass(frozen=True)
class Side:
    """One side of a transfer: what it is called, what it holds (None: not there), and why some of it can't be compared."""

    name: str
    manifest: Manifest | None
    unfit: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What came of proving one step's transfer again."""

    step: str
    text: str
    findings: tuple[Finding, ...] = ()
    differs: bool = False


def judge(
    step: str, wanted: Side, found: Side, *, recorded: str, listed: Callable[[], Mapping[str, str]] | None = None
) -> Verdict:
    """Compare two sides with each other, and each with the fingerprint that was recorded when they were proven. Pure.

    A side that is gone (cleaned up, filed) leaves the other to be compared with the record, and with the files' hashes
    that were `listed` then, where they are kept; those are read where nothing else tells what changed.
    """
    there = [side for side in (wanted, found) if side.manifest is not None]
    if not there:
        unfit = (*wanted.unfit, *found.unfit)
        what = "nothing can be read" if unfit else "nothing is left"
        return Verdict(step, f"{what}, neither {wanted.name} nor {found.name}", unfit, differs=True)
    findings = list(_differences(wanted, found))
    gone = [side for side in (wanted, found) if side.manifest is None]
    off = [side for side in there if recorded and side.manifest and side.manifest.fingerprint != recorded]
    if off and not findings and listed:
        hashes = listed()
        findings += [each for side in off if hashes for each in _since(hashes, side)]
    manifest = there[0].manifest
    assert manifest is not None  # noqa: S101  `there` holds no other
    text = f"{len(manifest.files)} file{'s' * (len(manifest.files) != 1)}, {manifest.size} byte{'s' * (manifest.size != 1)}: "
    if gone:
        text += (
            f"{gone[0].name} it can't be read" if gone[0].unfit else f"nothing {gone[0].name} any more, to compare with"
        )
    else:
        text += "differ" if findings else "equal"
    if off:
        text += f"; not what was proven when it was moved: {' and '.join(side.name for side in off)}"
    elif recorded:
        text += "; as proven when it was moved"
    return Verdict(step, text, tuple(findings), differs=bool(findings or off))


def _differences(wanted: Side, found: Side) -> Iterator[Finding]:
    yield from (*wanted.unfit, *found.unfit)
    if wanted.manifest is None or found.manifest is None:
        return
    unfit = [each.path for each in (*wanted.unfit, *found.unfit)]

    def said(path: str) -> bool:
        return any(path == each or path.startswith(f"{each.rstrip('/')}/") for each in unfit)

    difference = compare(wanted.manifest, found.manifest)
    yield from (Finding(path, "differs") for path in difference.changed)
    yield from (Finding(path, f"only {wanted.name}") for path in difference.missing if not said(path))
    yield from (Finding(path, f"only {found.name}") for path in difference.extra if not said(path))


def _since(listed: Mapping[str, str], side: Side) -> Iterator[Finding]:
    assert side.manifest is not None  # noqa: S101  no other is off
    difference = compare_hashes(listed, side.manifest)
    yield from (Finding(path, f"changed since it was moved, {side.name}") for path in difference.changed)
    yield from (Finding(path, f"gone since it was moved, {side.name}") for path in difference.missing)
    yield from (Finding(path, f"new since it was moved, {side.name}") for path in difference.extra)


def verify_upload(case: CaseRef, ctx: StageContext, *, show: Show | None = None) -> Verdict:
    """Prove a case's input on the host against its source."""
    meter = Meter(ctx, show=show or silent)
    here = _local("in the source", case.directory, meter)
    with ctx.host.files() as files:
        there = _remote(ctx, files, Origin("upload", {"": ctx.layout.input}), meter, like=here.manifest)
        listed = partial(_listed, files, ctx.layout.root / ".input.sha256")
        return judge(ctx.step, here, there, recorded=case.fingerprint, listed=listed)


def verify_download(case: CaseRef, ctx: StageContext, *, recorded: str, show: Show | None = None) -> Verdict:
    """Prove a case's results here against those on the host."""
    origin = find_origin(ctx)
    meter = Meter(ctx, show=show or silent)
    here = _local("here", find_destination(case, ctx), meter)
    with ctx.host.files() as files:
        there = _remote(ctx, files, origin, meter, like=here.manifest)
    return judge(ctx.step, there, here, recorded=recorded, listed=partial(Placed(ctx, case).checksums, recorded))


def _listed(files: Files, path: PurePosixPath) -> dict[str, str]:
    try:
        return parse_checksums(files.read_bytes(path, limit=_LIST_LIMIT))
    except (FileNotFoundError, HostFault, Unfit):
        return {}


def _local(name: str, directory: Path, meter: Meter) -> Side:
    """Hash what lies here, whatever stands between it. What can't be read is a finding, not an end."""
    try:
        entries, unfit = look_over(directory)
    except (FileNotFoundError, NotADirectoryError):
        return Side(name, None)
    except OSError as error:
        return Side(name, None, (Finding(".", f"{_unreadable(error)}, {name}"),))
    findings = [Finding(path, f"{describe_one(kind)}, {name}") for kind, paths in unfit.items() for path in paths]
    if any(each.path == "." for each in findings):
        return Side(name, None, tuple(findings))
    files = []
    meter.total += 2 * sum(each.size for each in entries if not each.is_dir)  # most likely as much on the other side
    for each in entries:
        if each.is_dir:
            continue
        meter.begin_file(each.path)
        try:
            hashed = hash_file(directory / each.path, read=meter.alive)
            now = (directory / each.path).lstat()
        except OSError as error:
            findings.append(Finding(each.path, f"{_unreadable(error)}, {name}"))
            continue
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (each.size, each.mtime_ns, each.inode):
            findings.append(Finding(each.path, f"changed while it was read, {name}"))
        files.append(ManifestFile(each.path, each.size, hashed))
    return Side(name, Manifest(tuple(files), empty_directories(entries)), tuple(findings))


def _unreadable(error: OSError) -> str:
    return f"can't be read ({describe_os_error(error).lower()})"


def _remote(ctx: StageContext, files: Files, origin: Origin, meter: Meter, *, like: Manifest | None) -> Side:
    """Hash what lies there. What is `like` that on the other side is not held twice."""
    name = f"on {ctx.host.name}"
    for place in origin.places.values():
        there = files.stat(place)
        if there is None or not there.is_dir:
            return Side(name, None)
    meter.begin(name)
    other = like or Manifest(())
    tree = origin.walk(files, alive=meter.alive, share=partial(_path_shared, other))
    meter.total = meter.done + tree.size
    kinds = [describe_one(each) for each in tree.unfit or {}]
    what = kinds[0] if len(kinds) == 1 else "neither file nor directory, or a name that can't be moved"
    findings = [Finding(path, f"{what}, {name}") for path in tree.unfit_paths]
    hashed_files: list[ManifestFile] = []
    for prefix, place in origin.places.items():
        below = tree.below(prefix).files
        for each, sha256 in hashed(ctx.host, files, place, below, timeout=ctx.config.verify_timeout, meter=meter):
            if sha256:
                hashed_files.append(_shared(other, ManifestFile(prefix + each.path, each.size, sha256)))
            else:
                findings.append(Finding(prefix + each.path, f"can't be read, {name}"))
    hashed_files.sort(key=lambda each: each.path)
    return Side(name, Manifest(tuple(hashed_files), tree.empty_directories), tuple(findings))


def _path_shared(other: Manifest, entry: Entry) -> Entry:
    at = other.position(entry.path)
    return entry if at is None else replace(entry, path=other.files[at].path)


def _shared(other: Manifest, file: ManifestFile) -> ManifestFile:
    at = other.position(file.path)
    return file if at is None or other.files[at] != file else other.files[at]
