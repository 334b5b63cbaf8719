"""`mqi host …`: how the hosts are, trying one out, trusting its key, clearing what is left on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mqi_cli import CaseCleared, Clock, Column, Host, HostFault, KeyedHost, Operator, UsageError, Verdict, say, show
from mqi_curator.cleaning import Kept, Removable, finish_removals, judge, remove, survey
from mqi_curator.config import CuratorSection
from mqi_curator.trial import Trial, try_host
from mqi_curator.trust import trust_key
from mqi_curator.wording import ago, directories, gigabytes

_COLUMNS = (
    Column("name", "host"),
    Column("type", "type"),
    Column("where", "where"),
    Column("state", "state"),
    Column("reason", "reason"),
    Column("load", "load", "right"),
    Column("cores", "cores", "right"),
    Column("free", "free", "right"),
    Column("running", "runs", "right"),
    Column("seen", "seen"),
)
_TRIAL_COLUMNS = (
    Column("verdict", ""),
    Column("name", "step"),
    Column("seconds", "s", "right"),
    Column("text", "result"),
    Column("mend", "to mend it"),
)
_GLYPHS = {Verdict.OK: "ok  ", Verdict.WARN: "warn", Verdict.FAIL: "FAIL"}


def list_hosts(operator: Operator, *, look: bool, now: float, json: bool, format: str) -> None:
    """Print every host of the config with what was last seen of it. Connects to none, unless it is to look first."""
    if look:
        operator.patrol("hosts")
    rows = [{**row, "where": operator.host(row["name"]).describe()} for row in operator.hosts()]
    shown = rows if json else [_cells(row, now) for row in rows]
    show(shown, _COLUMNS, json=json, format=format, empty="The config has no hosts. To begin: mqi init")


def _cells(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    left = (row["until"] or 0) - now
    return {
        **row,
        "state": f"{row['state']}, tried again in {left:.0f} s" if left > 0 else row["state"],
        "free": gigabytes(row["free_bytes"]),
        "seen": ago(row["seen_at"], now),
        "running": f"{row['jobs']}/{row['jobs_limit']}",
    }


def test_host(operator: Operator, name: str, *, clock: Clock, json: bool, format: str) -> None:
    """Try a host out step by step. Raises `HostFault` when a step fails."""
    section: CuratorSection = operator.section("curator")
    trials: list[Trial] = []
    for trial in try_host(operator.host(name), section, clock=clock):
        trials.append(trial)
        if not json and format == "table":
            _say_trial(trial)  # at once: a step may take long
    if json or format != "table":
        show([_trial_row(trial) for trial in trials], _TRIAL_COLUMNS, json=json, format=format)
    failed = [trial.check for trial in trials if trial.check.verdict is Verdict.FAIL]
    if failed:
        raise HostFault(f"host {name} can't be used: {failed[0].name} fails", host=name, hint=failed[0].mend)


def _say_trial(trial: Trial) -> None:
    check = trial.check
    say(f"{_GLYPHS[check.verdict]} {check.name:<9} {trial.seconds:6.2f} s  {check.text}")
    if check.mend:
        say(f"     → {check.mend}")


def _trial_row(trial: Trial) -> dict[str, Any]:
    check = trial.check
    return {
        "verdict": str(check.verdict),
        "name": check.name,
        "seconds": round(trial.seconds, 3),
        "text": check.text,
        "mend": check.mend,
    }


def trust_host(operator: Operator, name: str, *, fingerprint: str, yes: bool, ask: Callable[[str], str] | None) -> None:
    """Pin the key that a host offers, once it is confirmed."""
    host = operator.host(name)
    if not isinstance(host, KeyedHost):
        kind = operator.config.hosts[name].type
        raise UsageError(f"host {name} is of type {kind}, which proves itself by no key: there is nothing to trust")
    trust_key(name, host, expected=fingerprint, yes=yes, say=say, ask=ask)


def clean_host(operator: Operator, name: str, *, dry_run: bool, yes: bool, ask: Callable[[str], str] | None) -> None:
    """Remove from a host what is left of cases that need nothing there any more."""
    host = operator.host(name)
    workflows = operator.config.workflows
    removable, kept = survey(host, operator.case, workflows, _base_dirs(operator), owner=operator.owner)
    if not dry_run:
        finish_removals(host, owner=operator.owner)
    for each in kept:
        say(f"stays   {each.key}  {each.reason}")
    for going in removable:
        say(f"{'would go' if dry_run else 'goes   '} {going.key}  {going.reason}")
    if not removable:
        say(f"There is nothing to remove on {name}.")
        return
    if dry_run:
        say(f"Would be removed on {name}: {directories(len(removable))}. Nothing was changed.")
        return
    _confirm(f"Remove {directories(len(removable))} on {name}? Type yes", yes=yes, ask=ask)
    removed = sum(_remove(operator, host, each) for each in removable)
    say(f"Removed on {name}: {directories(removed)}.")


def _base_dirs(operator: Operator) -> dict[str, str]:
    return {name: str(section.base_dir) for name, section in operator.config.hosts.items()}


def _remove(operator: Operator, host: Host, going: Removable) -> bool:
    def look() -> Removable | Kept:
        case = operator.case(going.key)
        return judge(going.key, case, host.name, operator.config.workflows, _base_dirs(operator))

    found = look()  # time has passed at the question
    if isinstance(found, Removable):
        if remove(host, going.key, owner=operator.owner, still=lambda: isinstance(look(), Removable)):
            operator.report(CaseCleared(going.key, host.name))
            return True
        found = look()
    say(f"stays   {going.key}  it was begun again meanwhile: {found.reason}")
    return False


def _confirm(question: str, *, yes: bool, ask: Callable[[str], str] | None) -> None:
    if yes:
        return
    if ask is None:
        raise UsageError("nobody is here to confirm it", hint="--dry-run shows what would go; --yes removes it")
    if ask(question).strip().casefold() != "yes":
        raise UsageError("not confirmed: nothing was changed")
