"""What an upload or a download would move, without moving anything. For the operator's terminal only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mqi_cli import CaseRef, Entry, Files, ManifestFile, NoShell, StageContext
from mqi_sftp.download import hash_results, list_results
from mqi_sftp.fetch import plan_fetch
from mqi_sftp.in_place import is_in_place, looks_in_place
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter, Show, silent
from mqi_sftp.plan import RESUME_FROM, Fence, plan_upload
from mqi_sftp.prove import hashed
from mqi_sftp.received import Received
from mqi_sftp.results import Placed, find_destination, find_origin
from mqi_sftp.source import read_source
from mqi_sftp.staging import Staging
from mqi_sftp.tree import walk
from mqi_sftp.upload import proven_input


@dataclass(frozen=True)
class Move:
    """One file and what would be done about it."""

    act: str
    size: int
    path: str


def preview_upload(case: CaseRef, ctx: StageContext, *, show: Show | None = None) -> list[Move]:
    """Return what an upload would do; empty when the input is there and proven.

    What is to be kept is hashed where it lies, where the host runs programs (`compares_content`).
    """
    meter = Meter(ctx, show=show or silent)
    source = read_source(case, meter)
    with ctx.host.files() as files:
        if proven_input(files, ctx, source.manifest.fingerprint, meter):
            return []
        place, before = _places(files, ctx)
        there = walk(files, place).entries if place else ()
        earlier = walk(files, before).entries if before else ()
        plan = plan_upload(source.manifest, there, source.marks, earlier=earlier)
        wrong = _disproved(ctx, place, plan.keep, meter) | _disproved(ctx, before, plan.copy, meter)
        if wrong:
            plan = plan_upload(source.manifest, there, source.marks, earlier=earlier, wrong=frozenset(wrong))
        goes_on = bool(plan.resume) and (files.copies or compares_content(ctx))
    step = RESUME_FROM if _has_programs(ctx) else 1
    moves = [Move("keep", each.size, each.path) for each in (*plan.keep, *plan.copy)]
    for each, length in plan.resume:
        if goes_on and length >= step:
            moves.append(Move("continue", each.size - length // step * step, each.path))
        else:
            moves.append(Move("send", each.size, each.path))
    return [*moves, *(Move("send", each.size, each.path) for each in plan.send)]


def compares_content(ctx: StageContext) -> bool:
    """Whether what is on the host is told by its content; else by sizes and times alone."""
    return ctx.host.config.type == "local" or _has_programs(ctx)


def _places(files: Files, ctx: StageContext) -> tuple[PurePosixPath | None, PurePosixPath | None]:
    """Return where an upload goes on from: what an earlier turn left, and the input of an earlier revision."""
    if files.stat(ctx.layout.root) is None:
        return None, None
    staging = Staging(files, ctx.layout, Fence(ctx.attempt, ctx.turn))
    there = files.stat(ctx.layout.input) is not None
    if _has_programs(ctx):  # a stream goes on from one of them, whatever the file server can
        return staging.newest(taken=True) or (ctx.layout.input if there else None), None
    return staging.newest(), ctx.layout.input if there and files.copies else None


def _disproved(ctx: StageContext, place: PurePosixPath | None, files: Sequence[ManifestFile], meter: Meter) -> set[str]:
    """Return the files that have the right size and time there and other content, as far as a program there tells."""
    if place is None or not files:
        return set()
    found = hashed(ctx.host, None, place, files, timeout=ctx.config.verify_timeout, meter=meter)
    try:
        return {each.path for each, sha256 in found if sha256 != each.sha256}
    except NoShell:
        return set()


def _has_programs(ctx: StageContext) -> bool:
    if ctx.host.config.type == "local":
        return False
    try:
        return ctx.host.run(["true"]).code == 0
    except NoShell:
        return False


def preview_download(case: CaseRef, ctx: StageContext, *, show: Show | None = None) -> list[Move]:
    """Return what a download would do; empty when the results are in place and proven."""
    meter = Meter(ctx, show=show or silent)
    destination = find_destination(case, ctx)
    origin = find_origin(ctx)
    with ctx.host.files() as files:
        tree = list_results(files, ctx, origin, destination, meter)
        same = looks_in_place(destination, tree)
        hashes = hash_results(files, ctx, origin, tree, meter, read_back=same)
    if is_in_place(destination, tree.manifest(hashes or {}), Placed(ctx, case), meter):
        return []
    landing = Landing(destination, case.key, ctx.step, ctx.part, Fence(ctx.attempt, ctx.turn)).newest()
    if landing is None or not landing.results.is_dir():
        return [Move("fetch", each.size, each.path) for each in tree.files]
    received = Received(landing, origin)
    plan = plan_fetch(landing, tree.manifest(received.hashes(tree.files) if hashes is None else hashes), meter)
    fetched = {each.path for each in plan.fetch}
    moves = []
    for each in tree.files:
        if each.path not in fetched:
            moves.append(Move("keep", each.size, each.path))
        elif length := _begun(ctx, landing, received, each):
            moves.append(Move("continue", each.size - length, each.path))
        else:
            moves.append(Move("fetch", each.size, each.path))
    return moves


def _begun(ctx: StageContext, landing: Landing, received: Received, file: Entry) -> int:
    """Return the length of a file's beginning that a download would go on behind, as far as can be told without it."""
    name = landing.path / "arriving" / "name"
    if not name.exists() or name.read_text(encoding="utf-8") != file.path or not landing.arriving.exists():
        return 0
    here = landing.arriving.stat().st_size
    if _has_programs(ctx):
        return min(here, file.size) // RESUME_FROM * RESUME_FROM
    return max((length for length, _ in received.beginnings(file) if length <= here), default=0)
