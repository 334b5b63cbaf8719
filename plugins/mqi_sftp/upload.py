"""Stage `upload`: a case's files, proven by SHA-256 on the host, appear there as `<key>/input` in one step."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress

from mqi_cli import (
    CaseRef,
    Clock,
    Done,
    Files,
    Manifest,
    NoShell,
    RetryLater,
    StageContext,
    Wait,
)
from mqi_sftp import quick
from mqi_sftp.far_side import Unable
from mqi_sftp.meter import Meter, Stopping
from mqi_sftp.plan import Difference, Fence, Proven, UploadPlan, compare, directories_of, plan_upload
from mqi_sftp.prove import hash_tree, hashed
from mqi_sftp.room import check_room
from mqi_sftp.send import Sender
from mqi_sftp.source import Source, read_source
from mqi_sftp.staging import Staging, recorded_input
from mqi_sftp.stream_up import BULK, Differs, UpStream
from mqi_sftp.tree import Walk, walk

ROUNDS = 3  # the first, and two more for files that turn out wrong


def upload(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Bring the case's files to the step's host. Called again it goes on where it stood, or finds them proven there."""
    clock = Clock()
    started = clock.elapsed()
    meter = Meter(ctx)
    try:
        proven = _upload(case, ctx, meter)
    except Stopping:
        return Wait(0, "the worker stops; the upload goes on from what is there")
    return Done(
        {
            "files": proven.files,
            "bytes": proven.size,
            "sent_bytes": meter.moved,
            "seconds": round(clock.elapsed() - started, 3),
            "fingerprint": proven.fingerprint,
        }
    )


def _upload(case: CaseRef, ctx: StageContext, meter: Meter) -> Proven:
    """Take the way that the far side allows: one request for a few small files, one stream where it has a shell and
    tools, else file by file.
    """
    fence = Fence.parse(ctx.fence) or Fence(ctx.attempt, ctx.turn)
    if sent := quick.upload(case, ctx, fence, meter):
        return sent
    if ctx.host.config.type != "local":
        try:
            return _by_stream(case, ctx, fence, meter)
        except (NoShell, Unable) as error:
            ctx.log.info("no stream to %s (%s): its files go over SFTP", ctx.host.name, error)
    return Proven.of(_by_files(case, ctx, fence, meter))


def _by_stream(case: CaseRef, ctx: StageContext, fence: Fence, meter: Meter) -> Proven:
    for _ in range(ROUNDS):
        try:
            return UpStream(case, ctx, fence, meter).upload()
        except Differs as differs:
            ctx.log.warning("after sending: %s", differs)
            said = str(differs)
    raise RetryLater(f"sent {ROUNDS} times: {said}", hint=f"check the disk of host {ctx.host.name} and the way to it")


def _by_files(case: CaseRef, ctx: StageContext, fence: Fence, meter: Meter) -> Manifest:
    if case.fingerprint and (there := _found_there(ctx, fence, case.fingerprint, meter)):
        return there
    source = read_source(case, meter)
    if not case.fingerprint and (there := _found_there(ctx, fence, source.manifest.fingerprint, meter)):
        return there
    with ctx.host.files(bulk=meter.total >= BULK) as files:
        staging = Staging(files, ctx.layout, fence, ctx.former_layouts(case))
        staging.claim()
        _fill(ctx, staging, source, meter)
        staging.publish(source.manifest)
    return source.manifest


def _found_there(ctx: StageContext, fence: Fence, fingerprint: str, meter: Meter) -> Manifest | None:
    with ctx.host.files() as files:
        recorded, size = recorded_input(files, ctx.layout)
    if recorded != fingerprint:
        return None
    with ctx.host.files(bulk=size >= BULK) as files:
        there = proven_input(files, ctx, fingerprint, meter)
        if there:
            Staging(files, ctx.layout, fence).clear()
    return there


