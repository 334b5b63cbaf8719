"""Whose key a host shows: comparing the one that is offered with the one that is pinned, and deciding to pin. Pure but
for asking the host."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from mqi_cli import Check, HostKey, HostRefused, KeyedHost, UsageError, Verdict


class Standing(StrEnum):
    """How an offered key stands to the pinned one."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"


def standing(offered: HostKey, pinned: HostKey | None) -> Standing:
    """Compare two keys by kind and fingerprint."""
    if pinned is None:
        return Standing.UNKNOWN
    same = (offered.kind, offered.fingerprint) == (pinned.kind, pinned.fingerprint)
    return Standing.TRUSTED if same else Standing.CHANGED


def check_key(name: str, host: KeyedHost) -> Check:
    """Ask the host for its key and return the line about it."""
    offered, pinned = host.offered_key(), host.pinned_key()
    found = standing(offered, pinned)
    if found is Standing.TRUSTED:
        return Check("key", Verdict.OK, f"{offered.kind} {offered.fingerprint}, pinned")
    if found is Standing.UNKNOWN or pinned is None:
        return Check("key", Verdict.FAIL, f"{offered.fingerprint} is not known yet", f"mqi host trust {name}")
    text = f"the key has changed from {pinned.fingerprint} to {offered.fingerprint}"
    return Check("key", Verdict.FAIL, text, f"ask the host's administrator, then: mqi host trust {name}")


def trust_key(
    name: str,
    host: KeyedHost,
    *,
    expected: str,
    yes: bool,
    say: Callable[[str], None],
    ask: Callable[[str], str] | None,
) -> Standing:
    """Pin the key that the host offers, once it is confirmed; return how it stood before.

    `expected` is the fingerprint that the host's administrator gave: it confirms any key that has it, and refuses any
    other. Without one, `yes` confirms a key for a host that had none, and never a changed one; else `ask` puts the
    question (None: nobody is there to answer).
    """
    offered, pinned = host.offered_key(), host.pinned_key()
    found = standing(offered, pinned)
    if expected and _bare(expected) != _bare(offered.fingerprint):
        raise HostRefused(
            f"host {name} offers the key {offered.fingerprint}, not the one you expect: nothing was changed",
            host=name,
            hint="somebody may sit between; ask the host's administrator",
        )
    if found is Standing.TRUSTED:
        say(f"The key of host {name} is trusted already: {offered.kind} {offered.fingerprint}")
        return found
    if found is Standing.CHANGED and pinned is not None:
        say(f"THE KEY OF HOST {name} HAS CHANGED. It was set up anew, or somebody sits between.")
        say(f"  trusted so far: {pinned.kind} {pinned.fingerprint}")
        say(f"  offered now:    {offered.kind} {offered.fingerprint}")
    else:
        say(f"Host {name} offers the key {offered.kind} {offered.fingerprint}")
        say("Compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_<kind>_key.pub` prints on the host itself.")
    if not expected:
        _confirm(name, found, yes=yes, ask=ask)
    host.pin(offered)
    say(f"Trusted from now on. Next: mqi host test {name}")
    return found


def _confirm(name: str, found: Standing, *, yes: bool, ask: Callable[[str], str] | None) -> None:
    changed = found is Standing.CHANGED
    if yes and not changed:
        return
    if ask is None or yes:
        how = "a changed key is only taken with --fingerprint" if changed else "nobody is here to confirm the key"
        raise UsageError(how, hint=f"mqi host trust {name} --fingerprint SHA256:…  (from the host's administrator)")
    wanted = name if changed else "yes"
    question = f"Type the host's name ({name}) to trust the new key" if changed else "Trust it? Type yes"
    if ask(question).strip().casefold() != wanted.casefold():
        raise UsageError("not confirmed: nothing was changed")


def _bare(fingerprint: str) -> str:
    return fingerprint.strip().removeprefix("SHA256:").rstrip("=")
