"""Which keys are taken, and on whose word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mqi_cli import HostKey, HostRefused, UsageError, Verdict
from mqi_curator.trust import Standing, check_key, trust_key

OLD = HostKey("ssh-ed25519", "SHA256:old0000000000000000000000000000000000000000", "hpc ssh-ed25519 AAAAold")
NEW = HostKey("ssh-ed25519", "SHA256:new0000000000000000000000000000000000000000", "hpc ssh-ed25519 AAAAnew")


@dataclass
class Keyed:
    """A host that shows one key and has another, or none, pinned."""

    offered: HostKey = NEW
    pinned: HostKey | None = None
    said: list[str] = field(default_factory=list)

    def offered_key(self) -> HostKey:
        return self.offered

    def pinned_key(self) -> HostKey | None:
        return self.pinned

    def pin(self, key: HostKey) -> None:
        self.pinned = key


def trust(host: Keyed, *, expected: str = "", yes: bool = False, answer: str | None = None) -> Standing:
    ask: Callable[[str], str] | None = None if answer is None else (lambda question: answer)
    return trust_key("hpc", host, expected=expected, yes=yes, say=host.said.append, ask=ask)


def test_a_first_key_is_shown_and_pinned_when_the_operator_says_yes() -> None:
    host = Keyed()
    assert trust(host, answer="yes") is Standing.UNKNOWN
    assert host.pinned == NEW
    assert NEW.fingerprint in "\n".join(host.said)


@pytest.mark.parametrize("answer", ["", "no", "y", "hpc"])
def test_any_other_answer_changes_nothing(answer: str) -> None:
    host = Keyed()
    with pytest.raises(UsageError, match="nothing was changed"):
        trust(host, answer=answer)
    assert host.pinned is None


def test_without_a_terminal_a_key_needs_yes_or_its_fingerprint() -> None:
    host = Keyed()
    with pytest.raises(UsageError):
        trust(host)
    assert host.pinned is None
    trust(host, yes=True)
    assert host.pinned == NEW


def test_a_key_that_is_trusted_already_asks_nothing() -> None:
    host = Keyed(pinned=NEW)
    assert trust(host) is Standing.TRUSTED


def test_a_changed_key_shows_both_and_wants_the_hosts_name_typed() -> None:
    host = Keyed(pinned=OLD)
    with pytest.raises(UsageError):
        trust(host, answer="yes")
    assert host.pinned == OLD
    said = "\n".join(host.said)
    assert OLD.fingerprint in said
    assert NEW.fingerprint in said
    assert trust(host, answer="hpc") is Standing.CHANGED
    assert host.pinned == NEW


@pytest.mark.parametrize("answer", [None, "hpc"])
def test_yes_alone_never_takes_a_changed_key(answer: str | None) -> None:
    host = Keyed(pinned=OLD)
    with pytest.raises(UsageError, match="--fingerprint"):
        trust(host, yes=True, answer=answer)
    assert host.pinned == OLD


def test_the_expected_fingerprint_takes_even_a_changed_key() -> None:
    host = Keyed(pinned=OLD)
    trust(host, expected=NEW.fingerprint.removeprefix("SHA256:"))
    assert host.pinned == NEW


@pytest.mark.parametrize("pinned", [None, OLD, NEW])
def test_another_key_than_the_expected_one_is_refused(pinned: HostKey | None) -> None:
    host = Keyed(pinned=pinned)
    with pytest.raises(HostRefused, match="not the one you expect"):
        trust(host, expected=OLD.fingerprint, yes=True, answer="hpc")
    assert host.pinned == pinned


def test_the_check_tells_an_unknown_from_a_changed_key() -> None:
    assert check_key("hpc", Keyed(pinned=NEW)).verdict is Verdict.OK
    unknown = check_key("hpc", Keyed())
    assert (unknown.verdict, unknown.mend) == (Verdict.FAIL, "mqi host trust hpc")
    changed = check_key("hpc", Keyed(pinned=OLD))
    assert changed.verdict is Verdict.FAIL
    assert "changed" in changed.text
