"""Named operations on hosts, GPUs and workers, on alerts and on the installation's switches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peewee import EXCLUDED

from mqi_cli.store.records import GpuRow, HostRow, LaneLoad, WorkerRow
from mqi_cli.store.statements import Rows, Statement, blank
from mqi_cli.store.tables import AlertTable, FlagTable, GpuTable, HostTable, WorkerTable

if TYPE_CHECKING:
    from mqi_cli.patrol import GpuSeen

# What runs for every event.
_HOST = Rows(HostTable, lambda: HostTable.select().where(HostTable.name == blank("name")))
_HOSTS = Rows(HostTable, lambda: HostTable.select().order_by(HostTable.name))
_LEASED_BY = Rows(GpuTable, lambda: GpuTable.select().where(GpuTable.lease == blank("part")).order_by(GpuTable.number))
_RELEASE = Statement(
    lambda: GpuTable.update({GpuTable.lease: None, GpuTable.freed_at: blank("now")}).where(
        GpuTable.lease == blank("part")
    )
)
_DRAIN = Statement(lambda: FlagTable.select(FlagTable.value).where(FlagTable.name == "drain"))


class Hosts:
    """Hosts, known by name; one that was never seen is up."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def get(self, name: str) -> HostRow:
        """Return a host's state."""
        for row in _HOST.all(self._database, name=name):
            return HostRow(**row)
        return HostRow(name, "up", False, "", "", None, 0, None, None, None, None, None, False)

    def all(self) -> list[HostRow]:
        """Return every host that was seen."""
        return [HostRow(**row) for row in _HOSTS.all(self._database)]

    def update(self, name: str, **fields: Any) -> None:
        """Change a host's columns; the host is added when it is new."""
        HostTable.insert(
            name=name, state="up", held=False, reason="", hint="", failures=0, full=False
        ).on_conflict_ignore().execute(self._database)
        HostTable.update(**fields).where(HostTable.name == name).execute(self._database)

    def forget(self, name: str) -> None:
        """Forget a host, unless an operator holds it."""
        HostTable.delete().where((HostTable.name == name) & ~HostTable.held).execute(self._database)

    def shift_times(self, seconds: float) -> None:
        """Move the time at which each paused host is asked again: the wall clock has jumped by so much."""
        HostTable.update(until=HostTable.until + seconds).where(HostTable.until.is_null(False)).execute(self._database)

    def paused(self) -> list[HostRow]:
        """Return the hosts that are not up."""
        return [row for row in self.all() if row.state != "up" or row.held]


class Gpus:
    """GPUs, known by UUID."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def all(self) -> list[GpuRow]:
        """Return every GPU, by host and index."""
        return self._rows(GpuTable.select().order_by(GpuTable.host, GpuTable.number))

    def on(self, host: str) -> list[GpuRow]:
        """Return a host's GPUs that are there, by index."""
        query = GpuTable.select().where((GpuTable.host == host) & GpuTable.present)
        return self._rows(query.order_by(GpuTable.number))

    def leased_by(self, part: int) -> list[GpuRow]:
        """Return the GPUs that a part has."""
        return _gpus(_LEASED_BY.all(self._database, part=part))

    def lease(self, part: int, uuids: Sequence[str]) -> None:
        """Give GPUs to a part. Raises `ValueError` when one of them is taken, which the caller's lock rules out."""
        changed = (
            GpuTable.update(lease=part)
            .where(GpuTable.uuid.in_(list(uuids)) & GpuTable.lease.is_null())
            .execute(self._database)
        )
        if changed != len(uuids):
            raise ValueError("a GPU was leased twice")

    def move(self, former: int, part: int) -> None:
        """Hand the GPUs of a part's former attempt on to its next one."""
        GpuTable.update(lease=part).where(GpuTable.lease == former).execute(self._database)

    def release(self, part: int, *, now: float) -> int:
        """Take a part's GPUs back; return how many."""
        return int(_RELEASE.run(self._database, part=part, now=now).rowcount)

    def forget(self, host: str) -> None:
        """Forget the GPUs of a host but for those that a part has or an operator holds: they count as gone."""
        GpuTable.update(present=False).where(GpuTable.host == host).execute(self._database)
        kept = GpuTable.lease.is_null(False) | GpuTable.held
        GpuTable.delete().where((GpuTable.host == host) & ~kept).execute(self._database)

    def leased_on(self, host: str) -> list[GpuRow]:
        """Return a host's GPUs that parts have, whether they are there or not."""
        return self._rows(GpuTable.select().where((GpuTable.host == host) & GpuTable.lease.is_null(False)))

    def hold(self, uuid: str, *, held: bool) -> None:
        """Hold a GPU back from being leased, or give it free."""
        GpuTable.update(held=held).where(GpuTable.uuid == uuid).execute(self._database)

    def saw(self, host: str, gpus: Sequence[GpuSeen], *, now: float) -> None:
        """Take in a look at a host: all its GPUs; those that are missing are not there."""
        GpuTable.update(present=False).where(GpuTable.host == host).execute(self._database)
        for gpu in gpus:
            GpuTable.insert(
                uuid=gpu.uuid, host=host, number=gpu.index, name=gpu.name, memory_total=gpu.memory_total,
                memory_used=gpu.memory_used, utilization=gpu.utilization, temperature=gpu.temperature,
                processes={"all": gpu.processes, "foreign": gpu.foreign}, present=True, held=False, seen_at=now,
            ).on_conflict(
                conflict_target=[GpuTable.uuid],
                update={
                    column: getattr(EXCLUDED, column.column_name)
                    for column in (
                        GpuTable.host, GpuTable.number, GpuTable.name, GpuTable.memory_total, GpuTable.memory_used,
                        GpuTable.utilization, GpuTable.temperature, GpuTable.processes, GpuTable.present, GpuTable.seen_at,
                    )
                },
            ).execute(self._database)  # fmt: skip

    def shift_times(self, seconds: float) -> None:
        """Move the times at which GPUs were looked at and became free: the wall clock has jumped by so much."""
        GpuTable.update(seen_at=GpuTable.seen_at + seconds, freed_at=GpuTable.freed_at + seconds).execute(
            self._database
        )

    def _rows(self, query: Any) -> list[GpuRow]:
        return _gpus(query.dicts().execute(self._database))


