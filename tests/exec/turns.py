"""A case, a host and the turns of a step `run`, as workers would give them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exec.far_side import processes_below
from mqi_cli import (
    CaseRef,
    Done,
    Earlier,
    GpuLease,
    Host,
    RemoteLayout,
    Scheduler,
    Stage,
    Step,
    StepOptions,
    Wait,
    Workflow,
)
from mqi_ssh_exec.direct import Direct
from mqi_ssh_exec.options import RunOptions, SshExecSection
from mqi_ssh_exec.plugin import mqi_stages
from mqi_ssh_exec.run import job_of

KEY = "cabcdefghij"
RUN = mqi_stages()[0]


def not_called(case: CaseRef, ctx: Any) -> Done:
    """Stand for a stage that these tests never call."""
    raise AssertionError("only the stage run is tested here")


UPLOAD = Stage("upload", not_called, "sftp", StepOptions)


class Context:
    """A turn of a step `run`."""

    def __init__(self, bench: Bench, options: RunOptions, *, attempt: int, part: str) -> None:
        self.config = bench.section
        self.options = options
        self.log = logging.LoggerAdapter(logging.getLogger("mqi.stage"), {})
        self.step = options.name
        self.part = part
        self.attempt = attempt
        self.turn = 1
        self.owner = ""
        self.workflow = Workflow("qa", (Step(options.name, RUN, options),))
        self.earlier: Sequence[Earlier] = ()
        self.facts: dict[str, Any] = {}
        self.gpus: Sequence[GpuLease] = ()
        self.data_dir = bench.directory / "data"
        self.host = bench.host
        self.scheduler = bench.scheduler

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        return ()

    @property
    def layout(self) -> RemoteLayout:
        return RemoteLayout(self.host.base_dir, KEY)

    @property
    def fence(self) -> str:
        return f"{self.attempt}-{self.turn}"

    def host_named(self, name: str) -> Host:
        raise AssertionError("a run works on its own host only")

    def remember(self, **facts: Any) -> None:
        self.facts |= facts

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        pass

    def stopping(self) -> bool:
        return False


class Bench:
    """A case on a host."""

    def __init__(self, directory: Path, host: Host, scheduler: Scheduler | None = None) -> None:
        self.directory = directory
        self.scheduler = scheduler or Direct()
        self.host = host
        self.far = directory / "far"
        self.ledger = directory / "ledger"
        self.section = SshExecSection(poll=0.1, kill_after=1.0)
        self.case = CaseRef(KEY, "Meier_Anna", 1, "incoming", directory / "case", "f" * 64)

    def context(self, command: str, *, attempt: int = 1, part: str = "", **options: Any) -> Context:
        options.setdefault("name", "simulate")
        return Context(self, RunOptions(host="far", command=command, **options), attempt=attempt, part=part)

    def work(self, ctx: Context) -> Path:
        return Path(ctx.layout.work(ctx.step, ctx.part, ctx.attempt))

    def turn(self, ctx: Context, *, cancel: bool = False) -> Done | Wait:
        """Give one turn."""
        function = RUN.cancel if cancel else RUN.run
        assert function
        outcome = function(self.case, ctx)  # type: ignore[arg-type]
        ctx.turn += 1
        return outcome

    def look_again(self, ctx: Context) -> None:
        """Let the next turn ask the host, however fresh what is known may be."""
        job = self.job(ctx)
        job.lookout.forget(job.place)

    def drive(self, ctx: Context, *, cancel: bool = False, within: float = 30.0) -> tuple[Done, list[Wait]]:
        """Give turns until it is done; return that and what it waited for before. Raises what the stage raises."""
        waits: list[Wait] = []
        end = time.monotonic() + within
        while True:
            outcome = self.turn(ctx, cancel=cancel)
            if isinstance(outcome, Done):
                return outcome, waits
            waits.append(outcome)
            assert time.monotonic() < end, f"not done within {within} s: {outcome.note}"
            time.sleep(min(outcome.seconds, 0.1))

    def drive_once(self, ctx: Context) -> Wait:
        """Give one turn that must not end it."""
        outcome = self.turn(ctx)
        assert isinstance(outcome, Wait)
        return outcome

    def run(self, command: str, **options: Any) -> Done:
        """Run a command to its end."""
        return self.drive(self.context(command, **options))[0]

    def job(self, ctx: Context) -> Any:
        return job_of(ctx)  # type: ignore[arg-type]

    def log(self, ctx: Context) -> str:
        """Return what the run has written."""
        data: bytes = self.job(ctx).log(0, size=1 << 20).data
        return data.decode()

    def living(self) -> list[int]:
        """Return the processes that belong to runs on this host."""
        return processes_below(self.far)

    def end_all(self) -> None:
        """End by force what a test has left."""
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
