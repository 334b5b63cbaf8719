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

# Exit codes that tell of one GPU while the query itself was answered: no power cable, interrupts, infoROM, off the bus
# (nvidia-smi(1), RETURN VALUE). Some drivers end the list of processes at a GPU that has fallen off the bus.
_OFF_THE_BUS = 15
_OF_ONE_GPU = frozenset({8, 10, 14, _OFF_THE_BUS})
_IDLE = 100  # MiB; a program that computes takes more

_UUID = re.compile(r"GPU-[0-9A-Za-z-]+")
_NOTE = re.compile(r"WARNING:|Unable to determine the device handle for GPU", re.IGNORECASE)
_COLUMNS = (len(_FIELDS.split(",")), len(_FIELDS.split(",")) + 1)  # without MIG and with it
_NUMBER = re.compile(r"(\d+)(?:\.\d+)?(?:\s*(?:MiB|%|C))?\Z")
_BROKEN = ("lost", "requires reset", "err!")
_OLD_MIG = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/")  # drivers 450 to 460 named a slice after its card
_NO_DEVICES = "no devices were found"


@dataclass(frozen=True)
class GpuLook:
    """What one look at a host's GPUs gave.

    `unusable` says of each GPU that is there and must not be given to a run why. `withheld` are their UUIDs and those that
    only `odd` names: the lines that are no rows, where there were rows as well.
    """

    gpus: tuple[GpuSeen, ...] = ()
    unusable: tuple[str, ...] = ()
    problem: str = ""
    withheld: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def read_gpus(gpus: str, gpu_code: int, apps: str, app_code: int, *, ours: Set[int] | None = None) -> GpuLook:
    """Read the answers to `GPU_QUERY` (or `OLD_GPU_QUERY`) and `APP_QUERY` with their exit codes.

    `ours` are the processes that bear the mark of a run of mqi; None where nobody looked.
    Whatever doesn't read as expected leaves a GPU out, or all where it might speak of any: one that is in doubt is not
    given away. What reads well is, so that a sick card takes no healthy one out of use.
    """
    if _NO_DEVICES in gpus.casefold():
        return GpuLook()
    rows, odd = _sorted_out(gpus)
    if gpu_code != 0 and not (rows and gpu_code in _OF_ONE_GPU):
        return GpuLook(problem=_first_line(gpus) or f"the GPU query ended with code {gpu_code}")
    if odd and not rows:
        return GpuLook(problem=f"an answer that is not understood: {_first_line(odd[0])}")
    if app_code not in {0, *_OF_ONE_GPU} or (app_code == _OFF_THE_BUS and not _has_lost_one(rows, odd, gpu_code)):
        return GpuLook(problem=_first_line(apps) or f"the query for GPU processes ended with code {app_code}")
    notes = [line for line in apps.splitlines() if _NOTE.match(line.strip())]
    processes = _read_apps("\n".join(line for line in apps.splitlines() if line not in notes))
    if processes is None:
        return GpuLook(problem=f"an answer that is not understood: {_first_line(apps)}")
    named_oddly = {uuid for line in [*odd, *notes] for uuid in _UUID.findall(line)}
    seen: list[GpuSeen] = []
    unusable: dict[str, str] = {}
    for row in rows:
        fault = _fault(row) or _doubt(row, rows, named_oddly)
        if fault:
            unusable[row[1]] = f"GPU {row[0]} ({row[1]}) {fault}"
        else:
            known = processes.get(row[1], [])
            if app_code == _OFF_THE_BUS and not (known or _is_idle(row)):
                known = [UNKNOWN_PROCESS]
            seen.append(_read_gpu(row, known, ours))
    lines = dict.fromkeys(_first_line(line) for line in [*odd, *notes])
    withheld = dict.fromkeys([*unusable, *sorted(named_oddly)])
    return GpuLook(tuple(seen), tuple(unusable.values()), withheld=tuple(withheld), odd=tuple(lines))


def _has_lost_one(rows: Sequence[Sequence[str]], odd: Sequence[str], code: int) -> bool:
    """Whether the list of GPUs tells of one that is off the bus; it may still list one that fell off a moment later."""
    return code == _OFF_THE_BUS or bool(odd) or any(_fault(row) for row in rows)


def _is_idle(row: Sequence[str]) -> bool:
    """Whether nobody can compute on a GPU, by its own numbers."""
    used, utilization = _number(row[4]), _number(row[5])
    return used is not None and used < _IDLE and not utilization


def _sorted_out(text: str) -> tuple[list[list[str]], list[str]]:
    """Return the rows that name a GPU in its proper columns, and the lines that don't.

    A row with fewer columns than the others, or more, may be shifted: then nothing in it is where it seems to be.
    """
    rows = [(line, [item.strip() for item in line.split(",")]) for line in text.splitlines() if line.strip()]
    well = [len(row) in _COLUMNS and row[0].isdigit() and bool(_UUID.fullmatch(row[1])) for _, row in rows]
    most = max((len(row) for (_, row), fits in zip(rows, well, strict=True) if fits), default=0)
    fits = [each and len(row) == most for (_, row), each in zip(rows, well, strict=True)]
    return (
        [row for (_, row), each in zip(rows, fits, strict=True) if each],
        [line for (line, _), each in zip(rows, fits, strict=True) if not each],
    )


def _doubt(row: Sequence[str], rows: Sequence[Sequence[str]], named_oddly: Set[str]) -> str:
    """Say why a row can't be believed beside the others."""
    if row[1] in named_oddly:
        return "stands in a line that is not understood, too"
    if sum(each[1] == row[1] for each in rows) > 1:
        return "is listed twice"
    if sum(each[0] == row[0] for each in rows) > 1:
        return "shares its number with another"
    return ""


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
    if len(row) > 7 and "enabled".startswith(row[7].casefold()):  # an answer that was cut off may end in the word
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
