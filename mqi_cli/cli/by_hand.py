"""Runs one step in the foreground: the worker's work with the conductor in the same process, and no broker between."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mqi_cli.claims import NoFreeGpu
from mqi_cli.cli.interruption import Interruption
from mqi_cli.cli.progress import Show, progress
from mqi_cli.errors import CaseError, GiveUp, MqiError, RetryLater, UsageError
from mqi_cli.message import Command, Event, EventKind, Facts, event_id
from mqi_cli.quantity import counted
from mqi_cli.store.records import CaseRow
from mqi_cli.turn import Turn, make_turn, run_turn

if TYPE_CHECKING:
    from mqi_cli.cli.operator import Operator


class ByHand:
    """One step of one case in the operator's own hands."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._worker = operator.hand()
        self._numbers: Counter[EventKind] = Counter()
        self._claimed: Command | None = None

    def perform(self, stage: str, row: CaseRow, *, step: str, part: str, overrides: Mapping[str, Any]) -> Facts:
        """Claim the step, work on it to its end, report; see `Operator.perform`."""
        named, done, failed = bool(part), 0, dict[str, MqiError]()
        while True:
            try:
                command, facts = self._perform(stage, row, step=step, part=part, overrides=overrides)
            except (GiveUp, RetryLater) as error:
                if self._claimed is None or named or not self._claimed.part:
                    raise
                command, facts = self._claimed, {}
                failed[command.part] = error  # the other parts are none the worse for it
            step = command.step  # the case stands at the next one once this is done
            if command.plan:
                continue
            if named or not command.part:
                return facts
            done += command.part not in failed
            left = [name for name in self._operator.claims.unfinished(row.id, step) if name not in failed]
            if not left:
                break
            part = left[0]
        for name, problem in failed.items():
            many = f"{counted(len(failed), 'part')} failed; " if len(failed) > 1 else ""
            raise CaseError(f"{many}part {name}: {problem.message}", hint=problem.hint)
        return {"parts": done}

    def _perform(
        self, stage: str, row: CaseRow, *, step: str, part: str, overrides: Mapping[str, Any]
    ) -> tuple[Command, Facts]:
        self._numbers.clear()
        self._claimed = None
        self._claimed = command = self._claim(stage, row, step=step, part=part)
        with Interruption() as stop, progress(command.step) as show:
            kind, data, error = self._work(command, row, stop, show, overrides)
        self._report(command, kind, data)
        if kind is EventKind.DONE:
            return command, data["facts"]
        if kind is EventKind.WAIT:
            raise CaseError(
                f"stopped: {command.step} is not finished ({data['note']})",
                hint="the same command, or the daemon, goes on with it",
            )
        if kind is EventKind.BUG:
            raise CaseError(f"a bug in stage {command.step}: {data['reason']}", hint=f"mqi case log {row.key} --detail")
        assert error is not None  # noqa: S101  every other end has its error
        raise error

    def _claim(self, stage: str, row: CaseRow, *, step: str, part: str) -> Command:
        operator = self._operator

        def claim() -> Command:
            running = operator.daemon_pid is not None
            command: Command = operator.claims.claim(
                row.id, stage, step=step, part=part, worker=self._worker, daemon_running=running
            )
            return command

        try:
            return claim()
        except NoFreeGpu as lack:  # without a daemon nobody has looked, or not of late
            if "hosts" not in operator.plugins.patrols:
                raise
            operator.patrol("hosts", host=lack.host)
        return claim()

    def _work(
        self, command: Command, row: CaseRow, stop: threading.Event, show: Show, overrides: Mapping[str, Any]
    ) -> tuple[EventKind, Facts, MqiError | None]:
        while True:
            turn = self._turn(command, stop, show, overrides)
            with self._renewing(turn):
                kind, data, error = run_turn(row.ref, turn)
                if kind is not EventKind.WAIT or stop.is_set():
                    return kind, data, error
                if "progress" in data:
                    turn.renew()  # who watches from elsewhere sees it too
                far = data.get("progress") or {"done": 0, "total": 0, "unit": str(data["note"])}
                show(far["done"], far["total"], far["unit"], str(data["note"]))
                stop.wait(float(data["seconds"]))
                if stop.is_set():
                    return kind, data, error
            command = dataclasses.replace(command, facts=turn.facts)

    def _turn(self, command: Command, stop: threading.Event, show: Show, overrides: Mapping[str, Any]) -> Turn:
        operator = self._operator
        turn = make_turn(
            command,
            config=operator.config,
            plugins=operator.plugins,
            hosts=operator._hosts,
            report=lambda kind, data: self._report(command, kind, data),
            stopping=stop.is_set,
            clock=operator.clock,
            show=show,
        )
        if overrides:
            unknown = set(overrides) - set(type(turn.options).model_fields)
            if unknown:
                raise UsageError(f"step {command.step} has no option {', '.join(sorted(unknown))}")
            turn.options = turn.options.model_copy(update=dict(overrides))
        return turn

    def _report(self, command: Command, kind: EventKind, data: Facts) -> None:
        self._numbers[kind] += 1
        operator = self._operator
        event = _event(command, kind, self._numbers[kind], data, worker=self._worker, at=operator.clock.now())
        if not operator.conductor.apply(event) and kind is not EventKind.PROGRESS:
            what = "ended by an operator" if operator.claims.is_ended(command) else "taken over"
            raise CaseError(f"{command.step} of this case was {what} meanwhile", hint=f"mqi case why {command.case}")

    @contextlib.contextmanager
    def _renewing(self, turn: Turn) -> Iterator[None]:
        """Renew the lease while the stage works and waits."""
        ended = threading.Event()
        every = self._operator.config.daemon.lease / 3

        def renew() -> None:
            try:
                while not ended.wait(min(1.0, every / 4)):
                    turn.renew_if_alive(every=every)
            finally:
                self._operator.store.close()  # this thread's own connection

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _event(command: Command, kind: EventKind, number: int, data: Facts, *, worker: str, at: float) -> Event:
    """Make the event that a worker would send."""
    return Event(
        event_id(command.id, kind, number),
        kind,
        worker,
        at,
        command.case,
        command.step,
        command.part,
        command.attempt,
        command.turn,
        data,
    )
