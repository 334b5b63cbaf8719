"""Gives parts their next turns, writing the command to the outbox, and wakes those who wait once a thing is there.

Everything here happens inside a transaction of the conductor. What a part may wait for stands in `obstacles.py`: it is
woken in order when that thing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from mqi_cli.case import PART_LIVE, PartState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.message import Command, Earlier, GpuLease, MessageError, command_id, encode
from mqi_cli.obstacles import Obstacles
from mqi_cli.retry import backoff
from mqi_cli.step_digest import step_digest
from mqi_cli.store import Store
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow, PartRow

MORE_ROOM = 100_000_000  # bytes; a full host that has so much more than at the last look is full no longer
HOST_PAUSE_MOST = 300.0  # a host that is down is asked again at least this often, seconds
LEASE_GRACE = 60.0  # seconds; a lease of a part that ended so long ago is a leak
WOKEN_AT_ONCE = 200
SERVED_IN_ORDER = ("jobs:", "gpu:")  # who comes first is served first; nobody overtakes


class Dispatcher:
    """Gives turns to parts. `settle` brings a case's own state in line after a change of its parts; `fail` ends a part."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        random: Random,
        *,
        settle: Callable[[int], None],
        fail: Callable[[CaseRow, PartRow, str, str], None],
    ) -> None:
        self.obstacles = Obstacles(store, config, clock)
        self._store = store
        self._config = config
        self._clock = clock
        self._random = random
        self._settle = settle
        self._fail = fail
        self._moved: set[int] = set()  # cases of which an attempt has ended, until they are settled
        self._to_wake: list[str] = []  # while somebody is woken: whoever is to be woken after him
        self._waking = False

    def give_turn(
        self,
        part: PartRow,
        *,
        in_order: bool = False,
        probe: bool = False,
        settle: bool = True,
        earlier: tuple[Earlier, ...] | None = None,
    ) -> bool:
        """Queue the part's next turn, or let it wait for what is in the way. True when it was queued.

        With `settle` false the caller brings the case in line afterwards. Who gives turns to many parts of one step at
        once reads what the steps before it left but once, and hands it over as `earlier`.
        """
        case = self._case(part)
        obstacle = self.obstacles.of(case, part, in_order=in_order, probe=probe)
        if obstacle:
            self._store.messages.take_back(part.id)  # the command of a lost turn
            self._store.parts.update(
                part.id, state=PartState.WAITING, waiting_for=obstacle.thing, reason=obstacle.reason, hint=obstacle.hint,
                due_at=None, lease_until=None, worker="",
            )  # fmt: skip
            if settle:
                self._settle(part.case)
            return False
        now = self._clock.now()
        command = self.command(case, part, turn=part.turn + 1, earlier=earlier)
        try:
            body = _encoded(command)
        except MessageError as error:  # the clock would try again for ever, and to no avail
            reason = f"what the steps before it left is more than a message carries: {error}"
            self._fail(case, part, reason, f"fewer steps or parts in the workflow, then: mqi case rerun {case.key}")
            if settle:
                self._settle(part.case)
            return False
        self._store.parts.update(
            part.id, state=PartState.QUEUED, turn=command.turn, waiting_for="", due_at=None, worker="", hint="",
            reason=f"queued for a worker of {part.lane}", lease_until=now + self._config.daemon.lease,
        )  # fmt: skip
        self._store.messages.put_out(command.id, part=part.id, lane=part.lane, body=body, now=now)
        if settle:
            self._settle(part.case)
        return True

    def earlier(self, case: CaseRow, step: str, *, of_part: bool) -> tuple[Earlier, ...]:
        """Return what the steps before this one left, in their order; for one of its parts, also what its plan left."""
        names = [each.name for each in self._config.workflows[case.workflow].steps]
        found = self._store.parts.finished(case.id, names[: names.index(step) + 1])
        # in their order parts that follow one another take little room in a message
        found.sort(key=lambda done: (names.index(done.step), len(done.part), done.part))
        return tuple(
            Earlier(done.step, done.part, done.attempt, dict(done.facts))
            for done in found
            if done.step != step or (done.plan and of_part)
        )

    def command(
        self, case: CaseRow, part: PartRow, *, turn: int, earlier: tuple[Earlier, ...] | None = None
    ) -> Command:
        """Return the command for a turn of a part, with what earlier steps reported and the GPUs it has."""
        step = self._config.workflows[case.workflow].step(part.step)
        assert step is not None  # noqa: S101  what the config has lost is an obstacle
        if earlier is None:
            earlier = self.earlier(case, part.step, of_part=bool(part.part))
        return Command(
            id=command_id(case.key, part.step, part.part, part.attempt, turn),
            lane=part.lane,
            case=case.key,
            revision=case.revision,
            source=case.source,
            fingerprint=case.fingerprint,
            workflow=case.workflow,
            step=part.step,
            part=part.part,
            attempt=part.attempt,
            turn=turn,
            cancel=part.cancel,
            plan=part.plan,
            facts=dict(part.facts),
            gpus=tuple(GpuLease(gpu.uuid, gpu.number) for gpu in self._store.gpus.leased_by(part.id)),
            earlier=earlier,
            digest=step_digest(step, salt=self._config.key_salt),
            owner=self._store.owner,
            at=self._clock.now(),
        )

    def release(self, part: PartRow, *, keep_gpus: bool = False) -> None:
        """Take back what an ended attempt had, and wake who waits for it; not its GPUs while its run may live."""
        self._store.messages.take_back(part.id)
        if not keep_gpus and self._store.gpus.release(part.id, now=self._clock.now()):
            self.wake(f"gpu:{part.host}")
        if part.job:
            self.wake(f"jobs:{part.host}")
        self._moved.add(part.case)

    def settled(self, case: int) -> None:
        """Wake who waits for an end within a case, now that what follows on that end has been added."""
        if case in self._moved:
            self._moved.discard(case)
            self.wake(f"case:{case}")

    def wake(self, thing: str) -> None:
        """Give a turn to those that wait for a thing. Where order counts, stop at the first that can't go on.

        Some at once: a transaction that moves ten thousand would keep everybody else waiting. The clock wakes the others.
        What is to be woken because one that was woken has ended comes after it, not within it: hundreds may end in a row.
        """
        if thing not in self._to_wake:
            self._to_wake.append(thing)
        if self._waking:
            return
        self._waking = True
        try:
            while self._to_wake:
                self._wake(self._to_wake.pop(0))
        finally:
            self._waking, self._to_wake = False, []

    def _wake(self, thing: str) -> None:
        if thing.startswith("case:"):
            for part in self._of_case_waiting(thing)[:WOKEN_AT_ONCE]:
                self.give_turn(part)
            return
        if not thing.startswith(SERVED_IN_ORDER):
            for part in self._store.parts.waiting_for(thing, limit=WOKEN_AT_ONCE):
                self.give_turn(part)
            return
        for _ in range(WOKEN_AT_ONCE):
            first = self.obstacles.first_for(thing)
            for each in [first] if first else self._store.parts.waiting_for(thing, limit=1):
                self.give_turn(each, in_order=True)  # where nobody can be served, the first says why
                first = self._store.parts.by_id(each.id)
            if first is None or first.waiting_for == thing:
                return

    def _of_case_waiting(self, thing: str) -> list[PartRow]:
        """Return who waits for other steps of his case, last those that must be alone: they wait for the others, too."""
        waiting = self._store.parts.waiting_for(thing)
        alone = self.obstacles.alone(self._case(waiting[0])) if waiting else set()
        return sorted(waiting, key=lambda each: each.step in alone)

    def host_failed(
        self, name: str, reason: str, *, hint: str = "", after: float | None = None, full: bool = False
    ) -> None:
        """Pause a host that does not answer, or is `full`; while it is paused already, nothing more happens."""
        now = self._clock.now()
        host = self._store.hosts.get(name)
        if host.state == "paused" and (host.until or 0) > now:
            return
        delay = after or backoff(
            host.failures + 1,
            self._random,
            first=self._config.daemon.retry_first,
            most=min(HOST_PAUSE_MOST, self._config.daemon.retry_most),
        )
        self._store.hosts.update(
            name, state="paused", full=full, reason=reason, hint=hint, until=now + delay,
            failures=host.failures + 1,
        )  # fmt: skip
        if self._store.switches.raise_alert(
            f"host:{name}", text=f"host {name} is paused: {reason}", hint=hint, now=now
        ):
            self._store.events.add(
                at=now, case=None, kind="host", actor="conductor", text=f"host {name} paused: {reason}"
            )

    def host_answers(self, name: str, *, has_room: bool = False) -> None:
        """Take a host into use again and wake who waits for it. That it answers says of a full one nothing."""
        host = self._store.hosts.get(name)
        if (host.state == "up" and not host.failures) or (host.full and not has_room):
            return
        self._store.hosts.update(
            name, state="up", full=False, reason="" if not host.held else host.reason, hint="", until=None, failures=0
        )
        if self._store.switches.clear_alert(f"host:{name}"):
            text = f"host {name} {'has room' if host.full else 'answers'} again"
            self._store.events.add(at=self._clock.now(), case=None, kind="host", actor="conductor", text=text)
        if not host.held:
            self.wake(f"host:{name}")

    def reconcile_gpus(self, host: str) -> None:
        """Give free the GPUs whose part has ended without giving them back.

        No transaction of ours leaves such a lease; a state database that was restored or mended by hand may. A part
        that has just ended is left its time, and one whose run may live keeps what it has.
        """
        now = self._clock.now()
        for gpu in self._store.gpus.leased_on(host):
            part = self._store.parts.by_id(gpu.lease) if gpu.lease is not None else None
            if part is None or part.state in PART_LIVE or part.waiting_for == END_UNPROVEN:
                continue
            if now - (part.ended_at or 0.0) > LEASE_GRACE:
                self._store.gpus.release(part.id, now=now)
                text = f"GPU {gpu.number} of {host} was leased to a part that has ended: it is free again"
                self._store.events.add(at=now, case=None, kind="gpu", actor="conductor", text=text)

    def forget_hosts(self) -> None:
        """Forget what was seen of hosts that the config no longer has. What an operator held back stays held back."""
        known = {row.name for row in self._store.hosts.all()} | {gpu.host for gpu in self._store.gpus.all()}
        for host in sorted(known - set(self._config.hosts)):
            self._store.gpus.forget(host)
            self._store.hosts.forget(host)

    def probe(self, name: str) -> None:
        """Let one part find out whether a paused host answers again; with nobody waiting, assume that it does."""
        waiting = self._store.parts.waiting_for(f"host:{name}", limit=1)
        if not waiting:
            self.host_answers(name, has_room=True)
            return
        self._store.hosts.update(name, state="probing", until=self._clock.now() + 2 * self._config.daemon.lease)
        self.give_turn(waiting[0], probe=True)

    def _case(self, part: PartRow) -> CaseRow:
        case = self._store.cases.by_id(part.case)
        assert case is not None  # noqa: S101  a foreign key holds it
        return case


def _encoded(command: Command) -> bytes:
    """Return a command as bytes; where many parts reported much, without what the others' reports say."""
    try:
        return encode(command)
    except MessageError:
        known = [each if each.part in ("", command.part) else replace(each, facts={}) for each in command.earlier]
        return encode(replace(command, earlier=tuple(known)))
