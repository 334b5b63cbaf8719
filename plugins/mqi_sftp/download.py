"""Stage `download`: a run's results, proven by SHA-256 here against the host, appear in their place in one step."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mqi_cli import (
    CaseRef,
    Clock,
    Done,
    Files,
    GiveUp,
    HostFault,
    Manifest,
    NoShell,
    RetryLater,
    StageContext,
    Wait,
    describe_os_error,
)
from mqi_sftp import quick
from mqi_sftp.far_side import Unable
from mqi_sftp.fetch import LOOK_AGAIN, Fetcher, changed_meanwhile, check_results, is_missing, plan_fetch, wait_for_room
from mqi_sftp.in_place import is_in_place, prove_here
from mqi_sftp.landing import Landing, WriteFailed, sync_file_system
from mqi_sftp.meter import Meter, Stopping
from mqi_sftp.plan import Fence, Mark, directories_of
from mqi_sftp.results import Origin, Placed, find_destination, find_origin
from mqi_sftp.stream_down import DownStream
from mqi_sftp.tree import Tree


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
    """Wait for room on this machine without using up tries. Raises what any other error of this machine means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Wait(LOOK_AGAIN, "the disk for the results is full")
    if error.errno == errno.ENAMETOOLONG:
        raise GiveUp(
            "a result has a longer name, or path, than this machine's disk takes",
            hint="name a shorter place in `to`, or let the run step use shorter names; then: mqi case retry",
        ) from error
    raise RetryLater(
        f"the results can't be written here: {describe_os_error(error)}", hint="check the disk that `to` names"
    ) from error


def _download(case: CaseRef, ctx: StageContext, meter: Meter) -> Manifest | Wait:
    """Take the way that the far side allows: one request for a few small files, one stream where it has a shell and
    tools, else file by file.
    """
    origin = find_origin(ctx)
    destination = find_destination(case, ctx)
    fence = Fence.parse(ctx.fence) or Fence(ctx.attempt, ctx.turn)
    landing = Landing(destination, case.key, ctx.step, ctx.part, fence)
    placed = Placed(ctx, case)
    landing.restore()  # whatever becomes of this turn
    fetched = quick.download(ctx, origin, landing, meter)
    if fetched is None and ctx.host.config.type != "local":
        try:
            fetched = DownStream(ctx, origin, landing, placed, meter).fetch()
        except (NoShell, Unable) as error:
            ctx.log.info("no stream from %s (%s): the files come over SFTP", ctx.host.name, error)
    if fetched is None:
        fetched = _by_files(ctx, origin, landing, placed, meter)
    if isinstance(fetched, Wait) or not landing.path.exists():
        return fetched
    with ThreadPoolExecutor(1) as flushing:  # the disk writes while what was written is read back
        flushed = flushing.submit(sync_file_system, landing.results)
        prove_here(landing, fetched, meter)
        flushed.result()
    placed.add(fetched.fingerprint)
    landing.settle()
    return fetched


def _by_files(ctx: StageContext, origin: Origin, landing: Landing, placed: Placed, meter: Meter) -> Manifest | Wait:
    with ctx.host.files() as files:
        results = look_at_results(files, ctx, origin, meter)
        landing.claim()
        if is_in_place(landing.destination, results.manifest, placed, meter):
            landing.clear()
            return results.manifest
        plan = plan_fetch(landing, results.manifest, meter)
        if wait := wait_for_room(landing, plan):
            return wait
        meter.done = plan.kept_bytes
        marks = {each.path: Mark.due(each) for each in results.tree.files}
        Fetcher(files, origin, landing, marks, meter).carry_out(plan, directories_of(results.manifest))
        if origin.walk(files, alive=meter.alive).entries != results.tree.entries:
            raise changed_meanwhile()
        landing.date_directories(results.tree.entries)
    return results.manifest


def look_at_results(files: Files, ctx: StageContext, origin: Origin, meter: Meter) -> Results:
    """List and hash what is to be fetched. Raises `GiveUp` when there is nothing, or what can't be fetched as it is."""
    meter.begin("proving what is on the host")
    looked_at = [files.stat(place) for place in origin.places.values()]
    if not all(there and there.is_dir for there in looked_at):
        raise is_missing(ctx)
    tree = origin.walk(files, alive=meter.alive)
    check_results(ctx, origin, tree)
    meter.total = tree.size
    hashes = origin.hashes(ctx.host, files, tree, timeout=ctx.config.verify_timeout, alive=meter.alive)
    unreadable = len(tree.files) - len(hashes)
    if unreadable:
        raise HostFault(f"{unreadable} of {len(tree.files)} results can't be read on the host", host=ctx.host.name)
    return Results(origin, tree, tree.manifest(hashes))
