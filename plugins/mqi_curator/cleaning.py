"""`mqi host clean`: which case directories on a host may go, and removing them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mqi_cli import KEY_PATTERN, CaseState, CaseView, Files, Host, RemoteLayout, Workflow, tool_dir

_ARCHIVE = "archive"  # the stage after which nothing on the host is needed any more
_REMOVED = "removed-"


@dataclass(frozen=True)
class Removable:
    """A case's directory on a host that may go, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Kept:
    """A directory that looks like a case's and stays, and why."""

    key: str
    reason: str


def judge(key: str, case: CaseView | None, host: str, workflows: Mapping[str, Workflow]) -> Removable | Kept:
    """Decide about a directory with a case's key for its name. Pure.

    Only what the state database knows and has ended may go; of a case that is done, only when what the host computed
    is proven to lie elsewhere.
    """
    if case is None:
        return Kept(key, "the state database knows no such case; another installation may use this base_dir")
    if case.state is CaseState.CANCELLED:
        return Removable(key, "cancelled")
    if case.state is not CaseState.DONE:
        return Kept(key, f"the case is {case.state}")
    if host in case.cleared:
        return Removable(key, "done, and cleared once already")
    if _is_archived(case, workflows.get(case.workflow)):
        return Removable(key, "done and archived")
    return Kept(key, "done, but not archived: its results may lie nowhere else")


def _is_archived(case: CaseView, workflow: Workflow | None) -> bool:
    names = {step.name for step in workflow.steps if step.stage.name == _ARCHIVE} if workflow else set()
    return any(step in names for step, _ in case.facts)


def survey(
    host: Host, cases: Iterable[CaseView], workflows: Mapping[str, Workflow]
) -> tuple[list[Removable], list[Kept]]:
    """Look through a host's base directory. What is not named like a case is passed over."""
    known = {case.key: case for case in cases}
    removable: list[Removable] = []
    kept: list[Kept] = []
    with host.files() as files:
        if files.stat(host.base_dir) is None:
            return [], []
        for entry in sorted(files.listing(host.base_dir), key=lambda entry: entry.name):
            if not KEY_PATTERN.match(entry.name) or not entry.is_dir:
                continue
            found = judge(entry.name, known.get(entry.name), host.name, workflows)
            if isinstance(found, Removable):
                removable.append(found)
            else:
                kept.append(found)
    return removable, kept


def remove(host: Host, key: str) -> None:
    """Remove a case's directory on a host.

    It is renamed out of its place first: a case that is begun again meanwhile finds nothing there rather than half.
    """
    with host.files() as files:
        _remove_leftovers(files, host)
        place = tool_dir(host.base_dir) / f"{_REMOVED}{key}-{secrets.token_hex(4)}"
        files.make_directory(place.parent, parents=True, exist_ok=True)
        root = RemoteLayout(host.base_dir, key).root
        if files.stat(root) is not None:
            files.rename(root, place)
            files.remove_tree(place)


def _remove_leftovers(files: Files, host: Host) -> None:
    """Finish removals that were cut off."""
    place = tool_dir(host.base_dir)
    if files.stat(place) is None:
        return
    for entry in list(files.listing(place)):
        if entry.is_dir and entry.name.startswith(_REMOVED):
            files.remove_tree(place / entry.name)