def proven_input(files: Files, ctx: StageContext, fingerprint: str, meter: Meter) -> Manifest | None:
    """Return the manifest of the input that is on the host already, when it has this content; proven, not believed."""
    layout = ctx.layout
    if recorded_input(files, layout)[0] != fingerprint or files.stat(layout.input) is None:
        return None
    meter.begin("proving what is there")
    tree = walk(files, layout.input, alive=meter.alive)
    timeout = ctx.config.verify_timeout
    hashes = hash_tree(ctx.host, files, layout.input, tree, timeout=timeout, meter=meter)
    manifest = tree.manifest(hashes)
    if manifest.fingerprint == fingerprint and not tree.unfit:
        return manifest
    ctx.log.warning("the input on %s is not what was put there; it is sent again", ctx.host.name)
    return None


def _fill(ctx: StageContext, staging: Staging, source: Source, meter: Meter) -> None:
    """Bring the staging directory to the manifest's content, and prove it."""
    place, earlier = staging.earlier(source.manifest, source.marks, alive=meter.alive)
    sender = Sender(ctx.host, source.directory, staging, source.marks, place, meter, ctx.config.verify_timeout)
    wrong: frozenset[str] = frozenset()
    difference = Difference((), (), ())
    for _ in range(ROUNDS):
        tree = walk(staging.files, staging.path, alive=meter.alive)
        for path in tree.unfit_paths:
            staging.files.remove(staging.path / path)
        plan = plan_upload(source.manifest, tree.entries, source.marks, earlier=earlier, wrong=wrong)
        _ask_for_room(ctx, staging, plan)
        meter.keep(files=len(plan.keep), size=plan.kept_bytes)
        del tree
        sender.carry_out(plan)
        meter.begin("proving")
        del plan
        difference = prove(ctx, staging, source.manifest, meter)
        if not difference:
            # now that nothing more comes into them
            files = staging.files
            files.date_many((staging.path / path, mtime) for path, mtime in source.directories.items())
            return
        wrong = frozenset(difference.changed)
        ctx.log.warning("after sending, of %d files: %s", len(source.manifest.files), difference)
    raise RetryLater(
        f"sent {ROUNDS} times, of {len(source.manifest.files)} files: {difference}",
        hint=f"check the disk of host {ctx.host.name} and the way to it",
    )


def prove(ctx: StageContext, staging: Staging, wanted: Manifest, meter: Meter) -> Difference:
    """List and hash what is there, and say how it differs. A file of another size differs without being read.

    Where all is right nothing is kept of it: beside a manifest of a hundred thousand files there is room for no list.
    """
    files, walked = staging.files, Walk()
    seen = bytearray(len(wanted.files))
    directories, strange = [], False
    for each in walked.through(files, staging.path, alive=meter.alive):
        if each.is_dir:
            directories.append(each.path)
        elif (at := wanted.position(each.path)) is not None and wanted.files[at].size == each.size and not seen[at]:
            seen[at] = 1
        else:
            strange = True
    likely = list(compress(wanted.files, seen))
    timeout = ctx.config.verify_timeout
    proven = hashed(ctx.host, files, staging.path, likely, timeout=timeout, meter=meter)
    wrong = {file.path for file, sha256 in proven if file.sha256 != sha256}
    if not (wrong or strange or walked.unfit) and all(seen) and sorted(directories) == list(directories_of(wanted)):
        return Difference((), (), ())
    right = {each.path: each.sha256 for each in likely if each.path not in wrong}
    tree = walk(files, staging.path, alive=meter.alive)
    difference = compare(wanted, tree.manifest(right))
    return replace(difference, extra=(*difference.extra, *tree.unfit_paths))


def _ask_for_room(ctx: StageContext, staging: Staging, plan: UploadPlan) -> None:
    size, count = plan.missing_bytes, plan.work + len(plan.make)
    space = staging.files.space(staging.path) if count else None
    if space:
        check_room(ctx.host.name, space, size=size, count=count)
