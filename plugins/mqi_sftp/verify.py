"""Proves both sides of finished transfers again, and names what differs. For the operator's terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mqi_cli import CaseRef, Files, Manifest, StageContext, Unfit, build_manifest
from mqi_sftp.meter import Meter
from mqi_sftp.plan import compare
from mqi_sftp.results import Origin, find_destination, find_origin


@dataclass(frozen=True)
class Side:
    """One side of a transfer: what it is called, what it holds (None: not there), and what can't be compared there."""

    name: str
    manifest: Manifest | None
    unfit: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One path that differs, and how."""

    path: str
    problem: str


@dataclass(frozen=True)
class Verdict:
    """What came of proving one step's transfer again."""

    step: str
    text: str
    findings: tuple[Finding, ...] = ()
    differs: bool = False


def judge(step: str, wanted: Side, found: Side, *, recorded: str) -> Verdict:
    """Compare two sides with each other, and each with the fingerprint that was recorded when they were proven. Pure.

    A side that is gone (cleaned up, filed) leaves the other to be compared with the record.
    """
    there = [side for side in (wanted, found) if side.manifest is not None]
    if not there:
        return Verdict(step, f"nothing is left, neither {wanted.name} nor {found.name}", differs=True)
    findings = list(_differences(wanted, found))
    gone = [side.name for side in (wanted, found) if side.manifest is None]
    off = [side.name for side in there if recorded and side.manifest and side.manifest.fingerprint != recorded]
    manifest = there[0].manifest
    assert manifest is not None  # noqa: S101  `there` holds no other
    text = f"{len(manifest.files)} file{'s' * (len(manifest.files) != 1)}, {manifest.size} byte{'s' * (manifest.size != 1)}: "
    text += "differ" if findings else "equal" if not gone else f"nothing {gone[0]} any more, to compare with"
    if off:
        text += f"; not what was proven when it was moved: {' and '.join(off)}"
    elif recorded:
        text += "; as proven when it was moved"
    return Verdict(step, text, tuple(findings), differs=bool(findings or off))


def _differences(wanted: Side, found: Side) -> Iterator[Finding]:
    for side in (wanted, found):
        yield from (Finding(path, f"neither file nor directory, {side.name}") for path in side.unfit)
    if wanted.manifest is None or found.manifest is None:
        return
    difference = compare(wanted.manifest, found.manifest)
    yield from (Finding(path, "differs") for path in difference.changed)
    yield from (Finding(path, f"only {wanted.name}") for path in difference.missing)
    yield from (Finding(path, f"only {found.name}") for path in difference.extra)


def verify_upload(case: CaseRef, ctx: StageContext) -> Verdict:
    """Prove a case's input on the host against its source."""
    here = _local("in the source", case.directory)
    with ctx.host.files() as files:
        there = _remote(ctx, files, Origin("upload", {"": ctx.layout.input}))
    return judge(ctx.step, here, there, recorded=case.fingerprint)


def verify_download(case: CaseRef, ctx: StageContext, *, recorded: str) -> Verdict:
    """Prove a case's results here against those on the host."""
    origin = find_origin(ctx)
    here = _local("here", find_destination(case, ctx))
    with ctx.host.files() as files:
        there = _remote(ctx, files, origin)
    return judge(ctx.step, there, here, recorded=recorded)


def _local(name: str, directory: Path) -> Side:
    try:
        return Side(name, build_manifest(directory))
    except (FileNotFoundError, NotADirectoryError):
        return Side(name, None)
    except Unfit as problem:
        return Side(name, None, problem.entries or (".",))


def _remote(ctx: StageContext, files: Files, origin: Origin) -> Side:
    name = f"on {ctx.host.name}"
    for place in origin.places.values():
        there = files.stat(place)
        if there is None or not there.is_dir:
            return Side(name, None)
    tree = origin.walk(files)
    timeout, alive = ctx.config.verify_timeout, Meter(None).alive
    hashes = origin.hashes(ctx.host, files, tree, timeout=timeout, alive=alive, read_back=True)
    return Side(name, tree.manifest(hashes or {}), tree.unfit_paths)
