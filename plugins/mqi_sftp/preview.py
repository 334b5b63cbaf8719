"""What an upload or a download would move, without moving anything. For the operator's terminal only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mqi_cli import CaseRef, Entry, Files, NoShell, StageContext
from mqi_sftp.download import look_at_results
from mqi_sftp.fetch import plan_fetch
from mqi_sftp.in_place import is_in_place
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter
from mqi_sftp.plan import Fence, plan_upload
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


def preview_upload(case: CaseRef, ctx: StageContext) -> list[Move]:
    """Return what an upload would do; empty when the input is there and proven."""
    meter = Meter(None)
    source = read_source(case, meter)
    with ctx.host.files() as files:
        if proven_input(files, ctx, source.manifest.fingerprint, meter):
            return []
        there, earlier = _there(files, ctx)
        plan = plan_upload(source.manifest, there, source.marks, earlier=earlier)
        goes_on = bool(plan.resume) and (files.copies or ctx.host.config.type == "local" or _has_programs(ctx))
    return [
        *(Move("keep", each.size, each.path) for each in (*plan.keep, *plan.copy)),
        *(
            Move("continue", each.size - length, each.path) if goes_on else Move("send", each.size, each.path)
            for each, length in plan.resume
        ),
        *(Move("send", each.size, each.path) for each in plan.send),
    ]


def _there(files: Files, ctx: StageContext) -> tuple[Sequence[Entry], Sequence[Entry]]:
    """List what an upload goes on from: what an earlier turn left, and the input of an earlier revision."""
    if files.stat(ctx.layout.root) is None:
        return (), ()
    staging = Staging(files, ctx.layout, Fence(ctx.attempt, ctx.turn))
    place = staging.newest()
    if place is None and not files.copies and _has_programs(ctx) and files.stat(ctx.layout.input):
        place = ctx.layout.input  # a stream takes equal files from there, whatever the server can
    return (walk(files, place).entries if place else ()), staging.earlier()


def _has_programs(ctx: StageContext) -> bool:
    if ctx.host.config.type == "local":
        return False
    try:
        return ctx.host.run(["true"]).code == 0
    except NoShell:
        return False


def preview_download(case: CaseRef, ctx: StageContext) -> list[Move]:
    """Return what a download would do; empty when the results are in place and proven."""
    return list(_preview_download(case, ctx))


def _preview_download(case: CaseRef, ctx: StageContext) -> Iterator[Move]:
    meter = Meter(None)
    destination = find_destination(case, ctx)
    with ctx.host.files() as files:
        results = look_at_results(files, ctx, find_origin(ctx), meter)
    if is_in_place(destination, results.manifest, Placed(ctx, case), meter):
        return
    landing = Landing(destination, case.key, ctx.step, ctx.part, Fence(ctx.attempt, ctx.turn)).newest()
    kept = set()
    if landing and landing.results.is_dir():
        plan = plan_fetch(landing, results.manifest, meter)
        kept = {each.path for each in plan.keep}
    yield from (Move("keep" if each.path in kept else "fetch", each.size, each.path) for each in results.manifest.files)
