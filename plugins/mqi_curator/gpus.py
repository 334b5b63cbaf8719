"""Reads what `nvidia-smi` says about GPUs. Pure; tested on captured texts of several driver versions.

Forms: `nvidia-smi --help-query-gpu` and `--help-query-compute-apps`. A GPU's identity is its UUID: the index changes
when a card is added, lost or the order of the PCI bus is turned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

from mqi_cli import GpuSeen

_FIELDS = "index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu"
_FORMAT = "--format=csv,noheader,nounits"
GPU_QUERY = (f"--query-gpu={_FIELDS},mig.mode.current", _FORMAT)
OLD_GPU_QUERY = (f"--query-gpu={_FIELDS}", _FORMAT)  # drivers before 450 refuse the query that names MIG
APP_QUERY = ("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")

# A program that computes but whose process id the driver keeps to itself. No run of ours has this id, so the GPU counts
# as taken by somebody else.
UNKNOWN_PROCESS = 0

_NUMBER = re.compile(r"(\d+)(?:\.\d+)?(?:\s*(?:MiB|%|C))?\Z")
_BROKEN = ("lost", "requires reset", "err!")
_OLD_MIG = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/")  # drivers 450 to 460 named a slice after its card
_NO_DEVICES = "no devices were found"


@dataclass(frozen=True)
class GpuLook:
    """What one look at a host's GPUs gave. `unusable` names each GPU that is there and must not be given to a run."""

    gpus: tuple[GpuSeen, ...] = ()
    unusable: tuple[str, ...] = ()
    problem: str = ""


def read_gpus(gpus: str, gpu_code: int, apps: str, app_code: int, *, ours: Set[int] | None = None) -> GpuLook:
    """Read the answers to `GPU_QUERY` (or `OLD_GPU_QUERY`) and `APP_QUERY` with their exit codes.

    `ours` are the processes that bear the mark of a run of mqi; None where nobody looked.
    Whatever doesn't read as expected makes a `problem` or leaves a GPU out: one that is in doubt is not given away.
    """
    if _NO_DEVICES in gpus.casefold():
        return GpuLook()
    if gpu_code != 0:
        return GpuLook(problem=_first_line(gpus) or f"the GPU query ended with code {gpu_code}")
    if app_code != 0:
        return GpuLook(problem=_first_line(apps) or f"the query for GPU processes ended with code {app_code}")
    processes = _read_apps(apps)
    if processes is None:
        return GpuLook(problem=f"an answer that is not understood: {_first_line(apps)}")
    seen: list[GpuSeen] = []
    unusable: list[str] = []
    for row in _rows(gpus):
        if len(row) < 7 or not row[0].isdigit() or not row[1].startswith("GPU-"):
            return GpuLook(problem=f"an answer that is not understood: {_first_line(', '.join(row))}")
        fault = _fault(row)
        if fault:
            unusable.append(f"GPU {row[0]} ({row[1]}) {fault}")
        else:
            seen.append(_read_gpu(row, processes.get(row[1], ()), ours))
    return GpuLook(tuple(seen), tuple(unusable))


def refuses_mig(text: str) -> bool:
    """Whether the driver is too old for `GPU_QUERY`."""
    return "mig.mode.current" in text and "not a valid field" in text


def _read_gpu(row: Sequence[str], processes: Sequence[int], ours: Set[int] | None) -> GpuSeen:
    total, used, utilization, temperature = (_number(value) for value in row[3:7])
    return GpuSeen(
        uuid=row[1],
        index=int(row[0]),
        name=row[2],
        memory_total=total,
        memory_used=used,
        utilization=utilization,
        temperature=temperature,
        processes=tuple(sorted(set(processes))),
        foreign=() if ours is None else tuple(sorted(set(processes) - ours)),
    )


def _fault(row: Sequence[str]) -> str:
    values = [value.casefold() for value in row[3:7]]
    if any(mark in value for value in values for mark in _BROKEN):
        return "is lost or needs a reset"
    if "unknown error" in values[0]:  # the memory's size is always known to a driver that reaches the card
        return "does not answer its driver"
    if len(row) > 7 and row[7].casefold() == "enabled":
        return "is in MIG mode; slices are not given to runs"
    return ""


def _read_apps(text: str) -> dict[str, list[int]] | None:
    """Return the process ids of each GPU; None for a text that is not understood."""
    found: dict[str, list[int]] = {}
    for row in _rows(text):
        if len(row) == 1 and "no running processes" in row[0].casefold():
            continue
        if len(row) < 2 or not row[0].startswith(("GPU-", "MIG-")):
            return None
        uuid = match[1] if (match := _OLD_MIG.match(row[0])) else row[0]
        found.setdefault(uuid, []).append(int(row[1]) if row[1].isdigit() else UNKNOWN_PROCESS)
    return found


def _number(value: str) -> int | None:
    found = _NUMBER.match(value)
    return int(found[1]) if found else None


def _rows(text: str) -> list[list[str]]:
    return [[item.strip() for item in line.split(",")] for line in text.splitlines() if line.strip()]


def _first_line(text: str) -> str:
    printable = "".join(sign if sign.isprintable() else " " for sign in text.strip().split("\n", 1)[0])
    return printable.strip()[:200]
