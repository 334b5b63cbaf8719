"""THE place where a case changes. Each event is applied whole or not at all: inbox + move + outbox in one transaction.

    source ── scanner ──> accept() ── first step ──> outbox ──> broker ──> worker
                                                                              │ accepted, progress, …
    done <── last step <── next step <── apply(event) <───────── broker <─────┘

`accept` takes a complete directory in and begins its first step. A worker answers each command with events; `apply`
drops what it has seen before (inbox) or what is of an older attempt or turn (fence), else moves the part and its case
and writes the next command. `clockwork.py` calls in when a time has come, `acts.py` when an operator acts, `intake.py`
when a patrol has seen something; they all move cases by the functions of `moves.py` and `dispatch.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Any

from mqi_cli.case import PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.crash_points import crash_point
from mqi_cli.errors import CaseError, MqiError
from mqi_cli.message import ABOUT_WORKERS, TURN_ENDS, Event, EventKind, Facts
from mqi_cli.moves import Moves
from mqi_cli.retry import backoff
from mqi_cli.store import Store
from mqi_cli.store.records import CaseRow, PartRow

log = logging.getLogger("mqi.conductor")

WORKER = "worker:"  # begins the topic of an alert about the workers of a lane on a machine


class UnknownCase(CaseError):
    """An event speaks of a case that the state database does not know."""


class Conductor(Moves):
    """Applies events. One process does it for the daemon; a foreground command does the same with the same code."""

    def __init__(
        self, store: Store, config: Config, *, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        super().__init__(store, config, clock=clock, random=random)
        self._handlers = {
            EventKind.ACCEPTED: self._accepted,
            EventKind.PROGRESS: self._progress,
            EventKind.REMEMBERED: self._remembered,
            EventKind.DONE: self._done,
            EventKind.WAIT: self._wait,
            EventKind.RETRY: self._retry,
            EventKind.GAVE_UP: self._gave_up,
            EventKind.BUG: self._bug,
            EventKind.CANCELLED: self._cancelled,
        }

    def apply_all(self, events: Sequence[Event]) -> list[str]:
        """Apply events in order, durable together; return for each what is wrong with it, mostly nothing.

        Each is still applied whole or not at all: they only share the cost of making it durable. Raises `StateError`.
        """
        problems: list[str] = []
        with self.store.transaction():
            for event in events:
                try:
                    self.apply(event)
                    problems.append("")
                except UnknownCase as problem:
                    problems.append(problem.message)
                except MqiError:
                    raise
                except Exception as bug:  # one event that can't be applied must not take the others with it
                    log.exception(
                        "a bug: the %s of %s is not applied", event.kind, event.step, extra={"case": event.case}
                    )
                    problems.append(f"a bug in the conductor: {type(bug).__name__}")
        return problems

    def apply(self, event: Event) -> bool:
        """Apply an event; False when it changed nothing (seen before, or of an older turn).

        Raises `UnknownCase`, and `StateError` when the database can't be written: then the event must come again.
        """
        with self.store.transaction():
            if event.kind in ABOUT_WORKERS:
                return self._about_worker(event)
            case = self.store.cases.by_key(event.case)
            if case is None:
                raise UnknownCase(f"no case has the key {event.case}")
            # progress is repeated all the time and only ever says how far it is: the fence is enough for it
            if event.kind is not EventKind.PROGRESS and not self.store.messages.take_in(event.id, now=self.clock.now()):
                return False
            part = self.store.parts.latest(case.id, event.step, event.part)
            if part is None or not self._is_of_now(part, event):
                log.info("a late %s of attempt %d changes nothing", event.kind, event.attempt, extra={"case": case.key})
                return False
            if event.kind in TURN_ENDS:
                self.store.messages.take_back(part.id)
                self._host_heard(part, event)
            self._handlers[event.kind](case, part, event)
            self.settle(case.id)
            crash_point("conductor.applying")
            return True

    @staticmethod
    def _is_of_now(part: PartRow, event: Event) -> bool:
        same = (part.attempt, part.turn) == (event.attempt, event.turn)
        return same and part.state in (PartState.QUEUED, PartState.WORKING)

    def _host_heard(self, part: PartRow, event: Event) -> None:
        # BUG says nothing about the host; RETRY tells by itself which host is at fault
        if part.host and event.kind not in (EventKind.RETRY, EventKind.BUG):
            tried = (
                self.store.hosts.get(part.host).state == "probing"
            )  # by a part that is to find out whether there is room
            self.dispatch.host_answers(part.host, has_room=tried)

    def _about_worker(self, event: Event) -> bool:
        if event.kind is EventKind.ALIVE:
            data, now = event.data, self.clock.now()
            lane, machine, trouble = (str(data.get(name, "")) for name in ("lane", "machine", "trouble"))
            if data.get("leaving"):
                self.store.workers.left(event.worker)
            else:
                self.store.workers.alive(
                    event.worker,
                    lane=lane,
                    machine=machine,
                    pid=int(data.get("pid", 0)),
                    busy=int(data.get("busy", 0)),
                    started_at=float(data.get("started", 0.0)),
                    now=now,
                )
            topic = f"{WORKER}{lane}@{machine}"
            if trouble and not data.get("leaving"):
                hint = f"give {machine} the same workflows and key_salt as this machine, then restart the worker"
                self.store.switches.raise_alert(topic, text=f"{event.worker}: {trouble}", hint=hint, now=now)
            else:
                self.store.switches.clear_alert(topic)
        return True

    def _accepted(self, case: CaseRow, part: PartRow, event: Event) -> None:
        if part.state is PartState.QUEUED:  # else a later report of the turn has overtaken this one
            self._begin_work(case, part, event)

    def _begin_work(self, case: CaseRow, part: PartRow, event: Event) -> None:
        now = self.clock.now()
        self.store.parts.update(
            part.id, state=PartState.WORKING, worker=event.worker, lease_until=now + self.config.daemon.lease,
            started_at=part.started_at or now, reason=f"{event.worker} works on it",
        )  # fmt: skip
        self.store.messages.take_back(part.id)
        if part.started_at is None:
            self.note(case, kind="started", text=f"{part.title} begun", part=part, actor=event.worker)

    def _progress(self, case: CaseRow, part: PartRow, event: Event) -> None:
        note = part.reason
        if part.state is PartState.QUEUED:
            self._begin_work(case, part, event)
            note = f"{event.worker} works on it"
        self.store.parts.update(
            part.id,
            worker=event.worker,
            lease_until=self.clock.now() + self.config.daemon.lease,
            reason=str(event.data.get("note") or note),
            **_progress_of(part, event.data),
        )

    def _remembered(self, case: CaseRow, part: PartRow, event: Event) -> None:
        if part.state is PartState.QUEUED:
            self._begin_work(case, part, event)
        facts = {**part.facts, **event.data.get("facts", {})}
        self.store.parts.update(part.id, facts=facts, lease_until=self.clock.now() + self.config.daemon.lease)

    def _done(self, case: CaseRow, part: PartRow, event: Event) -> None:
        told = event.data.get("facts", {})
        facts = {**part.facts, **told}
        self.end(part, PartState.DONE, facts=facts, progress_done=part.progress_total)
        seconds = self.clock.now() - (part.started_at or part.created_at)
        text = f"{part.title} done in {seconds:.1f} s" + (f" (attempt {part.attempt})" if part.attempt > 1 else "")
        self.note(case, kind="done", text=text, part=part, actor=event.worker)
        if "cleared" in told:  # not what a former attempt remembered: another step may have come there since
            self.store.cases.update(case.id, cleared=sorted({*case.cleared, *map(str, told["cleared"])}))
        if part.plan:
            self.fan_out(case, part, facts)
        elif part.step == case.step:
            self.advance(case)

    def _wait(self, case: CaseRow, part: PartRow, event: Event) -> None:
        del case
        seconds = max(0.0, float(event.data.get("seconds", 0.0)))
        self.store.parts.update(
            part.id, state=PartState.WAITING, waiting_for="turn", reason=str(event.data.get("note", "")), hint="",
            due_at=self.clock.now() + seconds, lease_until=None, worker="", losses=0,
            **_progress_of(part, event.data.get("progress", {})),
        )  # fmt: skip

    def _retry(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason, hint = str(event.data.get("reason", "")), str(event.data.get("hint", ""))
        after = event.data.get("after")
        host = str(event.data.get("host", ""))
        if host:  # the host is at fault: it pauses, and nobody's tries are used up
            self.dispatch.host_failed(host, reason, hint=hint, after=after, full=bool(event.data.get("full")))
            self.store.parts.update(
                part.id, state=PartState.WAITING, waiting_for=f"host:{host}", reason=f"host {host} is paused: {reason}",
                hint=hint, due_at=None, lease_until=None, worker="",
            )  # fmt: skip
            return
        if part.cancel:  # the same attempt is asked again: a next one would begin the run anew
            tries = part.tries + 1
            delay = float(after) if after is not None else self._delay(tries)
            self.store.parts.update(
                part.id, state=PartState.WAITING, waiting_for="time", tries=tries, hint=hint, lease_until=None, worker="",
                reason=f"it is not cancelled yet: {reason}", due_at=self.clock.now() + max(0.0, delay),
            )  # fmt: skip
            return
        step = self.step_of(case, part.step)
        tries, limit = part.tries + 1, step.attempts if step else part.tries
        self.note(
            case,
            kind="failed",
            text=f"{part.title} failed, try {tries} of {limit}: {reason}",
            part=part,
            actor=event.worker,
            detail=str(event.data.get("detail", "")),
        )
        if tries >= limit:
            self.end(part, PartState.FAILED, reason=f"{reason} (gave up after {tries} tries)", hint=hint)
            if not part.part:
                self.note_failure(case, part, reason)
            return
        delay = after if after is not None else self._delay(tries)
        self.end(part, PartState.FAILED, reason=reason, hint=hint)
        self.again(
            case, part, tries=tries, due_at=self.clock.now() + max(0.0, float(delay)),
            reason=f"try {tries + 1} of {limit} follows: {reason}",
        )  # fmt: skip

    def _delay(self, tries: int) -> float:
        daemon = self.config.daemon
        return backoff(tries, self.random, first=daemon.retry_first, most=daemon.retry_most)

    def _gave_up(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason, hint = str(event.data.get("reason", "")), str(event.data.get("hint", ""))
        if part.cancel:
            self.fail(case, part, f"it could not be cancelled: {reason}", hint=hint)
            return
        here = part.step == case.step  # else an operator did an earlier step again
        what = f"mqi case retry {case.key}" if here else f"do step {part.step} by hand again"
        self.end(part, PartState.FAILED, reason=reason, hint=hint or f"mend it, then: {what}")
        self.note_failure(case, part, reason, actor=event.worker, detail=str(event.data.get("detail", "")))

    def _bug(self, case: CaseRow, part: PartRow, event: Event) -> None:
        reason = str(event.data.get("reason", ""))
        hint = f"the traceback: mqi case log {case.key} --detail; once it is mended: mqi case retry {case.key}"
        self.end(part, PartState.FAILED, proven=False, reason=f"a bug in stage {part.step}: {reason}", hint=hint)
        self.store.cases.update(case.id, cancelling=False)
        detail = str(event.data.get("traceback", ""))
        self.note(
            case, kind="bug", text=f"a bug in {part.title}: {reason}", part=part, actor=event.worker, detail=detail
        )

    def _cancelled(self, case: CaseRow, part: PartRow, event: Event) -> None:
        self.end_cancelled(case, part, note=str(event.data.get("note", "")))


def _progress_of(part: PartRow, told: Facts) -> dict[str, Any]:
    """Return the columns of a part that say how far it is, by what its worker told."""
    return {
        "progress_done": float(told.get("done", part.progress_done)),
        "progress_total": float(told.get("total", part.progress_total)),
        "progress_unit": str(told.get("unit", part.progress_unit)),
    }
