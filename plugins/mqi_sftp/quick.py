"""A few small files up or down in one request to a program that stays loaded on the host: `far_small`.

A command of its own, its shell and the tools that it calls cost the host ten times what so few bytes do. Only what is
plain goes this way: nothing is there yet on the receiving side. All else, and all that fails, is the stream's.
"""

from __future__ import annotations

import json
import time
from functools import cache
from importlib import resources

from mqi_cli import (
    CaseRef,
    Entry,
    GiveUp,
    HostFault,
    HostUnreachable,
    Manifest,
    ManifestFile,
    Resident,
    ResidentHost,
    RetryLater,
    StageContext,
    Wait,
    empty_directories,
)
from mqi_sftp.far_small import DEFERRED
from mqi_sftp.fetch import FetchPlan, changed_meanwhile, check_results, wait_for_room
from mqi_sftp.landing import Landing
from mqi_sftp.listing import Listing
from mqi_sftp.meter import Meter
from mqi_sftp.pace import pace_of
from mqi_sftp.plan import Fence, Mark, Proven, directories_of, whole_mtime
from mqi_sftp.results import Origin
from mqi_sftp.source import WatchedSource, check_accepted, check_at_rest, survey_source
from mqi_sftp.tree import Tree, joined

MOST_FILES = 64
MOST_BYTES = 4 << 20
PATIENCE = 30.0  # seconds, and a second more for each `SLOWEST`
SLOWEST = 128 << 10
LONGEST = 10.0  # seconds that the bandwidth which a host is allowed may stretch it to
_FORGET = 600.0  # seconds until a line that was too slow is tried again with another case
_SLOW: dict[str, float] = {}  # hosts behind such a line, and until when


@cache
def program() -> Resident:
    """Return the far side's program as it ships."""
    return Resident("far_small", (resources.files("mqi_sftp") / "far_small.py").read_bytes())


def upload(case: CaseRef, ctx: StageContext, fence: Fence, meter: Meter) -> Proven | None:
    """Bring a small case to a host that has nothing of it. None: not this way, and nothing of it is there."""
    if not isinstance(ctx.host, ResidentHost):
        return None
    most = _most_bytes(ctx)
    if most < 0:
        return None
    try:
        small = _read(case, meter, most)
    except (GiveUp, RetryLater):
        return None  # a case that is on the host already needs its source no more
    if small is None:
        return None
    entries, manifest, body = small
    head = json.dumps(_order(ctx, fence, entries, manifest)).encode()
    answer = _ask(ctx, ctx.host, b"\n".join((head, body)), size=len(body), meter=meter)
    if answer is None or answer == DEFERRED:
        return None
    if answer != b"done":
        raise _nonsense(ctx.host.name)
    meter.move(manifest.size)
    ctx.log.info("%d files to %s in one request, proven there", len(manifest.files), ctx.host.name)
    return Proven.of(manifest)


def is_quick(ctx: StageContext, manifest: Manifest) -> bool:
    """Whether a case of which nothing is there would go this way, as far as can be told here."""
    return (
        isinstance(ctx.host, ResidentHost) and len(manifest.files) <= MOST_FILES and manifest.size <= _most_bytes(ctx)
    )


def _most_bytes(ctx: StageContext) -> int:
    """Return how much may go this way in a bearable time; less than nothing where the line has been too slow for it."""
    if ctx.facts.get("no_quick_way") or time.monotonic() < _SLOW.get(ctx.host.name, 0.0):
        return -1
    rate = pace_of(ctx).rate()
    return MOST_BYTES if rate is None else min(MOST_BYTES, int(rate * LONGEST))


def _ask(
    ctx: StageContext, host: ResidentHost, request: bytes, *, size: int, meter: Meter, cold: bool = True
) -> bytes | None:
    """Ask the program there. Where no answer comes in time, or the line breaks twice, the next turn takes the stream."""
    patience = PATIENCE + size / SLOWEST
    began = time.monotonic()
    reached = False

    def alive() -> None:
        nonlocal reached
        reached = True
        meter.alive()

    try:
        return host.ask(program(), request, timeout=patience, cold=cold, alive=alive)
    except HostUnreachable:
        if reached:  # else the host is down, which says nothing of this way
            late = time.monotonic() - began >= patience
            if late:
                _SLOW[ctx.host.name] = time.monotonic() + _FORGET
            # a host may go down just then: once says nothing of this way, twice for one case does
            again = late or ctx.facts.get("quick_way_broke")
            ctx.remember(**{"no_quick_way" if again else "quick_way_broke": True})
        raise


