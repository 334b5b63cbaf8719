"""The schema's history: numbered steps, each applied once, in one transaction, after a backup of what was there.

`PRAGMA user_version` is the number of the last step that was applied. A released step never changes.
"""

from __future__ import annotations

from typing import Any

_INITIAL = (
    """CREATE TABLE case_ (
        id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, source TEXT NOT NULL, name TEXT NOT NULL,
        revision INTEGER NOT NULL, directory TEXT NOT NULL, workflow TEXT NOT NULL, fingerprint TEXT NOT NULL,
        files INTEGER NOT NULL, size INTEGER NOT NULL, snapshot TEXT NOT NULL, look TEXT NOT NULL,
        look_boot TEXT NOT NULL, look_since REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('settling','ready','running','waiting','held','done','cancelled')),
        step TEXT NOT NULL, reason TEXT NOT NULL, hint TEXT NOT NULL, until REAL, priority INTEGER NOT NULL,
        paused INTEGER NOT NULL, cancelling INTEGER NOT NULL, cleared TEXT NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL, ended_at REAL,
        UNIQUE (source, name, revision))""",
    "CREATE INDEX case_state ON case_ (state, id)",
    "CREATE INDEX case_name ON case_ (name)",
    """CREATE TABLE part (
        id INTEGER PRIMARY KEY AUTOINCREMENT, case_id INTEGER NOT NULL REFERENCES case_ (id), step TEXT NOT NULL,
        part TEXT NOT NULL, attempt INTEGER NOT NULL, turn INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued','working','waiting','done','failed','cancelled')),
        current INTEGER NOT NULL, lane TEXT NOT NULL, host TEXT NOT NULL, job INTEGER NOT NULL, gpus INTEGER NOT NULL,
        tries INTEGER NOT NULL, losses INTEGER NOT NULL, cancel INTEGER NOT NULL, worker TEXT NOT NULL,
        lease_until REAL, due_at REAL, waiting_for TEXT NOT NULL, reason TEXT NOT NULL, hint TEXT NOT NULL,
        facts TEXT NOT NULL, progress_done REAL NOT NULL, progress_total REAL NOT NULL, progress_unit TEXT NOT NULL,
        created_at REAL NOT NULL, started_at REAL, ended_at REAL,
        UNIQUE (case_id, step, part, attempt))""",
    "CREATE INDEX part_live ON part (state, due_at) WHERE state IN ('queued','working','waiting')",
    "CREATE INDEX part_waiting ON part (waiting_for, id) WHERE state = 'waiting'",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, case_id INTEGER REFERENCES case_ (id),
        step TEXT NOT NULL, part TEXT NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL,
        text TEXT NOT NULL, detail TEXT NOT NULL)""",
    "CREATE INDEX event_case ON event (case_id, id)",
    """CREATE TABLE host (
        name TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('up','paused','probing')), held INTEGER NOT NULL,
        reason TEXT NOT NULL, hint TEXT NOT NULL, until REAL, failures INTEGER NOT NULL, load REAL, cores INTEGER,
        free_bytes INTEGER, total_bytes INTEGER, seen_at REAL)""",
    """CREATE TABLE gpu (
        uuid TEXT PRIMARY KEY, host TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, memory_total INTEGER,
        memory_used INTEGER, utilization INTEGER, temperature INTEGER, processes TEXT NOT NULL,
        present INTEGER NOT NULL, held INTEGER NOT NULL, lease_part_id INTEGER REFERENCES part (id),
        freed_at REAL, seen_at REAL NOT NULL)""",
    """CREATE TABLE worker (
        name TEXT PRIMARY KEY, lane TEXT NOT NULL, machine TEXT NOT NULL, pid INTEGER NOT NULL, busy INTEGER NOT NULL,
        started_at REAL NOT NULL, seen_at REAL NOT NULL)""",
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL UNIQUE, part_id INTEGER NOT NULL,
        lane TEXT NOT NULL, body BLOB NOT NULL, created_at REAL NOT NULL, sent_at REAL)""",
    "CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL",
    "CREATE INDEX outbox_part ON outbox (part_id)",
    "CREATE TABLE inbox (message TEXT PRIMARY KEY, received_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX inbox_age ON inbox (received_at)",
    "CREATE TABLE alert (topic TEXT PRIMARY KEY, text TEXT NOT NULL, hint TEXT NOT NULL, since REAL NOT NULL)",
    "CREATE TABLE flag (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)

