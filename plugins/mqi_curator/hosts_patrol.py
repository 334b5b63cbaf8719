"""The patrol `hosts`: looks at every host of the config and reports how it is and what its GPUs do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from mqi_cli import Clock, GpusSeen, Host, HostError, HostSeen, Patrol, PatrolContext
from mqi_curator.alerts import alerts_of
from mqi_curator.config import CuratorSection
from mqi_curator.look import Look, take_look

_AT_ONCE = 8  # hosts; one that hangs must not keep the others' news back


def look_at_hosts(ctx: PatrolContext) -> None:
    """Look at all hosts side by side and report each as soon as its answer is there."""
    section: CuratorSection = ctx.config
    for name, found in look_side_by_side({name: ctx.host(name) for name in ctx.hosts}, section, clock=ctx.clock):
        if isinstance(found, HostError):
            ctx.log.warning("host %s: %s", name, found.message)
            ctx.report(HostSeen(name, reachable=False, problem=found.message))
        else:
            _report(ctx, name, found)


def look_side_by_side(
    hosts: dict[str, Host], section: CuratorSection, *, clock: Clock
) -> Iterator[tuple[str, Look | HostError]]:
    """Look at hosts at once; yield each with its look, or with why there is none, in the order of the answers."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as pool:
        waiting = {pool.submit(_look, host, section, clock): name for name, host in hosts.items()}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _look(host: Host, section: CuratorSection, clock: Clock) -> Look | HostError:
    try:
        return take_look(host, section, clock=clock)
    except HostError as error:
        return error


def _report(ctx: PatrolContext, name: str, look: Look) -> None:
    ctx.report(
        HostSeen(
            name,
            reachable=not look.problem,
            problem=look.problem,
            load=look.load,
            cores=look.cores,
            free_bytes=look.free_bytes,
            total_bytes=look.total_bytes,
        )
    )
    if look.gpus is not None:
        if look.gpus.problem:
            ctx.log.warning("host %s: GPUs: %s", name, look.gpus.problem)
        ctx.report(GpusSeen(name, look.gpus.gpus, problem=look.gpus.problem))
    for alert in alerts_of(name, look, ctx.config.alerts):
        ctx.report(alert)


PATROL = Patrol(
    name="hosts",
    run=look_at_hosts,
    interval=lambda section: section.interval,
    lane="curator",
    summary="looks at every host: load, space, GPUs",
)