def _read(case: CaseRef, meter: Meter, most: int) -> tuple[list[Entry], Manifest, bytes] | None:
    """Read a case that is small enough; None for any other."""
    entries = survey_source(case, meter)
    if len(entries) > MOST_FILES or meter.total > most:
        return None
    bodies, files = [], []
    for each in entries:
        if each.is_dir:
            continue
        meter.begin_file(each.path)
        with WatchedSource(case.directory / each.path) as source:
            bodies.append(source.read(each.size + 1))
            files.append(ManifestFile(each.path, len(bodies[-1]), source.digest.hexdigest()))
    check_at_rest(case, entries)
    manifest = Manifest(tuple(files), empty_directories(entries))
    check_accepted(case, manifest)
    return entries, manifest, b"".join(bodies)


def _order(ctx: StageContext, fence: Fence, entries: list[Entry], manifest: Manifest) -> dict[str, object]:
    marks = {each.path: Mark.due(each) for each in entries}
    record = {"fingerprint": manifest.fingerprint, "files": len(manifest.files), "bytes": manifest.size}
    return {
        "verb": "take",
        "root": str(ctx.layout.root),
        "fence": str(fence),
        "files": [(each.path, each.size, marks[each.path].mtime, marks[each.path].mode) for each in manifest.files],
        "directories": [(each.path, whole_mtime(each.mtime_ns)) for each in entries if each.is_dir],
        "wanted": manifest.fingerprint,
        "record": json.dumps(record) + "\n",
    }


def download(ctx: StageContext, origin: Origin, landing: Landing, meter: Meter) -> Manifest | Wait | None:
    """Fetch a few small results where nothing of them is here yet. None: not this way, and nothing was done."""
    host = ctx.host
    if not isinstance(host, ResidentHost) or landing.newest() is not None:
        return None
    most = _most_bytes(ctx)
    if most < 0 or landing.destination.is_symlink() or landing.destination.exists():
        return None
    meter.begin("looking at what is on the host")
    places = [str(each) for each in origin.places.values()]
    order = {"verb": "give", "places": places, "most_files": MOST_FILES, "most_bytes": most}
    # nobody knows yet whether it is little: a connection is not opened for the question alone
    answer = _ask(ctx, host, json.dumps(order).encode() + b"\n", size=most, meter=meter, cold=False)
    if answer is None or answer == DEFERRED:
        return None
    head, _, body = answer.partition(b"\n")
    try:
        found = _Found(origin, head)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _nonsense(host.name) from None
    check_results(ctx, origin, found.tree, landing.destination)
    meter.expect(files=len(found.files), size=found.tree.size)
    landing.claim()
    if wait := wait_for_room(landing, FetchPlan((), found.manifest.files, ())):
        return wait
    for path in directories_of(found.manifest):
        (landing.results / path).mkdir(exist_ok=True)
    rest = memoryview(body)
    for each in found.files:
        meter.begin_file(each.path)
        with landing.open_file() as sink:
            sink.write(rest[: each.size])
        if sink.digest.hexdigest() != found.hashes[each.path]:
            raise changed_meanwhile()
        rest = rest[each.size :]
        landing.keep_file(each.path, mark=Mark.due(each))
        meter.move(each.size)
    landing.date_directories(found.tree.entries)
    ctx.log.info("%d files from %s in one answer, proven there and here", len(found.files), host.name)
    return found.manifest


def _nonsense(name: str) -> HostFault:
    return HostFault(f"host {name} gives an answer that makes no sense", host=name)


class _Found:
    """What the host says that it has: believed no more than any listing. Its files come in the order of their bytes."""

    def __init__(self, origin: Origin, head: bytes) -> None:
        trees: dict[str, Tree] = {}
        self.hashes: dict[str, str] = {}
        self.files: list[Entry] = []
        for prefix, place in zip(origin.places, json.loads(head), strict=True):
            listing = Listing()
            for line in place["lines"]:
                listing.add(line.encode("utf-8", "surrogateescape"))
            trees[prefix] = listing.tree()
            ordered = sorted(trees[prefix].files, key=lambda each: each.path.encode())
            if trees[prefix].unfit:
                continue  # nothing of it is fetched
            self.hashes |= {
                prefix + each.path: str(value) for each, value in zip(ordered, place["hashes"], strict=True)
            }
            self.files += [_below(prefix, each) for each in ordered]
        self.tree = joined(trees)
        self.manifest = self.tree.manifest(self.hashes)


def _below(prefix: str, entry: Entry) -> Entry:
    return Entry(prefix + entry.path, entry.size, entry.mtime_ns, entry.inode, entry.mode) if prefix else entry
