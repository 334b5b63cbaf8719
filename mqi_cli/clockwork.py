"""What the conductor does because a time has come: due turns, ended leases, paused hosts, old ids."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mqi_cli.case import PartState
from mqi_cli.conductor import Conductor
from mqi_cli.crash_points import crash_point
from mqi_cli.dispatch import SERVED_IN_ORDER
from mqi_cli.store.records import PartRow

log = logging.getLogger("mqi.conductor")

CLOCK_JUMP = 5.0  # seconds between wall and boot time that count as a jump rather than as drift
MAX_LOSSES = 5  # workers that may die over one attempt before a person should look
INBOX_KEPT = 35 * 86400.0  # longer than any message can come late, a replay of dead letters included
HOUSEKEEPING_EVERY = 3600.0
FORGOTTEN_AT_ONCE = 2000  # rows in one transaction
LINES_EVERY = 10.0  # seconds between two looks whether the first in a line for GPUs or jobs could go on
WORKER_FORGOTTEN = 3600.0


class Clockwork:
    """Gives every part and host its time. `lane_is_idle` says whether a lane holds no message at all."""

    def __init__(self, conductor: Conductor, *, lane_is_idle: Callable[[str], bool]) -> None:
        self._conductor = conductor
        self._store = conductor.store
        self._clock = conductor.clock
        self._lane_is_idle = lane_is_idle
        self._wall = self._clock.now()
        self._boot = self._clock.elapsed()
        self._housekeeping_at = self._lines_at = self._boot

    def tick(self) -> None:
        """Do all that is due. Costs little when nothing is."""
        self._notice_clock_jump()
        now = self._clock.now()
        for part in self._store.parts.due(now):
            self._in_transaction(part, self._due)
        for part in self._store.parts.expired(now):
            self._in_transaction(part, self._expired)
        for host in self._store.hosts.paused():
            if host.state != "up" and not host.held and host.until is not None and host.until <= now:
                with self._store.transaction():
                    self._conductor.dispatch.probe(host.name)
        self._wake_who_waits_for_nothing()
        if self._clock.elapsed() >= self._housekeeping_at:
            self._keep_house(now)

    def _keep_house(self, now: float) -> None:
        """Forget what is old: some of it, and more at the next turn until all of it is forgotten."""
        with self._store.transaction():
            kept = self._conductor.config.daemon.keep_log
            forgotten = (
                self._store.messages.forget_in(before=now - INBOX_KEPT, limit=FORGOTTEN_AT_ONCE),
                self._store.events.forget(before=now - kept, limit=FORGOTTEN_AT_ONCE),
            )
            self._store.workers.forget(before=now - WORKER_FORGOTTEN)
        if max(forgotten) < FORGOTTEN_AT_ONCE:
            self._housekeeping_at = self._clock.elapsed() + HOUSEKEEPING_EVERY

    def _wake_who_waits_for_nothing(self) -> None:
        """Go on with those whom a wake left over: it moves some at once, and who stood before them in a line may be gone."""
        lines = self._clock.elapsed() >= self._lines_at
        if lines:
            self._lines_at = self._clock.elapsed() + LINES_EVERY
        for thing in self._store.parts.things_waited_for():
            in_line = thing.startswith(SERVED_IN_ORDER)
            if (lines or not in_line) and self._conductor.dispatch.obstacles.stands_open(thing):
                with self._store.transaction():
                    self._conductor.dispatch.wake(thing)

    def start_anew(self) -> None:
        """Give every lease a whole term from now: nobody could renew one while no conductor ran."""
        now = self._clock.now()
        lease = self._conductor.config.daemon.lease
        with self._store.transaction():
            self._store.parts.renew_all(now + lease)
            self._conductor.dispatch.forget_hosts()
            self._conductor.dispatch.wake("config")  # this may be the config that has it again

    def _notice_clock_jump(self) -> None:
        wall, boot = self._clock.now(), self._clock.elapsed()
        jump = (wall - self._wall) - (boot - self._boot)
        self._wall, self._boot = wall, boot
        if abs(jump) > CLOCK_JUMP:
            log.warning("the wall clock jumped by %.0f s; leases, due times and looks at GPUs move with it", jump)
            with self._store.transaction():
                self._store.parts.shift_times(jump)
                self._store.hosts.shift_times(jump)
                self._store.gpus.shift_times(jump)

    def _in_transaction(self, seen: PartRow, act: Callable[[PartRow], None]) -> None:
        with self._store.transaction():
            part = self._store.parts.by_id(seen.id)
            if part == seen:  # else an event or an operator was faster
                act(part)
                crash_point("clockwork.turning")
        crash_point("clockwork.turned")

    def _due(self, part: PartRow) -> None:
        self._conductor.dispatch.give_turn(part)

    def _expired(self, part: PartRow) -> None:
        now = self._clock.now()
        if part.state is PartState.QUEUED:
            if not self._lane_is_idle(part.lane):  # it stands in a queue: that is no loss
                self._store.parts.update(part.id, lease_until=now + self._conductor.config.daemon.lease)
                return
            log.info("the command of %s was not answered and is in no queue: sent again", part.step)
            self._conductor.dispatch.give_turn(part)
            return
        case = self._store.cases.by_id(part.case)
        assert case is not None  # noqa: S101  a foreign key holds it
        text = f"{part.worker} gave no sign for {self._conductor.config.daemon.lease:.0f} s"
        self._conductor.note(case, kind="lost", text=f"{part.title}: {text}; another worker goes on", part=part)
        if part.losses + 1 > MAX_LOSSES:
            self._conductor.fail(case, part, f"{part.losses + 1} workers were lost over it", hint="mqi daemon logs")
            return
        self._store.parts.update(part.id, losses=part.losses + 1)
        self._conductor.dispatch.give_turn(part)
