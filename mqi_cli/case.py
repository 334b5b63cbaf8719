"""What a case and a part of its work are: frozen records, their states, and the moves between states. Pure.

`key` is the only name of a case that leaves the machine in clear (remote paths, messages, job names, logs): `name`
may hold a patient's id and stays on the operator's terminal, in the state database and in manifests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

KEY_PATTERN = re.compile(r"c[a-z2-7]{10}\Z")


class CaseState(StrEnum):
    """Where a case stands. The step's name is a column of its own, so stages are added without adding states."""

    SETTLING = "settling"  # seen, not complete
    READY = "ready"  # complete, nothing asked of it yet
    RUNNING = "running"  # a worker has it, or is about to
    WAITING = "waiting"  # until a time, a GPU, a host, a drain: always with the reason
    HELD = "held"  # a person must act
    DONE = "done"
    CANCELLED = "cancelled"


ENDED = frozenset({CaseState.DONE, CaseState.CANCELLED})

# The moves that a case may make; the conductor refuses any other. `rerun` and `retry` bring ended cases back.
_FORWARD = frozenset({CaseState.READY, CaseState.RUNNING, CaseState.WAITING, CaseState.HELD})
CASE_MOVES: dict[CaseState, frozenset[CaseState]] = {
    CaseState.SETTLING: frozenset({CaseState.READY, CaseState.HELD, CaseState.CANCELLED}),
    CaseState.READY: _FORWARD | ENDED,
    CaseState.RUNNING: _FORWARD | ENDED,
    CaseState.WAITING: _FORWARD | ENDED,
    CaseState.HELD: _FORWARD | ENDED,
    CaseState.DONE: _FORWARD,
    CaseState.CANCELLED: _FORWARD | {CaseState.SETTLING},  # a vanished directory may come again
}


class PartState(StrEnum):
    """Where one attempt of one part of a step stands."""

    QUEUED = "queued"  # its command is written; nobody has taken it yet
    WORKING = "working"  # a worker accepted it and renews its lease
    WAITING = "waiting"  # until `due_at`, a GPU, a host or a drain
    DONE = "done"
    FAILED = "failed"  # this attempt ended without success
    CANCELLED = "cancelled"


PART_LIVE = frozenset({PartState.QUEUED, PartState.WORKING, PartState.WAITING})


@dataclass(frozen=True)
class CaseRef:
    """A case as a stage sees it. `directory` is where its input lies on this machine."""

    key: str
    name: str
    revision: int
    source: str
    directory: Path
    fingerprint: str


def derive_key(source: str, name: str, revision: int, *, salt: str = "") -> str:
    """Compute a case's opaque key: `c` and 10 characters of [a-z2-7], the same on every machine with the same salt.

    Derived rather than drawn, so that a worker on another machine finds the directory again from the key alone,
    and a message never has to carry the name. Without a salt a name that can be guessed can be recognised.
    """
    text = "\0".join((source, name, str(revision)))
    digest = hmac.new(salt.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return "c" + base64.b32encode(digest[:7]).decode().lower()[:10]
