"""What must hold at every moment, read from the state database and the far side: one function a promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from model.far_side import FarSide
from model.model import JOB
from model.world import HOST, JOBS, World
from mqi_cli.message import command_id

LIVE = ("queued", "working", "waiting")
ALONE = "archive"  # the step that takes away what others work on


PartName = tuple[int, str, str]  # case, step, part


@dataclass
class Marks:
    """What the promises keep from call to call: the attempt and turn that each part has come to, and who had each GPU."""

    parts: dict[PartName, tuple[int, int]] = field(default_factory=dict)
    holders: dict[str, PartName | None] = field(default_factory=dict)


def check(world: World, far: FarSide, marks: Marks) -> None:
    """Assert every promise."""
    parts = world.parts()
    nothing_goes_back(parts, marks.parts)
    no_gpu_is_given_on_which_somebody_else_computes(world, parts, marks.holders)
    one_holder_for_each_part(parts)
    a_gpu_is_where_its_run_is(world, far, parts)
    a_command_waits_for_each_queued_part_and_for_no_other(world, parts)
    what_does_not_move_says_why_and_something_is_in_its_way(world, parts)
    the_log_tells_everything_once(world, parts)
    no_more_jobs_than_the_host_takes(parts)
    nothing_is_taken_away_below_another_step(parts)


def nothing_goes_back(parts: list[Any], marks: dict[PartName, tuple[int, int]]) -> None:
    """Attempts, and turns within an attempt, only ever go up."""
    newest: dict[PartName, tuple[int, int]] = {}
    for part in parts:
        name = _name(part)
        newest[name] = max(newest.get(name, (0, 0)), (part.attempt, part.turn))
    for name, before in marks.items():
        assert newest[name] >= before, f"{name} went back from {before} to {newest[name]}"
    marks.update(newest)


def no_gpu_is_given_on_which_somebody_else_computes(
    world: World, parts: list[Any], marks: dict[str, PartName | None]
) -> None:
    """Who holds a GPU may get company there; nobody new is put beside a process that is surely of no run."""
    names = {part.id: _name(part) for part in parts}
    for gpu in world.store.gpus.all():
        holder = names.get(gpu.lease or 0)
        assert holder in (None, marks.get(gpu.uuid)) or not gpu.foreign, f"{gpu.uuid} was given to {holder}"
        marks[gpu.uuid] = holder


def one_holder_for_each_part(parts: list[Any]) -> None:
    """At most one attempt of a part is live: the newest."""
    newest = {_name(part): part.id for part in sorted(parts, key=lambda each: each.attempt)}
    for part in parts:
        if part.state in LIVE:
            assert newest[_name(part)] == part.id, f"an old attempt is live: {part}"


def a_gpu_is_where_its_run_is(world: World, far: FarSide, parts: list[Any]) -> None:
    """A living run's GPUs are leased to its part and to no other; no lease outlives what it is for."""
    leases = {gpu.uuid: gpu.lease for gpu in world.store.gpus.all()}
    by_id = {part.id: part for part in parts}
    used = Counter(uuid for _, _, gpus in far.living() for uuid in gpus)
    assert all(count == 1 for count in used.values()), f"two runs on one GPU: {far.living()}"
    for (key, step, name), attempt, gpus in far.living():
        for uuid in gpus:
            holder = by_id.get(leases[uuid] or 0)
            case = world.store.cases.by_key(key)
            assert holder and case and (holder.case, holder.step, holder.part) == (case.id, step, name), (
                f"attempt {attempt} of {step} computes on {uuid}, which {holder or 'nobody'} has"
            )
    for uuid, lease in leases.items():
        if lease is not None:
            holder = by_id[lease]
            assert holder.state in LIVE or holder.waiting_for == "end", f"{uuid} is leaked by {holder}"


