"""A worker: takes commands of one lane, accepts them, performs the stage, reports. It holds no state that matters.

The main thread talks to the broker, a thread for each command in hand does the work, one more renews their leases.
A delivery is acknowledged as soon as `accepted` is confirmed, and never held for the length of the work.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mqi_cli.broker.base import Broker, Delivery, Outgoing
from mqi_cli.case import CaseRef
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.crash_points import crash_point
from mqi_cli.errors import BrokerError, MqiError, RetryLater
from mqi_cli.host_pool import HostPool
from mqi_cli.machine import machine_name
from mqi_cli.message import EVENTS_LANE, Command, Event, EventKind, Facts, MessageError, decode, encode, event_id
from mqi_cli.plugins import Plugins
from mqi_cli.sources import CaseFinder
from mqi_cli.store import Store
from mqi_cli.turn import OtherConfig, Turn, make_turn, run_turn

log = logging.getLogger("mqi.worker")

ALIVE_EVERY = 15.0
TAKE_TIMEOUT = 1.0
BROKER_PAUSE = 2.0
OTHER_CONFIG_AGAIN = 10.0  # seconds until another worker may be asked, where this one's config says otherwise
ASK_AGAIN = 60.0  # seconds, where this worker's config lacks what an attempt that goes on needs
BEGUN_KEPT = 1000  # ids of commands


class Worker:
    """Serves one lane. `store` is given where the state database is on this machine; it is only read."""

    def __init__(
        self,
        lane: str,
        *,
        config: Config,
        plugins: Plugins,
        broker: Broker,
        store: Store | None = None,
        threads: int = 1,
        clock: Clock | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.lane = lane
        self.name = f"{lane}@{machine_name()}-{os.getpid()}"
        self._config = config
        self._plugins = plugins
        self._broker = broker
        self._store = store
        self._clock = clock or Clock()
        self._beat = beat
        self._hosts = HostPool(config, plugins)
        self._finder = CaseFinder(config.key_salt)
        self._slots = threading.Semaphore(threads)
        self._stop = threading.Event()
        self._turns: dict[str, Turn] = {}
        self._troubles: dict[str, str] = {}  # step -> what is wrong with this worker's config of it
        self._begun: deque[str] = deque(maxlen=BEGUN_KEPT)
        self._threads: set[threading.Thread] = set()
        self._unanswered: list[Delivery] = []  # taken, and neither accepted nor settled yet
        self._alive_number = itertools.count(1)
        self._started = self._clock.now()

    def ask_stop(self) -> None:
        """Take nothing more; stages in hand come to a point where they can go on later."""
        self._stop.set()

    def run(self) -> None:
        """Serve until asked to stop, then wait for what is in hand. A broker that is away is waited for."""
        log.info("%s serves lane %s", self.name, self.lane)
        renewer = threading.Thread(target=self._renew_leases, name="leases", daemon=True)
        renewer.start()
        failing = False
        while not self._stop.is_set():
            self._beat()
            try:
                self._take()
                if failing:
                    log.info("the broker is back")
                failing = False
            except BrokerError as error:
                if not failing:
                    log.warning("%s; trying again until it is back", error.message)
                failing = True
                self._stop.wait(BROKER_PAUSE)
        for thread in list(self._threads):
            while thread.is_alive():
                self._beat()
                thread.join(1.0)
        self._hosts.close()
        if not failing:  # a broker that is away would keep this end waiting
            with contextlib.suppress(BrokerError):
                self._publish(self._alive(leaving=True))

    def idle(self) -> None:
        """Only live, for a lane that has patrols and no stage."""
        renewer = threading.Thread(target=self._renew_leases, name="alive", daemon=True)
        renewer.start()
        while not self._stop.wait(1.0):
            self._beat()

    def _take(self) -> None:
        """Take as many commands as there are free threads, no more, and begin them."""
        self._put_back()
        if not self._slots.acquire(timeout=TAKE_TIMEOUT):
            return
        free = 1
        while self._slots.acquire(blocking=False):
            free += 1
        try:
            taken = self._broker.take_many(self.lane, timeout=TAKE_TIMEOUT, most=free)
            self._unanswered = list(taken)
            for command in self._accept(taken):
                free -= 1
                self._begin(command)
        finally:
            for _ in range(free):
                self._slots.release()

    def _accept(self, deliveries: Sequence[Delivery]) -> list[Command]:
        """Settle deliveries, and return the commands among them that are to be worked on: accepted and acknowledged."""
        wanted: list[tuple[Delivery, Command]] = []
        for delivery in deliveries:
            crash_point("worker.taken")
            if command := self._wanted(delivery, {each.id for _, each in wanted}):
                wanted.append((delivery, command))
            else:
                self._unanswered.remove(delivery)
        if wanted:
            accepted = [_outgoing(self._event(command, EventKind.ACCEPTED, 1, {})) for _, command in wanted]
            self._broker.answer([delivery for delivery, _ in wanted], accepted)
            self._unanswered.clear()
            crash_point("worker.acknowledged")
        return [command for _, command in wanted]

    def _wanted(self, delivery: Delivery, others: set[str]) -> Command | None:
        """Read a delivery; settle it and return None where there is nothing to work on."""
        try:
            command = decode(delivery.body)
            if not isinstance(command, Command):
                raise MessageError("an event, where a command is expected")
        except MessageError as error:
            log.warning("a message goes to the dead letters: %s", error)
            self._broker.reject(delivery, reason=str(error))
            return None
        if command.id in others or not self._is_wanted(command):
            log.info("turn %d of %s is overtaken: dropped", command.turn, command.step, extra={"case": command.case})
            self._broker.ack(delivery)
            return None
        return command

    def _put_back(self) -> None:
        """Return what was taken and could not be answered: as long as this process lives nobody else would get it."""
        while self._unanswered:
            self._broker.reject(self._unanswered[-1], reason="", requeue=True)
            self._unanswered.pop()

    def _begin(self, command: Command) -> None:
        self._begun.append(command.id)
        thread = threading.Thread(target=self._perform, args=(command,), name=f"{command.case}-{command.step}")
        self._threads.add(thread)
        thread.start()

    def _is_wanted(self, command: Command) -> bool:
        """Look whether the state database still wants this turn. Where there is none here, the conductor's fence decides later."""
        if command.id in self._begun:  # published twice, by a relay that died in between or by a replay
            return False
        if self._store is None:
            return True
        case = self._store.cases.by_key(command.case)
        if case is None:  # this machine's own state database, which has nothing to do with the conductor's
            return True
        part = self._store.parts.latest(case.id, command.step, command.part)
        if part is None or (part.attempt, part.turn) != (command.attempt, command.turn):
            return False
        return part.state == "queued" or (part.state == "working" and part.worker in ("", self.name))

    def _perform(self, command: Command) -> None:
        numbers: Counter[EventKind] = Counter()

        def report(kind: EventKind, data: Facts) -> None:
            numbers[kind] += 1
            self._publish_surely(self._event(command, kind, numbers[kind], data))

        try:
            kind, data = self._turn(command, report)
            crash_point("worker.worked")
            report(kind, data)
            crash_point("worker.reported")
        finally:
            self._turns.pop(command.id, None)
            self._threads.discard(threading.current_thread())
            self._slots.release()

    def _turn(self, command: Command, report: Callable[[EventKind, Facts], None]) -> tuple[EventKind, Facts]:
        extra = {"case": command.case, "step": command.step}
        try:
            turn = make_turn(
                command,
                config=self._config,
                plugins=self._plugins,
                hosts=self._hosts,
                report=report,
                stopping=self._stop.is_set,
                clock=self._clock,
            )
            self._tell_trouble(command.step, "")
            case = self._find(command, needed=turn.stage.local)
        except OtherConfig as error:
            log.warning("%s", error.message, extra=extra)
            self._tell_trouble(command.step, error.message)
            # Uses up no try, and ends no attempt whose run may live: the next turn may come to a worker that knows better.
            note = f"{self.name} can't take it: {error.message}"
            return EventKind.WAIT, {"seconds": OTHER_CONFIG_AGAIN, "note": note}
        except MqiError as error:
            log.warning("%s", error.message, extra=extra)
            if command.turn > 1:
                # An earlier turn may have left a run on a host: the attempt, and with it its GPUs, must not end here.
                return EventKind.WAIT, {"seconds": ASK_AGAIN, "note": error.message}
            return EventKind.RETRY, {"reason": error.message, "hint": error.hint, "after": None, "host": ""}
        self._turns[command.id] = turn
        kind, data, problem = run_turn(case, turn, cancel=command.cancel)
        level = logging.INFO if kind in (EventKind.DONE, EventKind.WAIT, EventKind.CANCELLED) else logging.WARNING
        reason = problem.message if problem else data.get("note") or data.get("reason") or ""
        log.log(level, "attempt %d: %s%s", command.attempt, kind, f": {reason}" if reason else "", extra=extra)
        return kind, data

    def _tell_trouble(self, step: str, trouble: str) -> None:
        if self._troubles.get(step, "") == trouble:
            return
        self._troubles[step] = trouble
        with contextlib.suppress(BrokerError):  # said again with each sign of life
            self._publish(self._alive())

    def _find(self, command: Command, *, needed: bool) -> CaseRef:
        if self._store is not None and (row := self._store.cases.by_key(command.case)):
            return row.ref
        source = self._config.source(command.source)
        found = None
        if source is not None:
            with contextlib.suppress(OSError):  # not mounted here: as good as not found
                found = self._finder.find(source, command.case, command.revision)
        if found is None and needed:
            where = (
                f"below source {command.source}" if source else f"in a source {command.source}, which its config lacks"
            )
            raise RetryLater(
                f"this worker does not find the case's directory {where}",
                hint="mount the source there, or serve this lane elsewhere",
            )
        name, directory = found or ("", Path())
        return CaseRef(command.case, name, command.revision, command.source, directory, command.fingerprint)

    def _renew_leases(self) -> None:
        """Renew the leases of what is in hand, and tell now and then that this worker lives."""
        alive_at = 0.0
        while not (self._stop.is_set() and not self._turns):
            now = self._clock.elapsed()
            # BrokerError: the conductor gives every lease a whole term once the broker is back
            with contextlib.suppress(BrokerError):
                if now >= alive_at and not self._stop.is_set():
                    alive_at = now + ALIVE_EVERY
                    self._publish(self._alive())
                for turn in list(self._turns.values()):
                    turn.renew_if_alive(every=self._config.daemon.lease / 3)
            self._stop.wait(
                min(1.0, self._config.daemon.lease / 10)
            ) if not self._stop.is_set() else threading.Event().wait(0.2)

    def _alive(self, *, leaving: bool = False) -> Event:
        data: dict[str, Any] = {
            "lane": self.lane,
            "machine": machine_name(),
            "pid": os.getpid(),
            "started": self._started,
            "busy": len(self._turns),
            "trouble": next((each for each in self._troubles.values() if each), ""),
            "leaving": leaving,
        }
        number = next(self._alive_number)
        return Event(
            f"{self.name}:{self._started:.0f}:alive:{number}", EventKind.ALIVE, self.name, self._clock.now(), data=data
        )

    def _event(self, command: Command, kind: EventKind, number: int, data: Facts) -> Event:
        return Event(
            event_id(command.id, kind, number), kind, self.name, self._clock.now(), command.case, command.step, command.part,
            command.attempt, command.turn, data,
        )  # fmt: skip

    def _publish(self, event: Event) -> None:
        self._broker.publish([_outgoing(event)])

    def _publish_surely(self, event: Event) -> None:
        """Publish, however long the broker is away; an ending worker gives up, and its lease ends by itself.

        Progress is not worth waiting for: the next report says it again.
        """
        said = ""
        while True:
            try:
                return self._publish(event)
            except BrokerError as error:
                if event.kind is EventKind.PROGRESS:
                    return None
                if error.message != said:  # it may be away for hours
                    said = error.message
                    text = "the %s of %s waits for the broker: %s"
                    log.warning(text, event.kind, event.step, said, extra={"case": event.case})
                if self._stop.wait(BROKER_PAUSE):
                    with contextlib.suppress(BrokerError):
                        self._publish(event)
                    return None


def _outgoing(event: Event) -> Outgoing:
    return Outgoing(EVENTS_LANE, event.id, encode(event))
