"""Stage `download`: a run's results, proven by SHA-256 here against the host, appear in their place in one step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mqi_cli import (
    CaseRef,
    Clock,
    Done,
    Entry,
    Files,
    GiveUp,
    HostFault,
    Manifest,
    ManifestFile,
    NoShell,
    RetryLater,
    StageContext,
    Wait,
    describe_os_error,
    seen_attempts,
)
from mqi_sftp import quick
from mqi_sftp.arriving import WriteFailed
from mqi_sftp.far_side import Unable
from mqi_sftp.fetch import (
    LOOK_AGAIN,
    Fetcher,
    changed_meanwhile,
    check_results,
    is_missing,
    plan_by_size,
    plan_fetch,
    wait_for_room,
)
from mqi_sftp.in_place import Occupant, check_replaceable, held_by_others, prove_here
from mqi_sftp.landing import Landing, sync_file_system
from mqi_sftp.meter import Meter, Stopping
from mqi_sftp.plan import Fence, Proven
from mqi_sftp.read_back import KnownHashes
from mqi_sftp.received import Received
from mqi_sftp.results import Origin, OwnDiskFull, Placed, find_destination, find_origin, runs_before
from mqi_sftp.stream_down import DownStream
from mqi_sftp.stream_up import BULK
from mqi_sftp.tree import Tree


def download(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Bring the run's results to this machine. Called again it goes on where it stood, or finds them in their place."""
    clock = Clock()
    started = clock.elapsed()
    meter = Meter(ctx)
    try:
        ended = _download(case, ctx, meter)
    except Stopping:
        return Wait(0, "the worker stops; the download goes on from what is here")
    except OwnDiskFull:
        return Wait(LOOK_AGAIN, "the disk that holds mqi's state is full")
    except WriteFailed as failed:
        return _wait_for_room(failed.error)
    except OSError as error:
        return _wait_for_room(error)
    if isinstance(ended, Wait):
        return ended
    return Done(
        {
            "files": ended.files,
            "bytes": ended.size,
            "fetched_bytes": meter.moved,
            "seconds": round(clock.elapsed() - started, 3),
            "fingerprint": ended.fingerprint,
            "of": seen_attempts(ctx.earlier, runs_before(ctx.workflow, ctx.step)),
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


def _download(case: CaseRef, ctx: StageContext, meter: Meter) -> Proven | Wait:
    origin = find_origin(ctx)
    destination = find_destination(case, ctx)
    fence = Fence.parse(ctx.fence) or Fence(ctx.attempt, ctx.turn)
    landing = Landing(destination, case.key, ctx.step, ctx.part, fence)
    placed = Placed(ctx, case)
    landing.restore()  # whatever becomes of this turn
    known = KnownHashes()
    try:
        fetched = _fetch(ctx, origin, landing, placed, known, meter)
    except GiveUp:
        landing.clear_empty()
        raise
    if isinstance(fetched, Wait):
        return fetched
    proven = Proven.of(fetched)
    if not landing.path.exists():
        return proven
    placed.keep(fetched)
    del fetched
    with ThreadPoolExecutor(1) as flushing:  # the disk writes while what was written is read back
        flushed = flushing.submit(sync_file_system, landing.results)
        prove_here(landing, proven, placed, meter, known)
        flushed.result()
    placed.add(proven.fingerprint)
    # looked at once more: hours may have gone by, and another case may have the same `to`
    if not landing.settle(lambda place: check_replaceable(place, placed, meter)):
        raise held_by_others()
    return proven


def _fetch(
    ctx: StageContext, origin: Origin, landing: Landing, placed: Placed, known: KnownHashes, meter: Meter
) -> Manifest | Wait:
    """Take the way that the far side allows: one request for a few small files, one stream where it has a shell and
    tools, else file by file.
    """
    fetched = quick.download(ctx, origin, landing, meter)
    if fetched is None and ctx.host.config.type != "local":
        try:
            fetched = DownStream(ctx, origin, landing, placed, known, meter).fetch()
        except (NoShell, Unable) as error:
            ctx.log.info("no stream from %s (%s): the files come over SFTP", ctx.host.name, error)
    return _by_files(ctx, origin, landing, placed, meter) if fetched is None else fetched


def _by_files(ctx: StageContext, origin: Origin, landing: Landing, placed: Placed, meter: Meter) -> Manifest | Wait:
    with ctx.host.files() as files:
        occupant = Occupant.look(landing.destination, meter)
        tree = list_results(files, ctx, origin, landing.destination, meter)
    with ctx.host.files(bulk=tree.size >= BULK) as files:
        same = occupant.resembles(tree)
        landing.claim()
        if not same and (wait := wait_for_room(landing, plan_by_size(landing, tree))):
            return wait
        hashes = hash_results(files, ctx, origin, tree, meter, read_back=same)
        if occupant.is_results(tree.fingerprint(hashes or {}), placed, meter):
            landing.clear()
            empty, entries = tree.empty_directories, list(tree.entries)
            del tree
            return Manifest(tuple(_proven(entries, hashes or {})), empty)
        received = Received(landing, origin)
        known = received.hashes(tree.files) if hashes is None else hashes
        plan = plan_fetch(landing, tree.manifest(known), meter)
        if wait := wait_for_room(landing, plan):
            return wait
        meter.keep(files=len(plan.keep), size=plan.kept_bytes)
        wanted = {each.path: each.sha256 if hashes is not None else "" for each in plan.fetch}
        landing.drop(plan.drop)
        del plan, hashes  # of a hundred thousand files no list is kept longer than it is needed
        known.update(Fetcher(files, origin, landing, tree, received, meter).fetch(wanted))
        listed, empty, entries = tree.sum, tree.empty_directories, list(tree.entries)
        directories = [each for each in entries if each.is_dir]
        del tree, wanted
        manifest = Manifest(tuple(_proven(entries, known)), empty)
        if origin.walk_sum(files, alive=meter.alive) != listed:
            raise changed_meanwhile()
        landing.date_directories(directories)
    return manifest


def _proven(entries: list[Entry], hashes: dict[str, str]) -> Iterator[ManifestFile]:
    """Give the files with their hashes; both lists shrink meanwhile."""
    entries.reverse()
    while entries:
        each = entries.pop()
        if not each.is_dir:
            yield ManifestFile(each.path, each.size, hashes.pop(each.path))


def list_results(files: Files, ctx: StageContext, origin: Origin, destination: Path, meter: Meter) -> Tree:
    """List what is to be fetched. Raises `GiveUp` when there is nothing, or what can't be fetched as it is."""
    meter.begin("looking at what is on the host")
    looked_at = [files.stat(place) for place in origin.places.values()]
    if not all(there and there.is_dir for there in looked_at):
        raise is_missing(ctx)
    tree = origin.walk(files, alive=meter.alive)
    check_results(ctx, origin, tree, destination)
    meter.expect(files=len(tree.files), size=tree.size)
    return tree


def hash_results(
    files: Files, ctx: StageContext, origin: Origin, tree: Tree, meter: Meter, *, read_back: bool
) -> dict[str, str] | None:
    """Return what the files on the host hash to; None where only reading them back would tell, and that is not wanted."""
    meter.begin("proving what is on the host")
    timeout = ctx.config.verify_timeout
    hashes = origin.hashes(ctx.host, files, tree, timeout=timeout, meter=meter, read_back=read_back)
    if hashes is not None and (unreadable := len(tree.files) - len(hashes)):
        raise HostFault(f"{unreadable} of {len(tree.files)} results can't be read on the host", host=ctx.host.name)
    return hashes
