"""The conductor's process: events in, commands out, and the clockwork in between.

Start-up order: state database, leases anew, unsent commands, events. While the broker is away nothing is counted as
lost, because nobody could report; what is decided meanwhile waits in the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from random import Random

from mqi_cli.broker.base import Broker, Delivery, Outgoing
from mqi_cli.clock import Clock
from mqi_cli.clockwork import Clockwork
from mqi_cli.condition import Condition, NotRunning
from mqi_cli.conductor import Conductor
from mqi_cli.config.loaded import Config
from mqi_cli.crash_points import crash_point
from mqi_cli.errors import BrokerError, StateError
from mqi_cli.hookspecs import RecordedEvent
from mqi_cli.message import EVENTS_LANE, Event, MessageError, decode
from mqi_cli.plugins import Plugins
from mqi_cli.store import Store

log = logging.getLogger("mqi.conductor")

TICK = 1.0
BATCH = 200  # events that are applied together, and commands that are sent together
BATCHES_BEFORE_TICK = 10
PAUSE = 2.0


class ConductorProcess:
    """Runs the conductor until asked to stop. One for each state database; a lock in the caller sees to that."""

    def __init__(
        self,
        *,
        config: Config,
        plugins: Plugins,
        store: Store,
        broker: Broker,
        clock: Clock | None = None,
        random: Random | None = None,
        beat: Callable[[], None] = lambda: None,
        not_running: Callable[[], NotRunning] = dict,
    ) -> None:
        self._store = store
        self._broker = broker
        self._plugins = plugins
        self._clock = clock or Clock()
        self._beat = beat
        self._conductor = Conductor(store, config, clock=self._clock, random=random)
        self._clockwork = Clockwork(self._conductor, lane_is_idle=self._lane_is_idle)
        lanes = [EVENTS_LANE, *plugins.lanes()]
        self._condition = Condition(store, broker, self._clock, lanes=lanes, not_running=not_running)
        self._config = config
        self._stop = threading.Event()
        self._told = 0
        self._away = ""

    def ask_stop(self) -> None:
        """End after the event in hand."""
        self._stop.set()

    def run(self) -> None:
        """Serve until asked to stop. Raises nothing that trying again can mend."""
        self.begin()
        self._condition.forget_gone(
            hosts=self._config.hosts, sources=[each.name for each in self._config.source_views()]
        )
        log.info("the conductor is at work")
        while not self._stop.is_set():
            self._beat()
            try:
                self.turn(timeout=TICK)
                self._is_back()
            except BrokerError as error:
                with contextlib.suppress(StateError):  # the log has it, and the next turn says it again
                    self._condition.broker_is_away(error)
                self._is_away(f"the broker: {error.message}")
            except StateError as error:
                self._is_away(error.message)
        log.info("the conductor ends")

    def begin(self) -> None:
        """Begin to serve: who has a lease keeps it for a whole term, since nobody could renew it meanwhile."""
        self._told = self._store.events.last_id()
        self._clockwork.start_anew()

    def turn(self, *, timeout: float) -> None:
        """Relay, apply what has come, see to what is due."""
        self.relay()
        for _ in range(BATCHES_BEFORE_TICK):
            deliveries = self._broker.take_many(EVENTS_LANE, timeout=timeout, most=BATCH)
            if not deliveries:
                break
            self._apply(deliveries)
            self.relay()
            self._beat()
            timeout = 0
        self._clockwork.tick()
        self.relay()
        self._condition.broker_answers()
        self._condition.look()
        self._tell_observers()

    def relay(self) -> None:
        """Send the commands that wait, in order. One that is sent twice has the same id and one effect."""
        while rows := self._store.messages.unsent(limit=BATCH):
            crash_point("relay.sending")
            self._broker.publish([Outgoing(row.lane, row.message, row.body) for row in rows])
            crash_point("relay.sent")
            with self._store.transaction():
                self._store.messages.mark_sent([row.id for row in rows], now=self._clock.now())
            crash_point("relay.noted")

    def _apply(self, deliveries: Sequence[Delivery]) -> None:
        """Apply what the deliveries hold and settle them; what can't be read or understood goes to the dead letters."""
        refused: dict[int, str] = {}
        events: dict[int, Event] = {}
        for number, delivery in enumerate(deliveries):
            try:
                event = decode(delivery.body)
                if not isinstance(event, Event):
                    raise MessageError("a command, where an event is expected")
                events[number] = event
            except MessageError as error:
                refused[number] = str(error)
        problems = self._conductor.apply_all(list(events.values()))
        refused |= {number: problem for number, problem in zip(events, problems, strict=True) if problem}
        for number, reason in refused.items():
            log.warning("a message goes to the dead letters: %s", reason)
            self._broker.reject(deliveries[number], reason=reason)
        crash_point("conductor.applied")
        if settled := [each for number, each in enumerate(deliveries) if number not in refused]:
            self._broker.ack(*settled)
        crash_point("conductor.acknowledged")

    def _lane_is_idle(self, lane: str) -> bool:
        depth = self._broker.depth(lane)
        return depth.ready == 0 and depth.taken == 0

    def _tell_observers(self) -> None:
        if not self._plugins.observed:
            return
        for row in self._store.events.after(self._told):
            self._told = row.id
            case = self._store.cases.by_id(row.case) if row.case else None
            self._plugins.notify(
                RecordedEvent(row.at, case.key if case else "", row.step, row.part, row.attempt, row.kind, row.text)
            )

    def _is_away(self, reason: str) -> None:
        if reason != self._away:
            log.warning("%s; going on when it is back", reason)
            self._away = reason
        self._stop.wait(PAUSE)

    def _is_back(self) -> None:
        if self._away:
            log.info("back at work after: %s", self._away)
            self._away = ""
            self._clockwork.start_anew()
