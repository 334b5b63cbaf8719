"""What is mounted where: tells an unmounted share from an empty directory, and a local disk from a network one."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mqi_cli import SourceView

MOUNTINFO = Path("/proc/self/mountinfo")
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "lustre", "gpfs", "afs"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where it appears, its type (`ext4`, `cifs`), its options."""

    point: Path
    kind: str
    options: tuple[str, ...] = ()

    @property
    def is_network(self) -> bool:
        """Whether its files lie on another machine."""
        return self.kind in NETWORK


def parse_mountinfo(text: str) -> list[Mount]:
    """Read `/proc/self/mountinfo` (proc(5)): the fields after ` - ` are type, device, the file system's own options."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, own = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(own) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        mounts.append(Mount(Path(point), own[0], tuple(own[2].split(","))))
    return mounts


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that a path lies on: the deepest, and of several on one point the last."""
    best: Mount | None = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (best is None or len(mount.point.parts) >= len(best.point.parts)):
            best = mount
    return best


def current_mounts() -> list[Mount]:
    """Return what is mounted now; nothing on a system that doesn't tell."""
    try:
        return parse_mountinfo(MOUNTINFO.read_text())
    except OSError:
        return []


def mount_now(path: Path) -> Mount | None:
    """Return the mount that a path lies on now, links resolved."""
    return mount_of(Path(os.path.realpath(path)), current_mounts())


class Mounts:
    """Remembers in the scanner's own directory on which mount each source lay when it was last in order."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "mounts.json"

    def lost(self, source: SourceView) -> str:
        """Return the type of the file system that the source used to lie on and no longer does; else nothing."""
        former = self._read().get(str(source.path))
        now = mount_now(source.path)
        if not former or now is None or former == [str(now.point), now.kind]:
            return ""
        # A source that was moved on purpose lies on something; one that was lost shows the directory below the mount.
        return former[1] if Path(former[0]).is_relative_to(now.point) and Path(former[0]) != now.point else ""

    def remember(self, source: SourceView) -> None:
        """Note on which mount the source lies now."""
        now = mount_now(source.path)
        known = self._read()
        if now is None or known.get(str(source.path)) == [str(now.point), now.kind]:
            return
        known[str(source.path)] = [str(now.point), now.kind]
        partial = self._file.with_name(f".{self._file.name}.{os.getpid()}.partial")
        with contextlib.suppress(OSError):  # a convenience: a full disk must not stop the scan
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(known))
            partial.replace(self._file)

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
