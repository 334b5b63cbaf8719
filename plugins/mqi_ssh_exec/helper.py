"""The helper `mqi-job` on a host: put there once for each version, named by its content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

from mqi_cli import Host, HostFault, tool_dir

_installed: set[tuple[str, PurePosixPath]] = set()  # (host, path) that this process has seen complete


@cache
def helper_text() -> bytes:
    """Return the helper as it ships."""
    return (resources.files("mqi_ssh_exec") / "mqi-job").read_bytes()


def helper_path(base_dir: PurePosixPath) -> PurePosixPath:
    """Return where this version's helper lies on a host."""
    return tool_dir(base_dir) / hashlib.sha256(helper_text()).hexdigest() / "mqi-job"


def install(host: Host, *, again: bool = False) -> PurePosixPath:
    """Make sure that the helper lies on the host, whole; return its path. `again` looks even if it was there before."""
    path = helper_path(host.base_dir)
    if (host.name, path) in _installed and not again:
        return path
    with host.files() as files:
        try:
            whole = files.read_bytes(path, limit=len(helper_text())) == helper_text()
        except (FileNotFoundError, HostFault):  # not there, or longer than it should be
            whole = False
        if not whole:
            files.make_directory(path.parent, mode=0o700, parents=True, exist_ok=True)
            files.write_bytes(path, helper_text(), mode=0o700)
    _installed.add((host.name, path))
    return path
