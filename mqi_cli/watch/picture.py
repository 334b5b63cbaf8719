"""Draws a frame as SVG for the documentation, from a small made-up installation: `python -m mqi_cli.watch.picture FILE`."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from mqi_cli import __version__
from mqi_cli.case import CaseState, PartState, derive_key
from mqi_cli.crew import ChildState
from mqi_cli.daemon import ChildStatus, DaemonStatus
from mqi_cli.patrol import GpuSeen
from mqi_cli.store import Store, open_store
from mqi_cli.store.views import Views
from mqi_cli.watch.data import DaemonView, View, make_view
from mqi_cli.watch.frame import render
from mqi_cli.watch.screen import Screen, settle

NOW = 1_800_000_000.0

# state, name, step, lane, progress, reason, seconds since its last change
_CASES = (
    (CaseState.HELD, "2.16.840.1.114337.1/2027010911", "simulate", "ssh-exec", None,
     "exit code 139 (signal 11 (SIGSEGV)) after 21 min", 5400),
    (CaseState.RUNNING, "2.16.840.1.114337.2/2027011407", "simulate", "ssh-exec", (61, 100, "batches"), "running on hpc", 1260),
    (CaseState.RUNNING, "2.16.840.1.114337.3/2027011408", "upload", "sftp", (31.2e6, 44.1e6, "B"), "sftp@qa1-4001 works on it", 14),
    (CaseState.RUNNING, "2.16.840.1.114337.4/2027011409", "interpret", "ssh-exec", None, "running on hpc", 41),
    (CaseState.WAITING, "2.16.840.1.114337.5/2027011410", "simulate", "ssh-exec", None,
     "waits for 1 GPU on hpc: 0 of 2 free", 600),
    (CaseState.WAITING, "2.16.840.1.114337.6/2027011411", "download", "sftp", None,
     "host hpc2 is paused: connection refused", 180),
    (CaseState.SETTLING, "2.16.840.1.114337.7/2027011412", "", "", None, "quiet for 12 of 30 s", 12),
    *((CaseState.DONE, f"2.16.840.1.114337.{number}/20270113{number}", "", "", None, "", 3600 * number) for number in range(8, 14)),
)  # fmt: skip
_CHILDREN = (
    ("conductor", ChildState.RUNNING, 0, 61e6, ""),
    ("sftp-1", ChildState.RUNNING, 0, 88e6, ""),
    ("ssh-exec-1", ChildState.RUNNING, 1, 79e6, "killed by SIGKILL"),
    ("archiver-1", ChildState.RUNNING, 0, 58e6, ""),
    ("scanner-1", ChildState.RUNNING, 0, 56e6, ""),
    ("curator-1", ChildState.RUNNING, 0, 64e6, ""),
)


def fill(store: Store, *, now: float = NOW) -> None:
    """Put the made-up installation into an empty state database."""
    leased: list[int] = []
    with store.transaction():
        for state, name, step, lane, progress, reason, since in sorted(_CASES, key=lambda each: -each[-1]):
            ended = now - since if state is CaseState.DONE else None
            case = store.cases.add(
                key=derive_key("incoming", name, 1), source="incoming", name=name, revision=1, state=state,
                workflow="default_qa", step=step, reason=reason, files=223, size=44_100_000,
                created_at=now - since - 900, updated_at=now - since, ended_at=ended,
                until=now + 95 if "paused" in reason else None,
            )  # fmt: skip
            if step:
                part = store.parts.add(
                    case=case.id, step=step, part="", attempt=2 if state is CaseState.HELD else 1, lane=lane,
                    host="hpc", job=lane == "ssh-exec", gpus=int(step == "simulate"), created_at=now - since - 60,
                )  # fmt: skip
                done, total, unit = progress or (0.0, 0.0, "")
                working = {CaseState.HELD: PartState.FAILED, CaseState.RUNNING: PartState.WORKING}
                store.parts.update(
                    part.id, state=working.get(state, PartState.WAITING), started_at=now - since, reason=reason,
                    progress_done=done, progress_total=total, progress_unit=unit, turn=1,
                    ended_at=now - since if state is CaseState.HELD else None,
                )  # fmt: skip
                if state is CaseState.RUNNING and step == "simulate":
                    leased.append(part.id)
                store.events.add(
                    at=now - since, case=case.id, kind=_KINDS.get(state, "started"), text=f"{step} begun" if state is CaseState.RUNNING else reason,
                    step=step, attempt=1,
                )  # fmt: skip
            elif state is CaseState.DONE:
                store.events.add(at=now - since, case=case.id, kind="case-done", text="all steps done")
        _places(store, leased, now)


_KINDS = {CaseState.HELD: "held", CaseState.WAITING: "failed"}


def _places(store: Store, leased: list[int], now: float) -> None:
    up = {"load": 21.4, "cores": 64, "free_bytes": int(1.8e12), "total_bytes": int(7e12), "seen_at": now - 12}
    store.hosts.update("hpc", **up)
    paused = {"state": "paused", "reason": "connection refused", "until": now + 95, "seen_at": now - 180}
    store.hosts.update("hpc2", **paused)
    gpus = [
        GpuSeen(f"GPU-0000000{index}", index, "NVIDIA A100-PCIE-40GB", 40960, used, use, heat, (4711 + index,))
        for index, (used, use, heat) in enumerate(((23552, 97, 71), (9216, 64, 58)))
    ]
    store.gpus.saw("hpc", gpus, now=now - 12)
    for gpu, part in zip(gpus, leased, strict=False):
        store.gpus.lease(part, [gpu.uuid])
    for number, (lane, busy) in enumerate((("sftp", 1), ("ssh-exec", 2), ("archiver", 0))):
        store.workers.alive(
            f"{lane}@qa1-{4001 + number}", lane=lane, machine="qa1", pid=4001 + number, busy=busy,
            started_at=now - 86400, now=now - 4,
        )  # fmt: skip


def sample_view(store: Store, *, now: float = NOW, find: str = "", daemon: bool = True) -> View:
    """Return the view of a store that `fill` has filled, with a daemon that never ran."""
    children = tuple(
        ChildStatus(name, state, 4000 + number, restarts, now - 86400, last, None, None, int(memory))
        for number, (name, state, restarts, memory, last) in enumerate(_CHILDREN)
    )
    status = DaemonStatus(3999, __version__, "/etc/mqi/mqi.yaml", "", now - 86400, "running", True, 0, "", children)
    found = DaemonView(3999, status) if daemon else DaemonView(None, None)
    return make_view(Views(store).snapshot(find=find, ended_since=now - 86400), found, machine="qa1", now=now)


def main(target: Path, *, width: int = 150, height: int = 38) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Path(directory) / "state.db")
        fill(store)
        view = sample_view(store)
        store.close()
    console = Console(record=True, width=width, height=height, file=io.StringIO(), force_terminal=True)
    for line in render(view, settle(Screen(), view), width, height):
        console.print(line, no_wrap=True, crop=True, highlight=False)
    drawn = console.export_svg(title="mqi watch", unique_id="mqi-watch")
    # Rich names fonts on the web; a picture in a document loads nothing from anywhere
    target.write_text(re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