def _gpus(rows: Iterable[Mapping[str, Any]]) -> list[GpuRow]:
    return [GpuRow(**{**row, **_processes(row["processes"])}) for row in rows]


def _processes(seen: Any) -> dict[str, tuple[int, ...]]:
    """Return who computes on a GPU; an earlier version wrote a list, and could not tell who is foreign."""
    known = seen if isinstance(seen, dict) else {"all": seen or ()}
    return {"processes": tuple(known["all"]), "foreign": tuple(known.get("foreign", ()))}


class Workers:
    """Workers and when they last gave a sign of life."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def alive(self, name: str, *, lane: str, machine: str, pid: int, busy: int, started_at: float, now: float) -> None:
        """Take in a worker's sign of life."""
        WorkerTable.replace(
            name=name, lane=lane, machine=machine, pid=pid, busy=busy, started_at=started_at, seen_at=now
        ).execute(self._database)

    def all(self) -> list[WorkerRow]:
        """Return every worker, by lane and name."""
        query = WorkerTable.select().order_by(WorkerTable.lane, WorkerTable.name)
        return [WorkerRow(**row) for row in query.dicts().execute(self._database)]

    def left(self, name: str) -> None:
        """Take out a worker that has ended in good order."""
        WorkerTable.delete().where(WorkerTable.name == name).execute(self._database)

    def forget(self, *, before: float) -> None:
        """Forget the workers that gave no sign since `before`."""
        WorkerTable.delete().where(WorkerTable.seen_at < before).execute(self._database)


class Switches:
    """Switches and alerts of the whole installation."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def drain(self) -> str:
        """Return why no new work is taken; empty when it is."""
        row = _DRAIN.run(self._database).fetchone()
        return str(row[0]) if row else ""

    def set_drain(self, reason: str) -> None:
        """Take no new work, for this reason; with an empty reason, take it again."""
        if reason:
            FlagTable.replace(name="drain", value=reason).execute(self._database)
        else:
            FlagTable.delete().where(FlagTable.name == "drain").execute(self._database)

    def owner(self) -> str:
        """Return the installation's mark."""
        query = FlagTable.select(FlagTable.value).where(FlagTable.name == "owner")
        return next((str(value) for (value,) in query.tuples().execute(self._database)), "")

    def loads(self) -> dict[str, LaneLoad]:
        """Return what the broker held of each lane when the conductor last looked."""
        query = FlagTable.select(FlagTable.value).where(FlagTable.name == "lanes")
        for (value,) in query.tuples().execute(self._database):
            return {lane: LaneLoad(*counts) for lane, counts in json.loads(value).items()}
        return {}

    def set_loads(self, loads: Mapping[str, LaneLoad]) -> None:
        """Note what the broker holds of each lane."""
        value = json.dumps(loads)
        FlagTable.replace(name="lanes", value=value).execute(self._database)

    def alerts(self) -> list[dict[str, Any]]:
        """Return what a person should know now, oldest first."""
        return list(AlertTable.select().order_by(AlertTable.since).dicts().execute(self._database))

    def raise_alert(self, topic: str, *, text: str, hint: str, now: float) -> bool:
        """Raise an alert; False when it is already there (its text is brought up to date)."""
        changed = AlertTable.update(text=text, hint=hint).where(AlertTable.topic == topic).execute(self._database)
        if not changed:
            AlertTable.insert(topic=topic, text=text, hint=hint, since=now).execute(self._database)
        return not changed

    def clear_alert(self, topic: str) -> bool:
        """Clear an alert; False when there was none."""
        return bool(AlertTable.delete().where(AlertTable.topic == topic).execute(self._database))
