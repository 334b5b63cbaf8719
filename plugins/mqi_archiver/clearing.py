"""Removing a case from its hosts, once everything that is worth keeping is proven to lie elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

from mqi_cli import (
    KEY_PATTERN,
    CaseRef,
    GiveUp,
    Host,
    HostFault,
    RemoteLayout,
    Resident,
    ResidentHost,
    StageContext,
)

_ASKED_MOST = 3  # times that an overdue turn is asked for again


def hosts_of(ctx: StageContext) -> list[str]:
    """Return the hosts that the workflow's steps work on, in order."""
    return list(dict.fromkeys(step.host for step in ctx.workflow.steps if step.host))


def require_key(case: CaseRef) -> None:
    """Raise `GiveUp` for a case without a proper key: an empty one would name a host's base directory itself."""
    if not KEY_PATTERN.match(case.key):
        raise GiveUp("this case has no key that names a directory of its own on a host")


class Overdue(Exception):
    """It is long ago that this turn was asked for: it may not be wanted any more."""


def clear_hosts(case: CaseRef, ctx: StageContext, *, done: Sequence[str], left: Sequence[str] = ()) -> list[str]:
    """Remove the case's directory from every host that is not `done` yet, nor to be `left`, remembering each.

    Return all that are cleared.

    Raises `Overdue`, and `HostError`s as they come: the hosts that are left are cleared by a later turn.
    """
    require_key(case)
    cleared = list(done)
    for name in hosts_of(ctx):
        if name in cleared or name in left:
            continue
        _require_recent(ctx)
        host = ctx.host_named(name)
        root = RemoteLayout(host.base_dir, case.key, ctx.owner).root
        if not _cleared_at_once(host, root):
            _clear(host, root)
        cleared.append(name)
        ctx.remember(cleared=cleared, cleared_by=ctx.attempt)
        ctx.log.info("nothing of it is left on %s", name)
    return cleared


def _require_recent(ctx: StageContext) -> None:
    """Raise `Overdue` unless the turn is recent, or was asked for again and again: then it is the clocks that differ."""
    asked = int(ctx.facts.get("asked", 0))
    if not ctx.is_recent and asked < _ASKED_MOST:
        ctx.remember(asked=asked + 1)
        raise Overdue


@cache
def _program() -> Resident:
    return Resident("far_clear", (resources.files("mqi_archiver") / "far_clear.py").read_bytes())


def _cleared_at_once(host: Host, root: PurePosixPath) -> bool:
    """Have a program that stays loaded on the host remove a small directory; False where it is not gone that way."""
    path = str(root).encode("utf-8", "surrogateescape")
    return isinstance(host, ResidentHost) and host.ask(_program(), path) == b"clear"


def _clear(host: Host, root: PurePosixPath) -> None:
    with host.files() as files:
        there = files.stat(root)
        if there is None:
            return
        if not there.is_dir:
            raise GiveUp(f"what has this case's name on {host.name} is not a directory, so it is left as it is")
        files.remove_tree(root)
        if files.stat(root) is not None:
            raise HostFault("the case's directory is still there after it was removed", host=host.name)
