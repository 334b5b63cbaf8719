"""Stage `download`: a run's results, proven by SHA-256 here against the host, appear in their place in one step."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from mqi_cli import (
    CaseRef,
    Clock,
    Done,
    Files,
    GiveUp,
    HostFault,
    Manifest,
    RetryLater,
    StageContext,
    Unfit,
    Wait,
    build_manifest,
    describe_os_error,
)
from mqi_sftp.fetch import Fetcher, plan_fetch, room_missing
from mqi_sftp.landing import Landing, WriteFailed
from mqi_sftp.meter import Meter, Stopping
from mqi_sftp.plan import SPARE, Fence, Mark, compare, directories_of
from mqi_sftp.results import Origin, Placed, find_destination, find_origin
from mqi_sftp.tree import Tree

LOOK_AGAIN = 120.0  # seconds until the next look for room on this machine


@dataclass(frozen=True)
class Results:
    """What lies on the host, hashed."""

    origin: Origin
    tree: Tree
    manifest: Manifest


def download(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Bring the run's results to this machine. Called again it goes on where it stood, or finds them in their place."""
    clock = Clock()
    started = clock.elapsed()
    meter = Meter(ctx)
    try:
        ended = _download(case, ctx, meter)
    except Stopping:
        return Wait(0, "the worker stops; the download goes on from what is here")
    except WriteFailed as failed:
        return _wait_for_room(failed.error)
    except OSError as error:
        return _wait_for_room(error)
    if isinstance(ended, Wait):
        return ended
    return Done(
        {
            "files": len(ended.files),
            "bytes": ended.size,
            "fetched_bytes": meter.moved,
            "seconds": round(clock.elapsed() - started, 3),
            "fingerprint": ended.fingerprint,
        }
    )


def _wait_for_room(error: OSError) -> Wait:
    """Wait for room on this machine without using up tries. Raises `RetryLater` for any other error of this machine."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Wait(LOOK_AGAIN, "the disk for the results is full")
    raise RetryLater(
        f"the results can't be written here: {describe_os_error(error)}", hint="check the disk that `to` names"
    ) from error


def _download(case: CaseRef, ctx: StageContext, meter: Meter) -> Manifest | Wait:
    origin = find_origin(ctx)
    destination = find_destination(case, ctx)
    fence = Fence.parse(ctx.fence) or Fence(ctx.attempt, ctx.turn)
    landing = Landing(destination, case.key, ctx.step, ctx.part, fence)
    placed = Placed(ctx, case)
    landing.restore()  # whatever becomes of this turn
    with ctx.host.files() as files:
        results = look_at_results(files, ctx, origin, meter)
        landing.claim()
        if is_in_place(destination, results.manifest, placed, meter):
            landing.clear()
            return results.manifest
        plan = plan_fetch(landing, results.manifest, meter)
        missing = room_missing(landing.path, plan, spare=SPARE)
        if missing:
            return Wait(LOOK_AGAIN, f"the disk for the results has {missing / 1e6:.1f} MB too little room")
        meter.done = plan.kept_bytes
        marks = {each.path: Mark.due(each) for each in results.tree.files}
        Fetcher(files, origin, landing, marks, meter).carry_out(plan, directories_of(results.manifest))
        if origin.walk(files, alive=meter.alive).entries != results.tree.entries:
            raise RetryLater(
                "the results changed on the host while they were fetched", hint="does a program still write there?"
            )
    _prove_here(landing, results.manifest, meter)
    placed.add(results.manifest.fingerprint)
    landing.settle()
    return results.manifest


def look_at_results(files: Files, ctx: StageContext, origin: Origin, meter: Meter) -> Results:
    """List and hash what is to be fetched. Raises `GiveUp` when there is nothing, or what can't be fetched as it is."""
    meter.begin("proving what is on the host")
    looked_at = [files.stat(place) for place in origin.places.values()]
    if not all(there and there.is_dir for there in looked_at):
        raise GiveUp(
            f"what `from` of step {ctx.step} names is not a directory on {ctx.host.name}",
            hint="was it cleaned up already? `mqi case rerun` runs the case again; or mend `from` in the config",
        )
    tree = origin.walk(files, alive=meter.alive)
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
    meter.total = tree.size
    hashes = origin.hashes(ctx.host, files, tree, timeout=ctx.config.verify_timeout, alive=meter.alive)
    unreadable = len(tree.files) - len(hashes)
    if unreadable:
        raise HostFault(f"{unreadable} of {len(tree.files)} results can't be read on the host", host=ctx.host.name)
    return Results(origin, tree, tree.manifest(hashes))


def is_in_place(destination: Path, wanted: Manifest, placed: Placed, meter: Meter) -> bool:
    """Whether the destination holds the results already. Raises `GiveUp` when it holds what is not ours to replace."""
    if not destination.is_symlink() and not destination.exists():
        return False
    if destination.is_symlink() or not destination.is_dir():
        raise _held_by_others()
    meter.begin("looking at what is in place")
    try:
        found = build_manifest(destination, read=meter.alive)
    except Unfit as problem:
        raise _held_by_others() from problem
    if found.fingerprint == wanted.fingerprint:
        return True
    if not found.files and not found.empty_dirs:
        return False
    if found.fingerprint in placed.fingerprints():
        return False  # what an earlier run of this case left, as mqi put it there: the new results replace it
    raise _held_by_others()


def _held_by_others() -> GiveUp:
    return GiveUp(
        "the place for the results holds something else, which is left as it is",
        hint="move it away, or name another place in `to`; then: mqi case retry",
    )


def _prove_here(landing: Landing, wanted: Manifest, meter: Meter) -> None:
    """Read back what was written: a file system may hold something else than what it was given."""
    meter.begin("proving what is here")
    try:
        found = build_manifest(landing.results, read=meter.alive)
    except Unfit as problem:
        raise RetryLater(f"what was fetched is not at rest: {problem.reason}") from problem
    if found.fingerprint != wanted.fingerprint:
        raise RetryLater(
            f"of {len(wanted.files)} fetched files: {compare(wanted, found)}",
            hint="check the disk that `to` names; does it tell large letters from small ones?",
        )
