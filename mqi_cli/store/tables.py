"""The tables of the state database, as Peewee sees them. The migrations make them; nothing here creates anything.

No table is bound to a database: every operation passes its own, so that several stores can be open in one process.
Times are wall seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
from typing import Any

from peewee import AutoField, BlobField, BooleanField, Field, FloatField, IntegerField, Model, TextField


class JsonField(Field):
    """A JSON value in a text column."""

    field_type = "TEXT"

    def db_value(self, value: Any) -> str | None:
        """Return the text that is stored."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def python_value(self, value: str | None) -> Any:
        """Return the value that was stored."""
        return None if value is None else json.loads(value)


class CaseTable(Model):
    """One revision of a case. `look` is the last snapshot seen, `snapshot` the one that was accepted."""

    id = AutoField()
    key = TextField()
    source = TextField()
    name = TextField()
    revision = IntegerField()
    directory = TextField()
    workflow = TextField()
    fingerprint = TextField()
    files = IntegerField()
    size = IntegerField()
    snapshot = TextField()
    look = TextField()
    look_boot = TextField()
    look_since = FloatField()  # boot time, in the boot that look_boot names
    state = TextField()
    step = TextField()
    reason = TextField()
    hint = TextField()
    until = FloatField(null=True)
    priority = IntegerField()
    paused = BooleanField()
    cancelling = BooleanField()
    cleared = JsonField()
    created_at = FloatField()
    updated_at = FloatField()
    ended_at = FloatField(null=True)

    class Meta:
        table_name = "case_"


class TallyTable(Model):
    """How many cases there are in each state. Triggers on the table of cases keep it."""

    state = TextField(primary_key=True)
    cases = IntegerField()

    class Meta:
        table_name = "tally"


class PartTable(Model):
    """One attempt of one part of a step: a step run. `current` is False for what a rerun has left behind.

    `plan` marks the one that lists the parts of a step that fans out.
    """

    id = AutoField()
    case = IntegerField(column_name="case_id")
    step = TextField()
    part = TextField()
    attempt = IntegerField()
    turn = IntegerField()
    state = TextField()
    current = BooleanField()
    lane = TextField()
    host = TextField()
    job = BooleanField()
    gpus = IntegerField()
    plan = BooleanField()
    tries = IntegerField()
    losses = IntegerField()
    cancel = BooleanField()
    worker = TextField()
    lease_until = FloatField(null=True)
    due_at = FloatField(null=True)
    waiting_for = TextField()
    priority = IntegerField()  # its case's, kept here so that those who wait are found in order
    reason = TextField()
    hint = TextField()
    facts = JsonField()
    progress_done = FloatField()
    progress_total = FloatField()
    progress_unit = TextField()
    created_at = FloatField()
    started_at = FloatField(null=True)
    ended_at = FloatField(null=True)

    class Meta:
        table_name = "part"


class EventTable(Model):
    """What happened, in the order in which it was recorded. `text` is one sentence without names."""

    id = AutoField()
    at = FloatField()
    case = IntegerField(column_name="case_id", null=True)
    step = TextField()
    part = TextField()
    attempt = IntegerField()
    kind = TextField()
    actor = TextField()
    text = TextField()
    detail = TextField()

    class Meta:
        table_name = "event"


class HostTable(Model):
    """A host as it was last seen. `until` is when a paused one is tried again; `held` is set by the operator.

    `full` is set for one that is paused because its disk or quota is: that it answers does not end this.
    """

    name = TextField(primary_key=True)
    state = TextField()
    held = BooleanField()
    reason = TextField()
    hint = TextField()
    until = FloatField(null=True)
    failures = IntegerField()
    load = FloatField(null=True)
    cores = IntegerField(null=True)
    free_bytes = IntegerField(null=True)
    total_bytes = IntegerField(null=True)
    seen_at = FloatField(null=True)
    full = BooleanField()

    class Meta:
        table_name = "host"


class GpuTable(Model):
    """A GPU, by UUID. `lease` is the part that has it."""

    uuid = TextField(primary_key=True)
    host = TextField()
    number = IntegerField()
    name = TextField()
    memory_total = IntegerField(null=True)
    memory_used = IntegerField(null=True)
    utilization = IntegerField(null=True)
    temperature = IntegerField(null=True)
    processes = JsonField()
    present = BooleanField()
    held = BooleanField()
    lease = IntegerField(column_name="lease_part_id", null=True)
    freed_at = FloatField(null=True)
    seen_at = FloatField()

    class Meta:
        table_name = "gpu"


class WorkerTable(Model):
    """A worker as it last gave a sign of life."""

    name = TextField(primary_key=True)
    lane = TextField()
    machine = TextField()
    pid = IntegerField()
    busy = IntegerField()
    started_at = FloatField()
    seen_at = FloatField()

    class Meta:
        table_name = "worker"


class OutboxTable(Model):
    """A command that was decided on; sent by the relay, kept until its turn has ended."""

    id = AutoField()
    message = TextField()
    part = IntegerField(column_name="part_id")
    lane = TextField()
    body = BlobField()
    created_at = FloatField()
    sent_at = FloatField(null=True)

    class Meta:
        table_name = "outbox"


class InboxTable(Model):
    """Ids of events that were applied: a second copy changes nothing."""

    message = TextField(primary_key=True)
    received_at = FloatField()

    class Meta:
        table_name = "inbox"
        without_rowid = True


class AlertTable(Model):
    """What a person should know now."""

    topic = TextField(primary_key=True)
    text = TextField()
    hint = TextField()
    since = FloatField()

    class Meta:
        table_name = "alert"


class FlagTable(Model):
    """Switches of the whole installation: `drain` with its reason, and what is known of it: `owner`, `lanes`."""

    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "flag"
