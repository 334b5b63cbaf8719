"""Which processes the daemon runs, and where each may stand: made from a checked config, compared at a reload."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # who only looks at the daemon's status does without the config's models
    from mqi_cli.config.loaded import Config
    from mqi_cli.config.model import LogSection

CONDUCTOR = "conductor"
_PROGRAM = (sys.executable, "-m", "mqi_cli")


@dataclass(frozen=True)
class ChildSpec:
    """A process that is to run for as long as the daemon does."""

    name: str
    argv: tuple[str, ...]
    memory_limit: int | None = None  # bytes of resident memory; beyond them it is replaced
    beat_limit: float = 60.0  # seconds without a sign of life before it counts as hung
    last: bool = False  # stopped when the others are gone, because they report to it
    settings: Any = field(
        default=None, repr=False
    )  # what else it was started with: another value is a reason to replace

    @property
    def arguments(self) -> tuple[str, ...] | None:
        """What this program itself is called with; None where another one is."""
        begin = len(_PROGRAM)
        return self.argv[begin:] if self.argv[:begin] == _PROGRAM else None

    def same_process(self, other: ChildSpec) -> bool:
        """Whether a process that was started for one can go on for the other."""
        return (self.argv, self.settings) == (other.argv, other.settings)


class ChildState(StrEnum):
    """Where a child stands."""

    STARTING = "starting"  # runs, and has given no sign of life yet
    RUNNING = "running"
    STOPPING = "stopping"  # asked to end
    BACKING_OFF = "backing off"  # ended by itself, will be started again soon
    FATAL = "fatal"  # ends again and again; tried now and then
    REFUSED = "refused"  # says that its config is wrong; not tried again before a reload
    STOPPED = "stopped"


ALIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})
BROKEN = frozenset({ChildState.BACKING_OFF, ChildState.FATAL, ChildState.REFUSED})


@dataclass(frozen=True)
class Plan:
    """What the supervisor is to run."""

    children: tuple[ChildSpec, ...]
    log: LogSection
    stop_within: float  # seconds
    config_file: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


def program(config: Config) -> list[str]:
    """Return the command that calls mqi with this config, from whichever directory it is called."""
    return [*_PROGRAM, *(["--config", str(config.file.absolute())] if config.file else [])]


def plan_for(config: Config, lanes: Sequence[str]) -> Plan:
    """Return the conductor and the workers of each lane. The first worker of a lane also makes the lane's rounds.

    Each is the program itself with a command that a person could type: what the daemon does can be done by hand.
    """
    from mqi_cli.logs import config_secrets

    # A change elsewhere than in a lane's own section concerns every process; where in the file a value stands, none.
    common = replace(config, workers={}, origins={}, warnings=())
    command = program(config)
    children = [ChildSpec(CONDUCTOR, (*command, "conductor", "run"), last=True, settings=common)]
    for lane in lanes:
        section = config.lane(lane)
        for number in range(1, section.processes + 1):
            argv = (*command, "worker", "run", lane, *(["--patrols"] if number == 1 else []))
            settings = (common, section.threads)
            children.append(ChildSpec(f"{lane}-{number}", argv, memory_limit=section.memory, settings=settings))
    return Plan(
        tuple(children),
        log=config.daemon.log,
        stop_within=config.daemon.stop_within,
        config_file=str(config.file.absolute()) if config.file else None,
        secrets=tuple(config_secrets(config)),
    )
