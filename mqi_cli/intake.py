"""Takes in what patrols have seen: cases, hosts, GPUs, alerts. Each finding is one transaction.

A case directory is known by source and name. Its newest revision is either settling (seen, not complete) or accepted.
An accepted one whose content changes settles anew in the columns `look…`, without leaving its state; once it is
complete again, equal content is dropped and other content becomes the next revision, a case of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mqi_cli.case import PART_LIVE, CaseState, PartState, derive_key
from mqi_cli.conductor import Conductor
from mqi_cli.crash_points import crash_point
from mqi_cli.dispatch import MORE_ROOM
from mqi_cli.fetched import Finished
from mqi_cli.patrol import (
    Alert,
    CaseCleared,
    CaseSeen,
    CaseVanished,
    CaseView,
    Finding,
    GpusSeen,
    HostSeen,
    KnownCase,
)
from mqi_cli.quantity import counted, size
from mqi_cli.store.parts import END_UNPROVEN
from mqi_cli.store.records import CaseRow

GONE_TOLD = 7 * 86400.0  # seconds; a GPU that was not seen for so long was taken out


class Intake:
    """Applies findings through the conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._store = conductor.store
        self._clock = conductor.clock

    def take(self, finding: Finding) -> None:
        """Apply a finding; durable when it returns. A repeated one changes nothing."""
        with self._store.transaction():
            match finding:
                case CaseSeen():
                    self._case_seen(finding)
                case CaseVanished():
                    self._case_vanished(finding)
                case HostSeen():
                    self._host_seen(finding)
                case GpusSeen():
                    self._gpus_seen(finding)
                case Alert():
                    self._alert(finding)
                case CaseCleared():
                    row = self._store.cases.by_key(finding.key)
                    if row:
                        self._store.cases.update(row.id, cleared=sorted({*row.cleared, finding.host}))
                        self._conductor.note(row, kind="cleared", text=f"nothing of it is left on {finding.host}")
            crash_point("intake.taking")
        crash_point("intake.taken")

    def known(self, source: str, names: Iterable[str]) -> dict[str, KnownCase]:
        """Return the newest revision of each of these names below a source, as the gate wants it."""
        boot = self._clock.boot_id()
        return {row.name: self._known(row, boot) for row in self._store.cases.known(source, names)}

    def _known(self, row: CaseRow, boot: str) -> KnownCase:
        same_boot = row.look_boot == boot
        return KnownCase(
            key=row.key,
            name=row.name,
            revision=row.revision,
            state=row.state,
            snapshot=row.look,
            fingerprint=row.fingerprint,
            unchanged_for=max(0.0, self._clock.elapsed() - row.look_since) if same_boot and row.look else 0.0,
            accepted=row.snapshot,
        )

    def views(self, *states: CaseState) -> Iterator[CaseView]:
        """Go through cases as patrols and commands see them, oldest first."""
        for row in self._store.cases.each(states):
            yield self.view(row)

    def view_of(self, key: str) -> CaseView | None:
        """Return the case with this key; None when there is none."""
        row = self._store.cases.by_key(key)
        return self.view(row) if row else None

    def view(self, row: CaseRow) -> CaseView:
        """Return a case as patrols and commands see it."""
        parts = self._store.parts.of_case(row.id)
        done = [part for part in parts if part.current and part.state is PartState.DONE]
        facts = {(part.step, part.part): part.facts for part in done}
        newest = {(part.step, part.part): part for part in sorted(done, key=lambda part: part.attempt)}
        finished = tuple(
            Finished(part.step, part.part, part.attempt, part.facts, part.created_at, part.ended_at or 0.0)
            for part in newest.values()
        )
        alive = tuple(part.title for part in parts if part.state in PART_LIVE or part.waiting_for == END_UNPROVEN)
        return CaseView(
            row.key, row.name, row.revision, row.source, row.workflow, Path(row.directory), row.fingerprint, row.state,
            row.step, row.created_at, row.ended_at, frozenset(row.cleared), facts,
            finished, alive,
        )  # fmt: skip

    # ---- cases ----

    def accept_by_hand(self, seen: CaseSeen, *, workflow: str) -> CaseRow:
        """Take a directory in on the operator's word. `source` is empty for one that lies outside every source."""
        with self._store.transaction():
            return self._case_seen(seen, workflow=workflow)

    def _case_seen(self, seen: CaseSeen, *, workflow: str = "") -> CaseRow:
        source = self._conductor.config.source(seen.source)
        workflow = workflow or (source.workflow if source else "")
        row = self._store.cases.newest(seen.source, seen.name)
        if row is None:
            row = self._add(seen, workflow, revision=1)
        elif row.state is CaseState.CANCELLED and not row.fingerprint:
            self._conductor.move(row, CaseState.SETTLING, reason=seen.note)  # it had vanished and is back
            row = self._again(row)
        self._look(row, seen)
        if not row.fingerprint:
            if seen.fingerprint:
                return self._accept(row, seen)
            reason = seen.problem or seen.note
            if reason != row.reason:
                self._store.cases.update(row.id, reason=reason, hint="mend the directory" if seen.problem else "")
            return self._again(row)
        if not seen.fingerprint:
            return row
        if seen.fingerprint == row.fingerprint:
            self._store.cases.update(row.id, snapshot=seen.snapshot, look=seen.snapshot)
            return self._again(row)
        return self._accept(self._next_revision(row, seen, workflow), seen)

    def _add(self, seen: CaseSeen, workflow: str, *, revision: int) -> CaseRow:
        now = self._clock.now()
        salt = self._conductor.config.key_salt
        while self._store.cases.by_key(key := derive_key(seen.source, seen.name, revision, salt=salt)):
            revision += 1  # two names with one key: the next revision's key is another one
        source = next((s for s in self._conductor.config.sources if (s.name or s.path.name) == seen.source), None)
        row = self._store.cases.add(
            key=key, source=seen.source, name=seen.name, revision=revision, directory=str(seen.directory),
            workflow=workflow, state=CaseState.SETTLING, reason=seen.problem or seen.note,
            priority=source.priority if source else 0, created_at=now, updated_at=now,
        )  # fmt: skip
        self._conductor.note(row, kind="seen", text="seen" if revision == 1 else f"seen as revision {revision}")
        return row

    def _look(self, row: CaseRow, seen: CaseSeen) -> None:
        boot = self._clock.boot_id()
        if row.look != seen.snapshot or row.look_boot != boot:
            self._store.cases.update(
                row.id,
                look=seen.snapshot,
                look_boot=boot,
                look_since=self._clock.elapsed(),
                directory=str(seen.directory),
            )

    def _accept(self, row: CaseRow, seen: CaseSeen) -> CaseRow:
        self._store.cases.update(
            row.id, fingerprint=seen.fingerprint, snapshot=seen.snapshot, look=seen.snapshot, files=seen.files,
            size=seen.size, directory=str(seen.directory),
        )  # fmt: skip
        self._conductor.move(row, CaseState.READY)
        row = self._again(row)
        self._conductor.note(row, kind="accepted", text=f"complete: {counted(seen.files, 'file')}, {size(seen.size)}")
        if row.workflow:
            self._conductor.begin(row)
        return self._again(row)

    def _next_revision(self, row: CaseRow, seen: CaseSeen, workflow: str) -> CaseRow:
        self._store.cases.update(row.id, look=row.snapshot)  # the change belongs to the new revision
        first = row.workflow and self._conductor.config.workflows.get(row.workflow)
        done = self._store.parts.finished(row.id, [first.steps[0].name]) if first else []
        live = self._store.parts.live_of_case(row.id)
        alive = self._store.parts.maybe_alive(row.id) or any(self._conductor.may_live(part) for part in live)
        # a run that may live on a host is never overtaken: the old revision goes on to its own end
        if not done and not alive and row.state not in (CaseState.DONE, CaseState.CANCELLED):
            # what it was accepted for is no longer there to be taken
            for part in live:
                self._conductor.overtake(part)
            self._conductor.move(
                row, CaseState.CANCELLED, reason=f"its content changed: revision {row.revision + 1} follows"
            )
            self._conductor.note(row, kind="cancelled", text="its content changed before it was taken")
        return self._add(seen, workflow or row.workflow, revision=row.revision + 1)

    def _case_vanished(self, seen: CaseVanished) -> None:
        row = self._store.cases.newest(seen.source, seen.name)
        if row is not None and row.state is CaseState.SETTLING:
            self._store.cases.update(row.id, look="")  # should it come back, even unchanged, it is news
            self._conductor.move(row, CaseState.CANCELLED, reason="it vanished before it was complete")
            self._conductor.note(row, kind="cancelled", text="vanished before it was complete")

    def _again(self, row: CaseRow) -> CaseRow:
        found = self._store.cases.by_id(row.id)
        assert found is not None  # noqa: S101  cases are never deleted
        return found

    # ---- hosts, GPUs, alerts ----

    def _host_seen(self, seen: HostSeen) -> None:
        if seen.reachable:
            before = self._store.hosts.get(seen.host).free_bytes
            has_room = seen.free_bytes is not None and before is not None and seen.free_bytes - before > MORE_ROOM
            self._store.hosts.update(
                seen.host, load=seen.load, cores=seen.cores, free_bytes=seen.free_bytes, total_bytes=seen.total_bytes,
                seen_at=self._clock.now(),
            )  # fmt: skip
            self._conductor.dispatch.host_answers(seen.host, has_room=has_room)
        else:
            self._conductor.dispatch.host_failed(seen.host, seen.problem, hint=f"mqi host test {seen.host}")

    def _gpus_seen(self, seen: GpusSeen) -> None:
        if seen.problem:
            self._alert(Alert(f"gpus:{seen.host}", True, f"the GPUs of {seen.host} can't be read: {seen.problem}"))
            return
        self._alert(Alert(f"gpus:{seen.host}", False, f"the GPUs of {seen.host} can be read again"))
        self._store.gpus.saw(seen.host, seen.gpus, now=self._clock.now())
        self._alert(self._gone(seen))
        self._conductor.dispatch.reconcile_gpus(seen.host)
        self._conductor.dispatch.wake(f"gpu:{seen.host}")

    def _gone(self, seen: GpusSeen) -> Alert:
        """Tell of GPUs that a look did not find. One that is held back is no news: that is how an operator takes note."""
        topic, now = f"gpu-gone:{seen.host}", self._clock.now()
        gone = [
            gpu
            for gpu in self._store.gpus.all()
            if gpu.host == seen.host and not (gpu.present or gpu.held or gpu.uuid in seen.unusable)
            and now - gpu.seen_at < GONE_TOLD
        ]  # fmt: skip
        if not gone:
            return Alert(topic, False, f"no GPU of {seen.host} is missed any more")
        names = ", ".join(f"GPU {gpu.number} ({gpu.uuid})" for gpu in gone)
        hint = f"look at the card; if it was taken out: mqi gpu hold {gone[0].uuid}"
        return Alert(topic, True, f"host {seen.host} no longer lists {names}", hint)

    def _alert(self, alert: Alert) -> None:
        now = self._clock.now()
        if alert.active:
            if self._store.switches.raise_alert(alert.topic, text=alert.text, hint=alert.hint, now=now):
                self._store.events.add(at=now, case=None, kind="alert", actor="patrol", text=alert.text)
        elif self._store.switches.clear_alert(alert.topic):
            self._store.events.add(
                at=now, case=None, kind="all-clear", actor="patrol", text=alert.text or f"all clear: {alert.topic}"
            )
