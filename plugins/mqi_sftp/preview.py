"""What an upload or a download would move, without moving anything. For the operator's terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mqi_cli import CaseRef, Entry, Files, HostFault, ManifestFile, NoShell, StageContext
from mqi_sftp.download import hash_results, list_results
from mqi_sftp.fetch import plan_fetch
from mqi_sftp.in_place import Occupant
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter, Show, silent
from mqi_sftp.plan import RESUME_FROM, Fence, plan_upload
from mqi_sftp.prove import hashed
from mqi_sftp.quick import is_quick
from mqi_sftp.received import Received
from mqi_sftp.results import Placed, find_destination, find_origin
from mqi_sftp.source import Source, read_source
from mqi_sftp.staging import Staging
from mqi_sftp.stream_up import DATED_FROM
from mqi_sftp.tree import walk
from mqi_sftp.upload import proven_input

_Found = dict[str, tuple[Entry, PurePosixPath]]  # by path, with the directory that it lies in


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
        left, before = _there(files, case, ctx)
        if _has_programs(ctx):
            left, before = (_as_due(found, source) for found in (left, before))
            if is_quick(ctx, source.manifest) and files.stat(ctx.layout.root) is None:
                before = {}  # all of it goes in one request, which looks for no earlier revision
        there, earlier = ([entry for entry, _ in found.values()] for found in (left, before))
        plan = plan_upload(source.manifest, there, source.marks, earlier=earlier)
        wrong = _disproved(ctx, left, plan.keep, meter) | _disproved(ctx, before, plan.copy, meter)
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


def _there(files: Files, case: CaseRef, ctx: StageContext) -> tuple[_Found, _Found]:
    """List what an upload goes on from: what earlier turns left, and the input of an earlier revision."""
    staging = Staging(files, ctx.layout, Fence(ctx.attempt, ctx.turn))
    programs = _has_programs(ctx)  # a stream goes on from all of it, whatever the file server can
    left: _Found = {}
    if files.stat(ctx.layout.root) is not None:
        newest = None if programs else staging.newest()
        for place in staging.brought() if programs else [newest] if newest else []:
            left = _listed(files, place) | left
    if programs or files.copies:
        for place in (ctx.layout.input, *(each.input for each in ctx.former_layouts(case))):
            with contextlib.suppress(HostFault, FileNotFoundError):
                if files.stat(place) is not None:
                    return left, _listed(files, place)
    return left, {}


def _as_due(found: _Found, source: Source) -> _Found:
    """Have those count as whole that a stream hashes whatever their times are."""
    sizes = {each.path: each.size for each in source.manifest.files if each.size >= DATED_FROM}

    def due(entry: Entry) -> Entry:
        if entry.is_dir or sizes.get(entry.path) != entry.size:
            return entry
        mark = source.marks[entry.path]
        return replace(entry, mtime_ns=mark.mtime * 1_000_000_000, mode=mark.mode)

    return {path: (due(entry), place) for path, (entry, place) in found.items()}


def _listed(files: Files, place: PurePosixPath) -> _Found:
    return {each.path: (each, place) for each in walk(files, place).entries}


def _disproved(ctx: StageContext, found: _Found, files: Sequence[ManifestFile], meter: Meter) -> set[str]:
    """Return the files that have the right size and time there and other content, as far as a program there tells."""
    places: dict[PurePosixPath, list[ManifestFile]] = {}
    for each in files:
        places.setdefault(found[each.path][1], []).append(each)
    wrong: set[str] = set()
    with contextlib.suppress(NoShell):
        for place, those in places.items():
            hashes = hashed(ctx.host, None, place, those, timeout=ctx.config.verify_timeout, meter=meter)
            wrong |= {each.path for each, sha256 in hashes if sha256 != each.sha256}
    return wrong


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
        occupant = Occupant.look(destination, meter)
        tree = list_results(files, ctx, origin, destination, meter)
        same = occupant.resembles(tree)
        hashes = hash_results(files, ctx, origin, tree, meter, read_back=same)
    if occupant.is_results(tree.fingerprint(hashes or {}), Placed(ctx, case), meter):
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
    here = landing.beginning_of(file.path)
    if not here:
        return 0
    if _has_programs(ctx):
        return min(here, file.size) // RESUME_FROM * RESUME_FROM
    return max((length for length, _ in received.beginnings(file) if length <= here), default=0)
