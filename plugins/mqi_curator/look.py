"""One look at a host, as the curator works with it: taking it, and reading the script's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mqi_cli import Clock, Host, HostFault, NoShell
from mqi_curator.config import CuratorSection
from mqi_curator.gpus import GpuLook, read_gpus, refuses_mig
from mqi_curator.look_script import longest, look_command

_MARK = re.compile(r"@mqi ([a-z-]+) (\d+|hung|absent)\Z")
_DF = re.compile(r"\s(\d+)\s+\d+\s+(-?\d+)\s+(?:\d+%|-)\s+/")

Sections = Mapping[str, tuple[str, str]]  # name -> exit code, `hung` or `absent`, and what was printed


@dataclass(frozen=True)
class Look:
    """What one look at a host gave; None where the host does not tell.

    `skew` is how many seconds its clock is ahead of ours (behind: negative), 0 within what a look can tell. `gpus` is None where none were looked for. `problem` is set when the host
    answers and work on it would still fail.
    """

    skew: float | None = None
    load: float | None = None
    cores: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    gpus: GpuLook | None = None
    problem: str = ""


def take_look(host: Host, section: CuratorSection, *, clock: Clock, owner: str = "") -> Look:
    """Look at a host. Raises the `Host…` errors of connecting; a host that runs no programs tells its space only."""
    command = look_command(host.base_dir, section.gpu_command, gpu_timeout=section.gpu_timeout, owner=owner)
    asked_at = clock.now()
    try:
        completed = host.run(command, timeout=longest(section.gpu_timeout))
    except NoShell:
        with host.files() as files:
            space = files.space(host.base_dir)
        return Look(free_bytes=space.free_bytes, total_bytes=space.total_bytes) if space else Look()
    sections = read_sections(completed.text)
    if "end" not in sections:
        raise HostFault(
            f"host {host.name} did not finish the script that looks at it (exit code {completed.code})",
            host=host.name,
            hint=f"mqi host test {host.name}",
        )
    look = read_look(sections, gpus_wanted=bool(section.gpu_command), gpu_timeout=section.gpu_timeout)
    return replace(look, skew=_skew(_text(sections, "clock"), asked_at=asked_at, answered_at=clock.now()))


def read_sections(text: str) -> Sections:
    """Split the script's answer at its marks. What a login shell prints before the first is passed over."""
    found: dict[str, tuple[str, list[str]]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        mark = _MARK.match(line)
        if mark:
            lines = []
            found[mark[1]] = (mark[2], lines)
        else:
            lines.append(line)
    return {name: (status, "\n".join(body).strip()) for name, (status, body) in found.items()}


def read_look(sections: Sections, *, gpus_wanted: bool, gpu_timeout: float) -> Look:
    """Make a `Look` of the answer's sections."""
    load = _text(sections, "load").split(" ")[0]
    cores = _text(sections, "cores")
    disk = _DF.findall(_text(sections, "disk"))
    return Look(
        load=float(load) if re.fullmatch(r"\d+(\.\d+)?", load) else None,
        cores=int(cores) if cores.isdigit() else None,
        total_bytes=int(disk[-1][0]) * 1024 if disk else None,
        free_bytes=max(0, int(disk[-1][1])) * 1024 if disk else None,
        gpus=_read_gpu_sections(sections, gpu_timeout) if gpus_wanted else None,
        problem=_problem(sections),
    )


def _skew(text: str, *, asked_at: float, answered_at: float) -> float | None:
    if not text.isdigit():
        return None
    theirs = int(text)  # whole seconds: it was up to one second later there
    if theirs > answered_at:
        return theirs - answered_at
    return min(0.0, theirs + 1 - asked_at)


def _problem(sections: Sections) -> str:
    if "nowhere" in sections:
        return "neither /dev/shm nor the directory for temporary files can be written"
    status, disk = sections.get("disk", ("", ""))
    if status == "hung":
        return "the file system of base_dir does not answer"
    if disk.startswith("no directory"):
        return "base_dir, or what lies above it, is not a directory"
    if disk.startswith("not writable"):
        return "base_dir can't be written"
    return ""


def _read_gpu_sections(sections: Sections, gpu_timeout: float) -> GpuLook:
    name = "gpus"
    if name in sections and refuses_mig(sections[name][1]):
        name = "old-gpus"
    status, text = sections.get(name, ("", ""))
    app_status, apps = sections.get("apps", ("", ""))
    if status == "absent":
        return GpuLook()
    if "hung" in (status, app_status):
        return GpuLook(problem=f"the GPU query hung for {gpu_timeout:g} s; the driver may need a reboot")
    if not status:
        return GpuLook(problem="the host did not ask for its GPUs")
    ours = {int(each) for each in _text(sections, "ours").split() if each.isdigit()} if "ours" in sections else None
    return read_gpus(text, int(status), apps, int(app_status or 1), ours=ours)


def _text(sections: Sections, name: str) -> str:
    return sections.get(name, ("", ""))[1]
