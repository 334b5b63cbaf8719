"""What a plugin author writes and gets for a stage: `Stage`, its four ends, and the context it runs in.

A stage is a function `run(case, ctx)`. It ends by returning `Done(facts)` or `Wait(seconds, note)`, or by raising
`RetryLater` or `GiveUp`; a `HostError` pauses the host or backs off by its class; anything else is a bug and holds the
case. It may be called again at any time for the same attempt (another turn: after a `Wait`, after its worker died), so
each step it takes first asks "is this done already?".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict
from pydantic import Field as SectionField

from mqi_cli.case import CaseRef
from mqi_cli.hosts.base import Host
from mqi_cli.layout import RemoteLayout
from mqi_cli.message import Earlier, Facts, GpuLease
from mqi_cli.scheduler import Scheduler


class Section(BaseModel):
    """The base of every typed section of the config: unknown keys are refused, values can't be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class StepOptions(Section):
    """The options that every step takes. A stage's own options model derives from it.

    The core reads these where a stage's model adds them: `host: str`, `gpus: int`, `for_each` (anything but None: the
    step fans out; the stage then has `plan`).
    """

    name: str = SectionField("", description="Names the step; default: the stage's name.")
    attempts: int | None = SectionField(None, ge=1, le=1000, description="Tries before the case is held.")


@dataclass(frozen=True)
class Done:
    """The part is finished. `facts` are kept with it for later steps; at most 4 KiB of JSON, no names, no paths."""

    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Not finished: call again in `seconds`. Uses up no try. `note` says in a few words what it waits for."""

    seconds: float
    note: str


@dataclass(frozen=True)
class Step:
    """One entry of a workflow, checked: its name, its stage, and the options in the stage's own model."""

    name: str
    stage: Stage
    options: StepOptions

    @property
    def host(self) -> str:
        """The host it works on; empty where the stage needs none."""
        return getattr(self.options, "host", "") or ""

    @property
    def gpus(self) -> int:
        """How many GPUs each of its parts asks for."""
        return int(getattr(self.options, "gpus", 0) or 0)

    @property
    def fans_out(self) -> bool:
        """Whether it has parts, which its stage lists when it begins."""
        return self.stage.plan is not None and getattr(self.options, "for_each", None) is not None

    @property
    def attempts(self) -> int:
        """How many tries a part has before the case is held."""
        return self.options.attempts or self.stage.attempts


@dataclass(frozen=True)
class Workflow:
    """An ordered list of steps. Their names are unique."""

    name: str
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step | None:
        """Return the step of that name."""
        return next((each for each in self.steps if each.name == name), None)

    def after(self, name: str) -> Step | None:
        """Return the step that follows; None after the last."""
        names = [each.name for each in self.steps]
        position = names.index(name) + 1
        return self.steps[position] if position < len(self.steps) else None


class StageContext(Protocol):
    """What a stage is given. One object a turn."""

    config: Any  # the plugin's own section, in its own model
    options: Any  # the step's options, in the stage's own model
    log: logging.LoggerAdapter[logging.Logger]  # prefixed with the case's key and the step
    step: str
    part: str
    attempt: int
    turn: int
    owner: str  # this installation's mark in the names of its directories on hosts
    workflow: Workflow  # all steps, to look up another one's options
    # What the finished parts of earlier steps reported, step by step in their order, and the plan of this one. Where that
    # is too much for a message, the facts of a step's parts are empty but for the part of the same number.
    earlier: Sequence[Earlier]
    facts: Facts  # what this part remembered in earlier turns and attempts
    gpus: Sequence[GpuLease]

    @property
    def data_dir(self) -> Path:
        """The plugin's own directory on this machine; made when first asked for."""

    @property
    def host(self) -> Host:
        """The step's host. Connects when first used, not here."""

    @property
    def scheduler(self) -> Scheduler:
        """How the step's host starts runs. Raises `RetryLater` where no plugin of this machine brings it."""

    @property
    def layout(self) -> RemoteLayout:
        """Where this case lies on the step's host. May connect, to learn the base directory."""

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        """Where the latest earlier revisions of the case lie, or lay, on the step's host, the newest first."""

    @property
    def fence(self) -> str:
        """Return `<attempt>-<turn>`, different for each call of this part: a name nobody else uses."""

    @property
    def is_recent(self) -> bool:
        """Whether this turn was given within the last minute.

        A command may lie in a queue, and a worker stand still, while an operator cancels the case and begins it anew. A
        stage that takes something away for good asks just before, and where it is not recent returns `Wait(0, …)`: the
        next turn comes only if it is still wanted. Where clocks differ it never is: ask a few times only.
        """

    def host_named(self, name: str) -> Host:
        """Return another host of the config."""

    def remember(self, **facts: Any) -> None:
        """Keep facts for later turns and attempts; durable when it returns. Same limits as `Done.facts`."""

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        """Tell how far it is; call it as often as is convenient. Shows that the work is alive, which renews its lease.

        `detail` (the current file) is shown on the operator's terminal only and never leaves the process. `note`, a few
        words without names (how many files, how fast), stands as the case's reason wherever that is told.
        """

    def stopping(self) -> bool:
        """Whether the worker is asked to end: bring the turn to a point where it can go on later, and return `Wait(0, …)`."""


StageFunction = Callable[[CaseRef, StageContext], "Done | Wait"]


@dataclass(frozen=True)
class Stage:
    """A kind of work that a plugin can do.

    `lane` is the queue that its commands go to, by default one for each plugin. `cancel` ends what `run` has started
    outside the worker and returns `Done` once that is proven; stages that leave nothing running need none. `job`
    marks stages whose parts count against the host's `limits.jobs`. `check` sees the whole workflow and the step's
    place in it, and returns one sentence a problem. `plan` lists the parts of a step that fans out: `Done` with
    `parts`, their number from 1 to 500; they are then called "1", "2" and so on. What stands behind each is the stage's
    own business: it may hold names, which no message may carry. `stall` is how long a turn may go without a sign (seconds): then its lease is let go.
    `alone` marks stages that take away what other steps work on: no turn of theirs begins while another step of the case
    goes on, or may, and no other step's while they are at work. They can't be a `job`.
    """

    name: str
    run: StageFunction
    lane: str
    options: type[StepOptions] = StepOptions
    summary: str = ""
    attempts: int = 5
    cancel: StageFunction | None = None
    plan: StageFunction | None = None
    job: bool = False
    check: Callable[[Sequence[Step], int, Mapping[str, Any]], Sequence[str]] | None = (
        None  # steps, index, hosts' configs
    )
    stall: float = 600.0
    alone: bool = False
    local: bool = True  # needs the case's name or directory on the worker's machine; False: its key is enough
