"""Hosts and GPUs as commands list them: what the config names, joined with what was last seen and who has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqi_cli.config.loaded import Config
    from mqi_cli.store import Store


def listed_hosts(config: Config, store: Store) -> list[dict[str, Any]]:
    """Return the config's hosts with what was last seen of each."""
    rows = {row.name: row for row in store.hosts.all()}
    listed = []
    for name, section in config.hosts.items():
        row = rows.get(name) or store.hosts.get(name)
        state = "held" if row.held else row.state
        listed.append(
            {
                "name": name,
                "type": section.type,
                "state": state,
                "reason": row.reason,
                "hint": row.hint,
                "until": row.until,
                "load": row.load,
                "cores": row.cores,
                "free_bytes": row.free_bytes,
                "total_bytes": row.total_bytes,
                "seen_at": row.seen_at,
                "jobs": store.parts.jobs_on(name),
                "jobs_limit": section.limits.jobs,
            }
        )
    return listed


def listed_gpus(store: Store) -> list[dict[str, Any]]:
    """Return every GPU with what was last seen of it, and who has it."""
    rows = store.gpus.all()
    parts = store.parts.by_ids(row.lease for row in rows if row.lease is not None)
    listed = []
    for row in rows:
        part = parts.get(row.lease) if row.lease is not None else None
        case = store.cases.by_id(part.case) if part else None
        lease = f"{case.key}/{part.step}{'/' + part.part if part.part else ''}" if case and part else None
        listed.append(
            {
                "host": row.host,
                "index": row.number,
                "uuid": row.uuid,
                "name": row.name,
                "present": row.present,
                "memory_total": row.memory_total,
                "memory_used": row.memory_used,
                "utilization": row.utilization,
                "temperature": row.temperature,
                "processes": list(row.processes),
                "foreign": list(row.foreign),
                "held": row.held,
                "lease": lease,
                "seen_at": row.seen_at,
            }
        )
    return listed
