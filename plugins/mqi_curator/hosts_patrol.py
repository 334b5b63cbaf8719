"""The patrol `hosts`: looks at every host of the config and reports how it is and what its GPUs do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread

from mqi_cli import Clock, GpusSeen, Host, HostError, HostSeen, Patrol, PatrolContext
from mqi_curator.alerts import alerts_of, without_gpus
from mqi_curator.config import CuratorSection
from mqi_curator.look import Look, take_look

_AT_ONCE = 8  # hosts; one that hangs must not keep the others' news back
_NOTICE_STOP = 0.5  # seconds


def look_at_hosts(ctx: PatrolContext) -> None:
    """Look at all hosts side by side and report each as soon as its answer is there."""
    hosts = {name: ctx.host(name) for name in ctx.hosts}
    looks = look_side_by_side(hosts, ctx.config, clock=ctx.clock, owner=ctx.owner, stopping=ctx.stopping)
    for name, found in looks:
        if isinstance(found, HostError):
            ctx.log.warning("host %s: %s", name, found.message)
            ctx.report(HostSeen(name, reachable=False, problem=found.message))
        else:
            _report(ctx, name, found)


def look_side_by_side(
    hosts: Mapping[str, Host],
    section: CuratorSection,
    *,
    clock: Clock,
    owner: str = "",
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, Look | HostError]]:
    """Look at hosts at once; yield each with its look, or with why there is none, in the order of the answers.

    Ends without the answers that are missing when `stopping` says so: looks are then left behind, and end with the
    process.
    """
    answers: SimpleQueue[tuple[str, Look | Exception]] = SimpleQueue()
    slots = BoundedSemaphore(_AT_ONCE)

    def look(name: str, host: Host) -> None:
        with slots:
            try:
                answers.put((name, take_look(host, section, clock=clock, owner=owner)))
            except Exception as error:  # noqa: BLE001  carried to the thread that waits, which knows a bug from a fault
                answers.put((name, error))

    for name, host in hosts.items():
        Thread(target=look, args=(name, host), name=f"look at {name}", daemon=True).start()
    missing = len(hosts)
    while missing and not stopping():
        with contextlib.suppress(Empty):
            name, found = answers.get(timeout=_NOTICE_STOP)
            missing -= 1
            if isinstance(found, Exception) and not isinstance(found, HostError):
                raise found
            yield name, found


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
        ctx.report(GpusSeen(name, look.gpus.gpus, problem=look.gpus.problem, unusable=look.gpus.withheld))
    for alert in alerts_of(name, look, ctx.config.alerts):
        ctx.report(alert)
    if not ctx.config.gpu_command:
        for alert in without_gpus(name):
            ctx.report(alert)


PATROL = Patrol(
    name="hosts",
    run=look_at_hosts,
    interval=lambda section: section.interval,
    lane="curator",
    summary="looks at every host: load, space, GPUs",
)
