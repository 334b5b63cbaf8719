"""The workers that are not the daemon's own: those of other machines, and those that were started by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from mqi_cli.machine import runs
from mqi_cli.store.records import WorkerRow

SILENT_AFTER = 60.0  # seconds: four signs of life of a worker that did not come


def is_silent(worker: WorkerRow, now: float) -> bool:
    """Whether a worker has given no sign of life for too long."""
    return now - worker.seen_at >= SILENT_AFTER


def further_workers(
    workers: Sequence[WorkerRow],
    own: Collection[int],
    *,
    machine: str,
    now: float,
    alive: Callable[[int], bool] = runs,
) -> Iterator[WorkerRow]:
    """Yield them, without those of this machine that have ended and the silent ones in whose place another one works.

    `own` are the pids of the daemon's children, which runs on `machine`, where `alive` knows the processes.
    """
    served = {(each.lane, each.machine) for each in workers if not is_silent(each, now)}
    for each in workers:
        if each.machine == machine and (each.pid in own or is_silent(each, now) or not alive(each.pid)):
            continue
        if not is_silent(each, now) or (each.lane, each.machine) not in served:
            yield each
