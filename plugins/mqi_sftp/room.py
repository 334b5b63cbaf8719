"""Room on a host for what is to go there, asked for before anything is sent."""

from __future__ import annotations

from mqi_cli import HostFull, Space
from mqi_sftp.plan import has_room


def check_room(host: str, space: Space, *, size: int, count: int) -> None:
    """Raise `HostFull` when `count` entries of `size` bytes in all do not fit."""
    if has_room(free_bytes=space.free_bytes, free_inodes=space.free_inodes, size=size, count=count):
        return
    raise HostFull(
        f"its disk has no room for this case: {size / 1e6:.1f} MB and {count} entries are to go there, and "
        f"{space.free_bytes / 1e6:.1f} MB"
        + (" are left" if space.free_inodes is None else f" and {space.free_inodes} inodes are left"),
        host=host,
        hint="free space there; it goes on by itself",
    )
