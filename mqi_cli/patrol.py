"""What a plugin author writes and gets for periodic work: `Patrol`, its findings and its context.

A patrol looks at the world and reports findings; the core applies them. It runs in its lane's process on the machine
that has the state database, every `interval` seconds, and by hand with the same code. It changes no case by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mqi_cli.case import CaseState
from mqi_cli.clock import Clock
from mqi_cli.fetched import Finished
from mqi_cli.hosts.base import Host
from mqi_cli.message import Facts
from mqi_cli.stage import Workflow


@dataclass(frozen=True)
class CaseSeen:
    """A case directory as it is now. With `manifest_*` set it is complete and may be accepted; else it settles.

    `snapshot` tells two looks apart; `note` says what is still missing ("quiet for 12 of 30 s", "no marker yet").
    `problem` is set for a directory that can't be a case until somebody changes it (a link in it, say).
    """

    source: str
    name: str
    directory: Path
    snapshot: str
    note: str = ""
    problem: str = ""
    fingerprint: str = ""
    files: int = 0
    size: int = 0


@dataclass(frozen=True)
class CaseVanished:
    """A directory that was settling is no longer there."""

    source: str
    name: str


@dataclass(frozen=True)
class HostSeen:
    """A host's state. `reachable` False brings `problem`; the rest is None where the host does not tell."""

    host: str
    reachable: bool
    problem: str = ""
    load: float | None = None  # one-minute load average
    cores: int | None = None
    free_bytes: int | None = None  # below base_dir
    total_bytes: int | None = None


@dataclass(frozen=True)
class GpuSeen:
    """One GPU of a host. Memory in MiB, utilisation in percent, temperature in °C; None where the driver says `[N/A]`.

    `processes` are the process ids of all that compute on it, `foreign` those among them that are surely of no run of ours.
    """

    uuid: str
    index: int
    name: str = ""
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    processes: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()


@dataclass(frozen=True)
class GpusSeen:
    """All GPUs of a host at one look that may be given to runs; `problem` is set when the look itself failed.

    `unusable` are the UUIDs of those that are there and may not. One that is in neither is gone, which is an alert.
    """

    host: str
    gpus: tuple[GpuSeen, ...]
    problem: str = ""
    unusable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alert:
    """Something a person should know. Raised once for each `topic`, and once more when `active` is False (all clear).

    A topic about a source or a host is `source:<name>` or `<what>:<host>`: it is cleared when the config loses that one.
    """

    topic: str
    active: bool
    text: str
    hint: str = ""


@dataclass(frozen=True)
class CaseCleared:
    """The case's remote directory on `host` is gone, as it should be."""

    key: str
    host: str


Finding = CaseSeen | CaseVanished | HostSeen | GpusSeen | Alert | CaseCleared


@dataclass(frozen=True)
class SourceView:
    """A source as a patrol sees it. `complete_when` is the config's own model."""

    name: str
    path: Path
    depth: int
    complete_when: Any
    workflow: str


@dataclass(frozen=True)
class KnownCase:
    """What the state database knows of the newest revision of a name below a source.

    `snapshot` is that of the last look, `accepted` the one that was last proven to have this fingerprint (empty before
    the case is accepted): they differ while a change to an accepted case settles, over restarts too.
    """

    key: str
    name: str
    revision: int
    state: CaseState
    snapshot: str
    fingerprint: str
    unchanged_for: float  # seconds since this snapshot was first seen, by our own clock; 0 after a reboot
    accepted: str = ""


@dataclass(frozen=True)
class CaseView:
    """A case as patrols and commands see it. Times are wall seconds; `facts` maps (step, part) to what it reported.

    `finished` are the attempts that finished its parts; `alive` names the parts that go on, or may.
    """

    key: str
    name: str
    revision: int
    source: str
    workflow: str
    directory: Path
    fingerprint: str
    state: CaseState
    step: str
    created_at: float
    ended_at: float | None
    cleared: frozenset[str] = frozenset()  # hosts on which nothing of it is left
    facts: Mapping[tuple[str, str], Facts] = field(default_factory=dict)
    finished: Sequence[Finished] = ()
    alive: Sequence[str] = ()


class PatrolContext(Protocol):
    """What a patrol is given. One object a round."""

    config: Any  # the plugin's own section, in its own model
    log: logging.LoggerAdapter[logging.Logger]
    clock: Clock
    sources: Sequence[SourceView]
    hosts: Sequence[str]
    workflows: Mapping[str, Workflow]
    owner: str  # this installation's mark in the names of its directories on hosts

    @property
    def data_dir(self) -> Path:
        """The plugin's own directory on this machine; made when first asked for."""

    def host(self, name: str) -> Host:
        """Return a host of the config."""

    def known(self, source: str, names: Iterable[str]) -> Mapping[str, KnownCase]:
        """Return what is known of these names below a source; nothing for a name that was never reported."""

    def settling(self, source: str) -> Sequence[str]:
        """Return the names below a source that were reported and are not complete."""

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        """Return the cases in these states (all, without any), oldest first."""

    def case(self, key: str) -> CaseView | None:
        """Return the case with this key; None when there is none."""

    def report(self, finding: Finding) -> None:
        """Apply a finding; durable when it returns."""

    def backup_state(self, directory: Path, *, keep: int) -> Path:
        """Write a checked copy of the state database into `directory`, keep the newest `keep`, return its path."""

    def stopping(self) -> bool:
        """Whether the process is asked to end: return soon."""


@dataclass(frozen=True)
class Patrol:
    """A plugin's periodic work. `interval` takes the plugin's config section and gives seconds; 0 switches it off."""

    name: str
    run: Callable[[PatrolContext], None]
    interval: Callable[[Any], float]
    lane: str
    summary: str = ""
