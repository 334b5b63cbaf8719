"""The scheduler contract: how runs are given to a host's queue, looked up in it and taken out of it.

A scheduler makes no call by itself: it builds program calls for the host and reads what they print, so that both can be
tested on captured text. Whatever a queue says, a run's own records on the host prove how it ended; the queue is asked
where they are silent: not begun yet, or begun on a machine that can't be looked at from the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

from mqi_cli.hosts.base import Completed


@dataclass(frozen=True)
class Call:
    """One program call on a host. `timeout` in seconds."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    timeout: float = 60.0


@dataclass(frozen=True)
class Resources:
    """What a run asks its queue for; None and "" leave it to the queue. `memory` in bytes, `time_limit` in seconds."""

    gpus: int = 0
    cpus: int | None = None
    memory: int | None = None
    time_limit: int | None = None
    partition: str = ""
    account: str = ""
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """One run for a queue. `tag` names it there: unique, found again by it, without a case's name. `log` takes the queue's own words."""

    tag: str
    command: str
    log: PurePosixPath
    resources: Resources = field(default_factory=Resources)


class QueueState(StrEnum):
    """What a queue says of a run. Each scheduler maps its own words to these, one by one."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # by itself: its own record tells how
    CANCELLED = "cancelled"  # somebody took it out of the queue
    TIMEOUT = "timeout"  # the queue's own time limit
    MEMORY = "memory"  # it took more memory than it had asked for
    NODE = "node"  # the machine it was on failed
    PREEMPTED = "preempted"  # something more urgent took its place
    REQUEUED = "requeued"  # it was put back and would begin anew, which only a new attempt may


@dataclass(frozen=True)
class Queued:
    """A run as its queue sees it. `word` is the queue's own for the state, `reason` why it is not running yet."""

    id: str
    tag: str
    state: QueueState
    word: str = ""
    reason: str = ""
    node: str = ""


class Refusal(StrEnum):
    """Why a queue did not take a run."""

    NEVER = "never"  # it asks for what there is not: a person must act
    LATER = "later"  # nothing was taken; the same may go well in a while
    UNKNOWN = "unknown"  # it may have been taken all the same: it must be looked up


@runtime_checkable
class Scheduler(Protocol):
    """One way of starting runs, chosen by a host's `scheduler`."""

    name: str

    def launch(self, batch: Batch) -> tuple[str, ...] | None:
        """Return the program that puts a batch script into the queue; the script's path is added to it as last argument.

        It prints the id that the queue gave. None: there is no queue, the run is started on the host itself.
        """

    def script(self, batch: Batch) -> bytes:
        """Return the batch script: what the queue must be told in it, then the run's command."""

    def read_id(self, text: str) -> str:
        """Return the id from what `launch` printed; empty when there is none in it."""

    def refusal(self, text: str) -> Refusal:
        """Judge what `launch` wrote when it failed."""

    def look(self) -> Call:
        """Ask the queue for all runs of this account."""

    def read_look(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Return the runs by their tags. None when the queue gave no answer: then nothing is known of any."""

    def look_back(self, tags: Sequence[str]) -> Call | None:
        """Ask the records of the past for runs that the queue has forgotten. None where there is nothing to ask."""

    def read_look_back(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Return the runs by their tags. None when there is no such record here."""

    def look_at_node(self, node: str) -> Call | None:
        """Ask whether a machine answers to the scheduler. None where it can't be asked."""

    def node_answers(self, completed: Completed) -> bool:
        """Whether it does: then nothing lives there of runs that the scheduler calls ended. A failed node proves nothing."""

    def read_log(self, text: str) -> QueueState | None:
        """Return how a run ended by what the queue wrote into the run's `log`; None where that does not tell."""

    def cancel(self, queued: Sequence[Queued], *, force: bool) -> Call:
        """Take runs out of the queue; one that runs is asked to end in order, with `force` it is ended with all it started."""
