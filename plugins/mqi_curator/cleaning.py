"""Which case directories on a host may go, by `mqi host clean` and by themselves, and removing them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mqi_cli import (
    DOWNLOAD,
    CaseCleared,
    CaseState,
    CaseView,
    Files,
    Host,
    HostError,
    Patrol,
    PatrolContext,
    RemoteLayout,
    Unfetched,
    Workflow,
    has_seen_newest,
    key_of,
    may_be_one,
    tool_dir,
    unfetched,
)
from mqi_curator.config import CuratorSection

_ARCHIVE = "archive"  # the stage after which nothing on the host is needed any more
_GOING = "going-"  # out of its place, until it is known whether it may go
_REMOVED = "removed-"
_OURS = frozenset({"input", "work"})  # and what begins with a dot
_CLEAR_EVERY = 600.0  # seconds


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


def judge(
    key: str,
    case: CaseView | None,
    host: str,
    workflows: Mapping[str, Workflow],
    base_dirs: Mapping[str, str] | None = None,
) -> Removable | Kept:
    """Decide about a directory with a case's key for its name. `base_dirs` are those of all hosts. Pure.

    Only what the state database knows and has ended may go, and nothing of which a part goes on; of a case that is done,
    only when what the host computed is proven to lie elsewhere.
    """
    if case is None:
        return Kept(key, "the state database knows no such case; another installation may use this base_dir")
    if case.state not in (CaseState.CANCELLED, CaseState.DONE):
        return Kept(key, f"the case is {case.state}")
    if case.alive:
        return Kept(key, f"{case.state}, but step {case.alive[0]} goes on, or may: mqi case show {key}")
    if case.state is CaseState.CANCELLED:
        return Removable(key, "cancelled")
    workflow = workflows.get(case.workflow)
    if workflow is None:
        return Kept(key, f"done, but the config has no workflow {case.workflow} any more to judge by")
    hosts = _may_be_one(workflow, host, base_dirs or {})
    if left := [each for name in hosts for each in unfetched(workflow, case.finished, name)]:
        return Kept(key, f"done, but {left[0]}: {_mend(key, left[0])}")
    if host in case.cleared and not any(step.stage.name == _ARCHIVE for step in workflow.steps):
        return Removable(key, "done, and cleared once already")  # the archive step that it had went from the config
    return _judge_archived(key, case, workflow, hosts)


def _mend(key: str, left: Unfetched) -> str:
    if left.unused_by:
        return f"do step {left.unused_by} again, then: mqi transfer download {key} --step {left.download}"
    if left.download:
        return f"mqi transfer download {key} --step {left.download}"
    return "add a download step for them, or give the step `outputs: []` if it leaves nothing to keep"


def _may_be_one(workflow: Workflow, host: str, base_dirs: Mapping[str, str]) -> list[str]:
    """Return the hosts of a workflow whose directories may be the one that is seen on a host.

    Two hosts of the config may lead to one file system: the one with a queue and the one without. A case of which no step
    works on this host has its directory here by such a way, or from a config that was changed.
    """
    known = list(dict.fromkeys(step.host for step in workflow.steps if step.host))
    if host not in known:
        return known
    return [
        name
        for name in known
        if name == host or (host in base_dirs and name in base_dirs and may_be_one(base_dirs[name], base_dirs[host]))
    ]


def _judge_archived(key: str, case: CaseView, workflow: Workflow, hosts: Sequence[str]) -> Removable | Kept:
    """Ask for an archive that holds the newest of everything that was fetched from these hosts."""
    done = {each.step for each in case.finished}
    fetches = [step.name for step in workflow.steps if step.stage.name == DOWNLOAD and step.host in hosts]
    reason = "not archived: its results may lie nowhere else"
    before: list[str] = []
    for step in workflow.steps:
        for archive in (each for each in case.finished if each.step == step.name and step.stage.name == _ARCHIVE):
            if late := [name for name in fetches if name in done and name not in before]:
                reason = f"what step {late[0]} fetched is not archived: it comes after step {step.name}"
            elif old := [
                name for name in before if name in fetches and not has_seen_newest(archive, case.finished, name)
            ]:
                again = f"mqi archive run {key} --step {step.name}"
                reason = f"step {old[0]} has fetched results since it was archived: {again}"
            else:
                return Removable(key, "done and archived")
        before.append(step.name)
    return Kept(key, f"done, but {reason}")


def survey(
    host: Host,
    find: Callable[[str], CaseView | None],
    workflows: Mapping[str, Workflow],
    base_dirs: Mapping[str, str] | None = None,
    *,
    owner: str,
) -> tuple[list[Removable], list[Kept]]:
    """Look through a host's base directory. `find` gives a key's case.

    What is not named like a case of this installation, `owner`, is passed over: nothing of it is ours.
    """
    removable: list[Removable] = []
    kept: list[Kept] = []
    with host.files() as files:
        if files.stat(host.base_dir) is None:
            return [], []
        for entry in sorted(files.listing(host.base_dir), key=lambda entry: entry.name):
            key = key_of(entry.name, owner)
            if key is None or not entry.is_dir:
                continue
            found = judge(key, find(key), host.name, workflows, base_dirs)
            if isinstance(found, Removable) and (foreign := _foreign(files, host.base_dir / entry.name)):
                things = "1 thing" if foreign == 1 else f"{foreign} things"
                found = Kept(key, f"{found.reason}, but {things} in it did not come from mqi")
            if isinstance(found, Removable):
                removable.append(found)
            else:
                kept.append(found)
    return removable, kept


def _foreign(files: Files, root: PurePosixPath) -> int:
    """Count what lies in a case's directory beside what mqi puts there: somebody's notes are not ours to remove."""
    names = [entry.name for entry in files.listing(root)]
    return sum(name not in _OURS and not name.startswith(".") for name in names)


def remove(host: Host, key: str, *, owner: str, still: Callable[[], bool] = lambda: True) -> bool:
    """Remove a case's directory on a host; False where it was begun again at the last moment and is left.

    It is renamed out of its place first: a case that is begun again meanwhile finds nothing there rather than half. Then
    `still` is asked whether it may go: who began before saw it in its place, and gets it back.
    """
    finish_removals(host, owner=owner)
    with host.files() as files:
        root = RemoteLayout(host.base_dir, key, owner).root
        tools, name = tool_dir(host.base_dir), f"{root.name}-{secrets.token_hex(4)}"
        files.make_directory(tools, parents=True, exist_ok=True)
        if files.stat(root) is not None:
            going, removed = tools / f"{_GOING}{name}", tools / f"{_REMOVED}{name}"
            files.rename(root, going)
            goes = still()
            if files.stat(going) is None:  # somebody who cleans here, too, has put it back
                return False
            if not goes and files.stat(root) is None:
                files.rename(going, root)
                return False
            files.rename(going, removed)
            files.remove_tree(removed)
    return True


def finish_removals(host: Host, *, owner: str) -> None:
    """Finish this installation's removals that were cut off.

    What was not yet known to go comes back to its place, to be judged again; or goes, where the case has begun anew there.
    Who was about to remove it, and lives after all, finds it gone.
    """
    place = tool_dir(host.base_dir)
    with host.files() as files:
        if files.stat(place) is None:
            return
        for entry in list(files.listing(place)):
            kind, _, rest = entry.name.partition("-")
            name = rest.rpartition("-")[0]
            if not entry.is_dir or f"{kind}-" not in (_GOING, _REMOVED) or not key_of(name, owner):
                continue
            if f"{kind}-" == _GOING and files.stat(host.base_dir / name) is None:
                files.rename(place / entry.name, host.base_dir / name)
            else:
                files.remove_tree(place / entry.name)


def clear_in_time(ctx: PatrolContext) -> None:
    """Remove from every host the directories of cases that are done and archived, `clear_after` the last that was done of them.

    One host that does not answer keeps nobody else waiting for more than its own failure.
    """
    section: CuratorSection = ctx.config
    if section.clear_after is None:
        return
    for name in ctx.hosts:
        try:
            for key in _clear(ctx, ctx.host(name), before=ctx.clock.now() - section.clear_after):
                ctx.report(CaseCleared(key, name))
        except HostError as error:
            ctx.log.warning("host %s: nothing more is cleared: %s", name, error.message)


def _clear(ctx: PatrolContext, host: Host, *, before: float) -> Iterator[str]:
    """Remove what may go; yield each key as it is gone."""
    finish_removals(host, owner=ctx.owner)
    base_dirs = {name: str(ctx.host(name).config.base_dir) for name in ctx.hosts}
    removable, _ = survey(host, ctx.case, ctx.workflows, base_dirs, owner=ctx.owner)
    for going in removable:
        if ctx.stopping():
            return
        case = ctx.case(going.key)  # time has passed since the survey
        if case is None or case.state is not CaseState.DONE or _ended_at(case, unknown=before) >= before:
            continue

        def still(key: str = going.key) -> bool:
            return isinstance(judge(key, ctx.case(key), host.name, ctx.workflows, base_dirs), Removable)

        if still() and remove(host, case.key, owner=ctx.owner, still=still):
            yield case.key


def _ended_at(case: CaseView, *, unknown: float) -> float:
    """Return when the last was done of a case: an operator may have sent it anew, and be about to run a step of it again."""
    return max([case.ended_at, *(each.ended_at for each in case.finished)]) if case.ended_at else unknown


PATROL = Patrol(
    name="clearing",
    run=clear_in_time,
    interval=lambda section: 0.0 if section.clear_after is None else _CLEAR_EVERY,
    lane="curator",
    summary="clears hosts of cases that are done and archived",
)
