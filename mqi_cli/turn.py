"""One turn of a stage: the context it runs in, and what its end is reported as.

The same code serves the daemon's workers and the operator's hand; they differ in where reports go: over the broker, or
straight to the conductor.
"""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mqi_cli.case import CaseRef, derive_key
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.crash_points import crash_point
from mqi_cli.errors import GiveUp, HostError, HostFull, HostRefused, HostUnreachable, MqiError, RetryLater
from mqi_cli.host_pool import HostPool
from mqi_cli.hosts.base import Host
from mqi_cli.layout import RemoteLayout
from mqi_cli.message import MAX_FACTS_BYTES, MAX_PARTS, Command, Earlier, EventKind, Facts, GpuLease
from mqi_cli.plugins import Plugins
from mqi_cli.scheduler import Scheduler
from mqi_cli.stage import Done, Step, Wait, Workflow
from mqi_cli.step_digest import step_digest

log = logging.getLogger("mqi.stage")

PROGRESS_EVERY = 2.0  # seconds between two progress reports; each is a write to the state database
REFUSED_PAUSE = 300.0  # a host that refuses us needs a person; asking often gets an address banned (PerSourcePenalties)
MAX_TRACEBACK = 8000
MAX_DETAIL = 2000  # characters
MAX_NOTE = 120  # characters
RECENT = 60.0  # seconds
FORMER_REVISIONS = 3  # in which a stage may look for what did not change

Report = Callable[[EventKind, Facts], None]
Show = Callable[[float, float, str, str], None]


class OtherConfig(RetryLater):
    """This machine's config and the conductor's don't say the same of a step."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="give all machines the same workflows and key_salt, then restart the worker")


class Turn:
    """The context of one turn (`StageContext`), and its sign of life."""

    def __init__(
        self,
        command: Command,
        step: Step,
        *,
        config: Config,
        section: Any,
        plugin: str,
        workflow: Workflow,
        hosts: HostPool,
        report: Report,
        stopping: Callable[[], bool],
        clock: Clock,
        show: Show | None = None,
    ) -> None:
        self.config = section
        self.options = step.options
        self.log = logging.LoggerAdapter(log, {"case": command.case, "step": command.step})
        self.step = command.step
        self.part = command.part
        self.attempt = command.attempt
        self.turn = command.turn
        self.plan = command.plan
        self.workflow = workflow
        self.earlier: Sequence[Earlier] = command.earlier
        self.facts: Facts = dict(command.facts)
        self.gpus: Sequence[GpuLease] = command.gpus
        self.stage = step.stage
        self.case_key = command.case
        self.owner = command.owner
        self._host_name = step.host
        self._salt = config.key_salt
        self._data_dir = config.state_dir / "plugins" / plugin
        self._hosts = hosts
        self._report = report
        self._stopping = stopping
        self._clock = clock
        self._show = show
        self._lock = threading.Lock()
        self._progress: Facts = {}
        self._told: Facts = {}
        self._reported_at = self._sign_at = clock.elapsed()
        self._given_at = command.at or clock.now()

    @property
    def data_dir(self) -> Path:
        """Return the plugin's own directory on this machine."""
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._data_dir

    @property
    def host(self) -> Host:
        """Return the step's host, not yet connected."""
        return self._hosts.get(self._host_name)

    @property
    def scheduler(self) -> Scheduler:
        """Return how the step's host starts runs."""
        return self._hosts.scheduler(self._host_name)

    @property
    def layout(self) -> RemoteLayout:
        """Return where the case lies on the step's host."""
        return RemoteLayout(self.host.base_dir, self.case_key, self.owner)

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        """Return where the latest earlier revisions of the case lie, or lay, on the step's host, the newest first."""
        revisions = range(case.revision - 1, max(0, case.revision - 1 - FORMER_REVISIONS), -1) if case.name else ()
        keys = (derive_key(case.source, case.name, each, salt=self._salt) for each in revisions)
        return [RemoteLayout(self.host.base_dir, key, self.owner) for key in keys]

    @property
    def fence(self) -> str:
        """Return a name that no other turn of this part has."""
        return f"{self.attempt}-{self.turn}"

    @property
    def is_recent(self) -> bool:
        """Whether this turn was given within the last minute, by the wall clocks of the conductor and of this machine."""
        return abs(self._clock.now() - self._given_at) < RECENT

    def host_named(self, name: str) -> Host:
        """Return another host of the config."""
        return self._hosts.get(name)

    def remember(self, **facts: Any) -> None:
        """Keep facts for later turns and attempts; durable when it returns."""
        merged = {**self.facts, **facts}
        check_facts(merged)
        self._sign()
        self._report(EventKind.REMEMBERED, {"facts": facts})
        crash_point("worker.remembered")
        self.facts = merged

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        """Tell how far it is; reported now and then, shown at once."""
        if self._show:
            self._show(done, total, unit, detail)
        with self._lock:
            self._progress = {"done": done, "total": total, "unit": unit} | ({"note": note[:MAX_NOTE]} if note else {})
        self._sign()
        if self._clock.elapsed() - self._reported_at >= PROGRESS_EVERY:
            self.renew()

    def stopping(self) -> bool:
        """Whether the worker is asked to end."""
        self._sign()
        return self._stopping()

    def renew(self) -> None:
        """Renew the lease by a report of how far it is."""
        self._reported_at = self._clock.elapsed()
        with self._lock:
            data = self._told = dict(self._progress)
        self._report(EventKind.PROGRESS, data)

    def untold(self) -> Facts:
        """Return how far it is where no report has said it yet: a turn that ends at once says it at its end."""
        with self._lock:
            return {"progress": dict(self._progress)} if self._progress != self._told else {}

    def renew_if_alive(self, *, every: float) -> None:
        """Renew the lease when the last report is older than `every` seconds and the stage gave a sign within its `stall`."""
        now = self._clock.elapsed()
        if now - self._reported_at >= every and now - self._sign_at <= self.stage.stall:
            self.renew()

    def _sign(self) -> None:
        self._sign_at = self._clock.elapsed()


