"""How the machinery itself stands: the broker, its queues and dead letters, processes that do not run. Kept as alerts.

The conductor's process writes it down, because nobody else is sure to reach the state database; `mqi status`, `mqi
watch` and observers of events read it there, and ask no broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mqi_cli.broker.base import Broker
from mqi_cli.clock import Clock
from mqi_cli.errors import BrokerError
from mqi_cli.store import Store
from mqi_cli.store.records import LaneLoad

LOOK_EVERY = 10.0  # seconds
BROKER = "broker"
DEAD = "dead letters"
PROCESS = "process:"

NotRunning = Mapping[str, str]  # a process's name, and why it does not run


class Condition:
    """Notes what stands, and raises and clears the alerts for it. `not_running` tells which processes do not run."""

    def __init__(
        self, store: Store, broker: Broker, clock: Clock, *, lanes: Sequence[str], not_running: Callable[[], NotRunning]
    ) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._lanes = tuple(lanes)
        self._not_running = not_running
        self._look_at = 0.0
        self._broker_is_well = False  # not known to be: an alert may be left from before

    def broker_is_away(self, error: BrokerError) -> None:
        """Say that the broker can't be used. Work that is decided on waits in the outbox meanwhile."""
        self._broker_is_well = False
        self._raise(BROKER, error.message, error.hint or "mqi doctor")
        self._processes()

    def broker_answers(self) -> None:
        """Say that it can."""
        if not self._broker_is_well:
            self._clear(BROKER, "the broker answers")
            self._broker_is_well = True

    def look(self) -> None:
        """Look at the queues and the processes, every few seconds. Raises `BrokerError`."""
        if self._clock.elapsed() < self._look_at:
            return
        self._look_at = self._clock.elapsed() + LOOK_EVERY
        self._processes()
        loads = {}
        for lane in self._lanes:
            depth = self._broker.depth(lane)
            loads[lane] = LaneLoad(depth.ready + depth.taken, depth.dead)
        if loads != self._store.switches.loads():
            with self._store.transaction():
                self._store.switches.set_loads(loads)
        dead = {lane: load.dead for lane, load in loads.items() if load.dead}
        if dead:
            lanes = ", ".join(f"{count} of lane {lane}" for lane, count in dead.items())
            self._raise(DEAD, f"messages were refused and lie among the dead letters: {lanes}", "mqi dead list")
        else:
            self._clear(DEAD, "no dead letters are left")

    def forget_gone(self, *, hosts: Iterable[str], sources: Iterable[str]) -> None:
        """Clear the alerts about hosts and sources that the config has no longer: nobody else ever would."""
        known = {"host": {*hosts}, "source": {*sources}}
        for alert in self._store.switches.alerts():
            kind, colon, rest = alert["topic"].partition(":")
            subject = rest.partition(":")[0]
            if (
                colon
                and kind not in ("process", "worker")
                and subject not in (known["source"] if kind == "source" else known["host"])
            ):
                self._clear(alert["topic"], f"{subject} is no longer in the config")

    def _processes(self) -> None:
        found = self._not_running()
        for name, why in found.items():
            self._raise(PROCESS + name, f"{name} does not run: {why}", f"mqi daemon logs {name}")
        for alert in self._store.switches.alerts():
            topic = alert["topic"]
            if topic.startswith(PROCESS) and topic.removeprefix(PROCESS) not in found:
                self._clear(topic, f"{topic.removeprefix(PROCESS)} runs again")

    def _raise(self, topic: str, text: str, hint: str) -> None:
        standing = {alert["topic"]: alert["text"] for alert in self._store.switches.alerts()}
        if standing.get(topic) == text:
            return
        now = self._clock.now()
        with self._store.transaction():
            if self._store.switches.raise_alert(topic, text=text, hint=hint, now=now):
                self._store.events.add(at=now, case=None, kind="alert", actor="conductor", text=text)

    def _clear(self, topic: str, text: str) -> None:
        if not any(alert["topic"] == topic for alert in self._store.switches.alerts()):
            return
        with self._store.transaction():
            self._store.switches.clear_alert(topic)
            self._store.events.add(
                at=self._clock.now(), case=None, kind="all-clear", actor="conductor", text=f"all clear: {text}"
            )
