"""Which alerts a look at a host raises or clears. Pure.

Each topic belongs to a host, so that one that is raised is also cleared when its GPU is gone. Between a limit and a
little below it nothing is said: what sways about the limit would else raise and clear at every round.
"""

from __future__ import annotations

from collections.abc import Iterator

from mqi_cli import Alert, GpuSeen
from mqi_curator.config import AlertsSection
from mqi_curator.look import Look

_ODD_TOLD = 3  # lines
_OF_GPUS = (  # the kinds of topics about a host's GPUs, the core's first two among them
    *("gpus", "gpu-gone", "gpu-unusable", "gpu-answer", "gpu-shared", "gpu-temperature", "gpu-memory"),
    "gpu-utilization",
)
_COOLER = 5  # °C below the limit
_EASIER = 0.9  # of a limit that is passed upwards
_ROOMIER = 1.2  # of a limit that is passed downwards


def alerts_of(host: str, look: Look, limits: AlertsSection) -> list[Alert]:
    """Return what this look says about each topic: active or all clear; nothing where it can't tell."""
    return [
        *_disk(host, look, limits.disk_free_percent),
        *_load(host, look, limits.load_per_core),
        *_gpus(host, look, limits),
    ]


def without_gpus(host: str) -> Iterator[Alert]:
    """Give the all clear for each topic about GPUs: none are looked for any more."""
    for kind in _OF_GPUS:
        yield _unwatched(f"{kind}:{host}", f"what GPUs host {host} has")


def _unwatched(topic: str, what: str) -> Alert:
    """Return the all clear for what has no limit any more."""
    return Alert(topic, False, f"{what} is not watched any more")


def _disk(host: str, look: Look, limit: float | None) -> Iterator[Alert]:
    topic = f"disk:{host}"
    if limit is None:
        yield _unwatched(topic, f"the space of host {host}")
        return
    if look.free_bytes is None or not look.total_bytes:
        return
    free = 100 * look.free_bytes / look.total_bytes
    if free < limit:
        text = f"host {host} has {free:.1f} % of its space left (limit {limit:g} %)"
        yield Alert(topic, True, text, hint=f"mqi host clean {host} --dry-run")
    elif free > limit * _ROOMIER:
        yield Alert(topic, False, f"host {host} has space again ({free:.1f} %)")


def _load(host: str, look: Look, limit: float | None) -> Iterator[Alert]:
    topic = f"load:{host}"
    if limit is None:
        yield _unwatched(topic, f"the load of host {host}")
        return
    if look.load is None or not look.cores:
        return
    load = look.load / look.cores
    if load > limit:
        text = f"host {host} has a load of {load:.1f} for each core (limit {limit:g})"
        yield Alert(topic, True, text, hint="look at what runs there beside mqi's jobs")
    elif load < limit * _EASIER:
        yield Alert(topic, False, f"the load of host {host} is well again ({load:.1f} for each core)")


def _gpus(host: str, look: Look, limits: AlertsSection) -> Iterator[Alert]:
    if look.gpus is None or look.gpus.problem:  # the core raises an alert for GPUs that can't be looked at
        return
    topic = f"gpu-unusable:{host}"
    if look.gpus.unusable:
        text = f"host {host}: {'; '.join(look.gpus.unusable)}"
        yield Alert(topic, True, text, hint="these are not given to runs; nvidia-smi there tells more")
    else:
        yield Alert(topic, False, f"all GPUs of host {host} can be used")
    topic = f"gpu-answer:{host}"
    if look.gpus.odd:
        text = f"host {host}: beside its GPUs nvidia-smi says: {'; '.join(look.gpus.odd[:_ODD_TOLD])}"
        yield Alert(topic, True, text, hint="look at the card; GPUs that it lists well are given to runs")
    else:
        yield Alert(topic, False, f"nvidia-smi of host {host} lists its GPUs and says nothing else any more")
    yield from _shared(host, look.gpus.gpus)
    yield from _hottest(host, look.gpus.gpus, limits.temperature)
    yield from _fullest(host, look.gpus.gpus, limits.gpu_memory_percent)
    yield from _busiest(host, look.gpus.gpus, limits.gpu_utilization_percent)


def _shared(host: str, gpus: tuple[GpuSeen, ...]) -> Iterator[Alert]:
    """Tell of somebody who computes beside a run. A run whose own processes can't be known (in a container) is not told of."""
    topic = f"gpu-shared:{host}"
    shared = [gpu for gpu in gpus if gpu.foreign and set(gpu.processes) - set(gpu.foreign)]
    if shared:
        text = f"somebody else computes on GPU {shared[0].index} of host {host}, beside a run (process {shared[0].foreign[0]})"
        yield Alert(
            topic, True, text, hint=f"mqi gpu list; to keep it from further runs: mqi gpu hold {host}:{shared[0].index}"
        )
    else:
        yield Alert(topic, False, f"nobody computes beside a run on host {host} any more")


def _hottest(host: str, gpus: tuple[GpuSeen, ...], limit: int | None) -> Iterator[Alert]:
    topic = f"gpu-temperature:{host}"
    if limit is None:
        yield _unwatched(topic, f"the temperature of the GPUs of host {host}")
        return
    known = [(gpu.temperature, gpu.index) for gpu in gpus if gpu.temperature is not None]
    temperature, index = max(known, default=(0, 0))
    if temperature > limit:
        text = f"GPU {index} of host {host} is at {temperature} °C (limit {limit} °C)"
        yield Alert(topic, True, text, hint="look at its fans and at the room")
    elif temperature < limit - _COOLER and (known or not gpus):  # where none tells, none is known to be cool
        yield Alert(topic, False, f"the GPUs of host {host} are cool again")


def _fullest(host: str, gpus: tuple[GpuSeen, ...], limit: float | None) -> Iterator[Alert]:
    topic = f"gpu-memory:{host}"
    if limit is None:
        yield _unwatched(topic, f"the memory of the GPUs of host {host}")
        return
    known = [
        (100 * gpu.memory_used / gpu.memory_total, gpu.index)
        for gpu in gpus
        if gpu.memory_used is not None and gpu.memory_total
    ]
    percent, index = max(known, default=(0.0, 0))
    if percent > limit:
        text = f"the memory of GPU {index} of host {host} is {percent:.0f} % full (limit {limit:g} %)"
        yield Alert(topic, True, text, hint="mqi gpu list")
    elif percent < limit * _EASIER and (known or not gpus):
        yield Alert(topic, False, f"the GPUs of host {host} have memory again")


def _busiest(host: str, gpus: tuple[GpuSeen, ...], limit: float | None) -> Iterator[Alert]:
    topic = f"gpu-utilization:{host}"
    if limit is None:
        yield _unwatched(topic, f"how busy the GPUs of host {host} are")
        return
    known = [(gpu.utilization, gpu.index) for gpu in gpus if gpu.utilization is not None]
    percent, index = max(known, default=(0, 0))
    if percent > limit:
        yield Alert(
            topic, True, f"GPU {index} of host {host} is {percent} % busy (limit {limit:g} %)", hint="mqi gpu list"
        )
    elif percent < limit * _EASIER and (known or not gpus):
        yield Alert(topic, False, f"the GPUs of host {host} are less busy again")
