"""A migration that is killed at any of its statements leaves the old schema or a newer one, whole, and a copy of the old."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mqi_cli.case import CaseState
from mqi_cli.store import migrations, open_store
from mqi_cli.store.database import APPLICATION_ID

# Opens the database again and again, each time in a child of its own that is killed before its N-th statement, until one
# comes to the end.
_KILLED = """\
import os, shutil, signal, sys
from pathlib import Path
import peewee
from mqi_cli.store import open_store

old, place = Path(sys.argv[1]), Path(sys.argv[2])
execute = peewee.SqliteDatabase.execute_sql
left = 0

def counted(self, *args, **more):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, *args, **more)

for number in range(1, 500):
    path = place / str(number) / "state.db"
    path.parent.mkdir()
    shutil.copyfile(old, path)
    pid = os.fork()
    if pid == 0:
        left, peewee.SqliteDatabase.execute_sql = number, counted
        open_store(path).close()
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(number)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the first schema, with a case."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path, isolation_level=None) as database:
        for statement in migrations.MIGRATIONS[0][1]:
            database.execute(statement)
        database.execute(
            "INSERT INTO case_ VALUES (1, 'abcdefghijk', 'incoming', 'case', 1, '/in/case', 'qa', 'f', 3, 99, '{}', '', '', 0,"
            " 'held', 'upload', 'it was full', '', NULL, 0, 0, 0, '[]', 1, 1, NULL)"
        )
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    return path


def look(path: Path) -> tuple[int, int]:
    """Return the schema and the number of cases of a database that must be sound."""
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        cases = database.execute("SELECT COUNT(*) FROM case_").fetchone()[0]
    database.close()
    assert ("tally" in names) == (version >= 3), "what a schema has goes with its number"
    return version, cases


def test_killed_at_any_statement_it_is_old_or_new_with_a_copy_and_the_next_start_goes_on(
    old: Path, tmp_path: Path
) -> None:
    place = tmp_path / "killed"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(old), str(place)], capture_output=True, text=True, check=True, timeout=120
    )
    tried = int(done.stdout)
    assert tried > sum(len(statements) for _, statements in migrations.MIGRATIONS[1:])
    seen = set()
    for number in range(1, tried + 1):
        path = place / str(number) / "state.db"
        version, cases = look(path)
        seen.add(version)
        assert cases == 1
        copies = [look(copy) for copy in (path.parent / "backups").glob("*.db")]
        assert version == 1 or (1, 1) in copies, f"killed at statement {number}"

        with contextlib.closing(open_store(path)) as store:
            assert [row.state for row in store.cases.listing(limit=9)] == [CaseState.HELD]
            assert store.cases.counts()[CaseState.HELD] == 1
        assert look(path)[0] == migrations.SCHEMA_VERSION
        shutil.rmtree(path.parent)
    assert seen == set(range(1, migrations.SCHEMA_VERSION + 1))
