"""The patrol `state-backup`: a checked copy of the state database when the newest one has become too old."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mqi_cli import Alert, MqiError, PatrolContext, describe_os_error

TOPIC = "state-backup"


def patrol_backup(ctx: PatrolContext) -> None:
    """Make a copy when it is due. When it was last made is remembered on disk: a restart doesn't make one more."""
    plan = ctx.config.backup
    if plan is None:
        return
    stamp = ctx.data_dir / "last-backup.json"
    now = ctx.clock.now()
    last = _last(stamp)
    if last is not None and 0 <= now - last < plan.every and plan.directory.is_dir():
        return
    try:
        plan.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ctx.backup_state(plan.directory, keep=plan.keep)
    except (MqiError, OSError) as error:
        reason = error.message if isinstance(error, MqiError) else describe_os_error(error)
        hint = f"is there room in {plan.directory}, and may mqi write there? mqi doctor"
        ctx.report(Alert(TOPIC, True, f"the state database can't be backed up: {reason}", hint))
        return
    _note(stamp, now)
    ctx.report(Alert(TOPIC, False, "the state database is backed up again"))


def _last(stamp: Path) -> float | None:
    try:
        at = json.loads(stamp.read_text())["at"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(at) if isinstance(at, int | float) else None


def _note(stamp: Path, at: float) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = stamp.with_name(f".{stamp.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"at": at}))
    partial.replace(stamp)