def check_facts(facts: Mapping[str, Any]) -> None:
    """Raise `ValueError` for facts that a message can't carry."""
    size = len(json.dumps(facts, allow_nan=False))
    if size > MAX_FACTS_BYTES:
        raise ValueError(f"the facts take {size} bytes, the limit is {MAX_FACTS_BYTES}")


def check_count(parts: object) -> None:
    """Raise `ValueError` for what is not the number of parts that a step may fan out into."""
    if not isinstance(parts, int) or not 1 <= parts <= MAX_PARTS:
        raise ValueError(f"a step fans out into 1 to {MAX_PARTS} parts")


def make_turn(
    command: Command,
    *,
    config: Config,
    plugins: Plugins,
    hosts: HostPool,
    report: Report,
    stopping: Callable[[], bool],
    clock: Clock,
    show: Show | None = None,
) -> Turn:
    """Look a command's workflow and step up in this machine's own config. Raises `OtherConfig` when it says otherwise."""
    workflow = config.workflows.get(command.workflow)
    step = workflow.step(command.step) if workflow else None
    if workflow is None or step is None:
        raise OtherConfig(f"its config has no step {command.step} in a workflow {command.workflow}")
    if command.digest not in ("", step_digest(step, salt=config.key_salt)):
        raise OtherConfig(
            f"its config says otherwise of step {command.step} in workflow {command.workflow} than the conductor's"
        )
    section_name = plugins.section_of(step.stage)
    return Turn(
        command,
        step,
        config=config,
        section=config.sections.get(section_name),
        plugin=plugins.owner_of("stage", step.stage.name),
        workflow=workflow,
        hosts=hosts,
        report=report,
        stopping=stopping,
        clock=clock,
        show=show,
    )


def run_turn(case: CaseRef, turn: Turn, *, cancel: bool = False) -> tuple[EventKind, Facts, MqiError | None]:
    """Call the stage and say what its end is: the kind of event, its data, and the error behind it, if any."""
    try:
        function = turn.stage.cancel if cancel else turn.stage.plan if turn.plan else turn.stage.run
        if function is None:
            raise GiveUp(f"stage {turn.stage.name} has nothing to {'cancel' if cancel else 'list'}")
        outcome = function(case, turn)
        if isinstance(outcome, Wait):
            return EventKind.WAIT, {"seconds": float(outcome.seconds), "note": outcome.note, **turn.untold()}, None
        if not isinstance(outcome, Done):
            raise TypeError(f"stage {turn.stage.name} returned {type(outcome).__name__}, not Done or Wait")
        check_facts(outcome.facts)
        if turn.plan:
            check_count(outcome.facts.get("parts"))
        if cancel:
            return EventKind.CANCELLED, {"note": "ended on its host"}, None
        return EventKind.DONE, {"facts": dict(outcome.facts)}, None
    except HostError as error:
        return _host_end(error)
    except RetryLater as error:
        data: Facts = {"reason": error.message, "hint": error.hint, "after": error.after, "host": ""}
        return EventKind.RETRY, {**data, **_detail(error)}, error
    except MqiError as error:
        return EventKind.GAVE_UP, {"reason": error.message, "hint": error.hint} | _detail(error), error
    except Exception as error:  # noqa: BLE001  a bug in one stage holds one case; the others go on
        return EventKind.BUG, _bug(error), None


def _detail(error: MqiError) -> dict[str, str]:
    return {"detail": error.detail[:MAX_DETAIL]} if error.detail else {}


def _host_end(error: HostError) -> tuple[EventKind, Facts, MqiError]:
    data: dict[str, Any] = {"reason": error.message, "hint": error.hint, "after": None, "host": ""}
    if isinstance(error, HostUnreachable | HostFull | HostRefused):  # the host pauses, and its name is said beside this
        data |= {"host": error.host, "reason": error.what, "hint": error.hint or f"mqi host test {error.host}"}
    if isinstance(error, HostFull):
        data["full"] = True  # that it answers will not mean that there is room
    if isinstance(error, HostRefused):
        data["after"] = REFUSED_PAUSE
    return EventKind.RETRY, data, error


def _bug(error: Exception) -> Facts:
    # The message of a foreign exception may hold a path or a name: the type and where it happened are what may travel.
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    text = "".join(frames) + type(error).__name__
    return {"reason": type(error).__name__, "traceback": text[-MAX_TRACEBACK:]}