def a_command_waits_for_each_queued_part_and_for_no_other(world: World, parts: list[Any]) -> None:
    """The outbox holds just the commands of the turns that are out, and all of them were sent."""
    keys = dict(world.rows("SELECT id, key FROM case_"))
    wanted = {
        command_id(keys[part.case], part.step, part.part, part.attempt, part.turn)
        for part in parts
        if part.state == "queued"
    }
    found = world.rows("SELECT message, sent_at FROM outbox")
    assert {message for message, _ in found} == wanted, "a command is kept for a part that is not queued, or lacks one"
    assert all(sent for _, sent in found), "a command is still to be sent"


def what_does_not_move_says_why_and_something_is_in_its_way(world: World, parts: list[Any]) -> None:
    """A case that isn't moving has a reason, and the thing that a part waits for is not there indeed."""
    for key, state, reason in world.rows("SELECT key, state, reason FROM case_"):
        assert reason or state in ("ready", "done"), f"{key} is {state} without a reason"
    now = world.clock.now()
    host = world.store.hosts.get(HOST)
    waiting = [part for part in parts if part.state == "waiting"]
    for part in waiting:
        case = world.store.cases.by_id(part.case)
        thing = part.waiting_for
        in_the_way = {
            "turn": part.due_at is not None and part.due_at > now,
            "time": part.due_at is not None and part.due_at > now,
            "pause": bool(case and case.paused),
            "drain": bool(world.store.switches.drain()),
            f"host:{HOST}": host.held or host.state != "up",
            f"jobs:{HOST}": jobs(parts) >= JOBS,
            f"case:{part.case}": any(_is_beside(each, part) for each in parts),
            f"gpu:{HOST}": not any(_is_free(world, gpu) for gpu in world.store.gpus.on(HOST)),
        }
        assert in_the_way.get(thing), f"{part.step} waits for {thing or 'nothing'}, which is not in its way: {part}"
    for name, until in ((each.name, each.until) for each in world.store.hosts.all() if each.state == "paused"):
        assert until is not None and until - now <= 400, f"host {name} is asked again only in {(until or 0) - now} s"


def _is_beside(other: Any, part: Any) -> bool:
    """Whether a part is in the way of one that must be alone in its case, or is the one that must."""
    if other.case != part.case or other.step == part.step:
        return False
    if part.step == ALONE and other.step != ALONE:
        return other.state in LIVE or other.waiting_for == "end"
    return other.step == ALONE and other.state in ("queued", "working")


def _is_free(world: World, gpu: Any) -> bool:
    stale = gpu.freed_at is not None and gpu.freed_at >= gpu.seen_at and not gpu.foreign
    seen = world.clock.now() - gpu.seen_at <= 600
    return gpu.present and seen and not gpu.held and gpu.lease is None and (stale or not gpu.processes)


def the_log_tells_everything_once(world: World, parts: list[Any]) -> None:
    """A part's attempt begins once and ends once; only a cancel that fails may be asked for, and fail, again."""
    told = Counter(
        world.rows("SELECT case_id, step, part, attempt, kind FROM event WHERE kind IN ('started', 'done', 'failed')")
    )
    cancelled = {(*_name(part), part.attempt) for part in parts if part.cancel}
    twice = [each for each, count in told.items() if count > 1 and (each[-1] != "failed" or each[:-1] not in cancelled)]
    assert not twice, f"told twice: {twice}"


def jobs(parts: list[Any]) -> int:
    """Count the parts that have a run on the host, or may have."""
    having = [part for part in parts if part.state in LIVE or part.waiting_for == "end"]
    return len({_name(part) for part in having if part.step == JOB and not part.plan and part.turn > 0})


def _name(part: Any) -> PartName:
    return part.case, part.step, part.part


def no_more_jobs_than_the_host_takes(parts: list[Any]) -> None:
    """The host has no more jobs than its limit."""
    assert jobs(parts) <= JOBS


def nothing_is_taken_away_below_another_step(parts: list[Any]) -> None:
    """While the step that must be alone is at work, no other of its case is, and none of its runs may live."""
    at_work = ("queued", "working")
    for part in parts:
        if part.step == ALONE and part.state in at_work:
            beside = [each for each in parts if each.case == part.case and each.step != ALONE]
            busy = [each for each in beside if each.state in at_work or each.waiting_for == "end"]
            assert not busy, f"{busy} beside {part}"