_PLANS = ("ALTER TABLE part ADD COLUMN plan INTEGER NOT NULL DEFAULT 0",)

# A partial index serves a query only where the text of the query holds its condition word for word: bound values don't
# count. `IS NULL` and `IS NOT NULL` need no value, so they come first; `parts.py` writes the others as literals.
_FOR_MANY = (
    "ALTER TABLE part ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "UPDATE part SET priority = (SELECT priority FROM case_ WHERE case_.id = part.case_id) WHERE ended_at IS NULL",
    "DROP INDEX part_live",
    "DROP INDEX part_waiting",
    "CREATE INDEX part_live ON part (state DESC) WHERE state IN ('queued', 'working', 'waiting')",
    "CREATE INDEX part_due ON part (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX part_lease ON part (lease_until) WHERE lease_until IS NOT NULL",
    "CREATE INDEX part_waiting ON part (waiting_for, priority DESC, id) WHERE state = 'waiting'",
    """CREATE INDEX part_jobs ON part (host) WHERE job = 1 AND turn > 0
        AND (state IN ('queued', 'working', 'waiting') OR waiting_for = 'end')""",
    "CREATE INDEX gpu_lease ON gpu (lease_part_id) WHERE lease_part_id IS NOT NULL",
    "CREATE INDEX case_open ON case_ (state, priority DESC, id) WHERE ended_at IS NULL",
    "CREATE INDEX case_ended ON case_ (state, ended_at) WHERE ended_at IS NOT NULL",
    "CREATE INDEX case_source ON case_ (source, state, id)",
    # counting a million rows for every frame costs more than all else on it
    "CREATE TABLE tally (state TEXT PRIMARY KEY, cases INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO tally SELECT state, COUNT(*) FROM case_ GROUP BY state",
    """CREATE TRIGGER case_added AFTER INSERT ON case_ BEGIN
        INSERT INTO tally VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET cases = cases + 1; END""",
    """CREATE TRIGGER case_moved AFTER UPDATE OF state ON case_ WHEN OLD.state <> NEW.state BEGIN
        UPDATE tally SET cases = cases - 1 WHERE state = OLD.state;
        INSERT INTO tally VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET cases = cases + 1; END""",
    """CREATE TRIGGER case_removed AFTER DELETE ON case_ BEGIN
        UPDATE tally SET cases = cases - 1 WHERE state = OLD.state; END""",
)

# With cases there may be directories on hosts already, which are called by the key alone.
_OWNER = (
    """INSERT INTO flag (name, value) SELECT 'owner',
        CASE WHEN EXISTS (SELECT 1 FROM case_) THEN '' ELSE lower(hex(randomblob(3))) END""",
)

_FULL = ("ALTER TABLE host ADD COLUMN full INTEGER NOT NULL DEFAULT 0",)

MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the first schema", _INITIAL),
    ("steps that fan out list their parts first", _PLANS),
    ("no operation of the daemon reads a whole table", _FOR_MANY),
    ("directories on hosts bear the installation's mark", _OWNER),
    ("a host that is full is not one that does not answer", _FULL),
)
SCHEMA_VERSION = len(MIGRATIONS)


def schema_version(database: Any) -> int:
    """Return the number of the last migration that the database has seen."""
    return int(database.execute_sql("PRAGMA user_version").fetchone()[0])


def migrate(database: Any) -> int:
    """Apply what is missing, each step in a transaction of its own; return how many were applied.

    The caller holds the lock that keeps a second process from doing the same, and has made the backup.
    """
    before = schema_version(database)
    for number, (_, statements) in enumerate(MIGRATIONS[before:], before + 1):
        with database.atomic("EXCLUSIVE"):
            for statement in statements:
                database.execute_sql(statement)
            broken = database.execute_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise ValueError(f"migration {number} breaks {len(broken)} references")
            database.execute_sql(f"PRAGMA user_version = {number}")
    return SCHEMA_VERSION - before
