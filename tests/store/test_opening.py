"""Opening a state database: what is made, and what is refused with a sentence, a hint and exit code 6."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mqi_cli.errors import StateError
from mqi_cli.layout import OWNER_PATTERN
from mqi_cli.store import database, migrations, open_store
from mqi_cli.store.database import APPLICATION_ID, file_system, prepare


def refusal(path: Path) -> StateError:
    """Return the error that opening gives, checked for what every refusal has."""
    with pytest.raises(StateError) as caught:
        open_store(path)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    return caught.value


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def pragma(path: Path, name: str) -> int:
    connection = sqlite3.connect(path)
    value = int(connection.execute(f"PRAGMA {name}").fetchone()[0])
    connection.close()
    return value


def test_a_new_database_is_the_owners_alone_and_says_whose_it_is(path: Path) -> None:
    open_store(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert pragma(path, "application_id") == APPLICATION_ID
    assert pragma(path, "user_version") == migrations.SCHEMA_VERSION


def test_a_newer_schema_is_refused(path: Path) -> None:
    open_store(path).close()
    execute(path, "PRAGMA user_version = 99")

    error = refusal(path)

    assert "schema 99" in error.message
    assert "update mqi" in error.hint


@pytest.mark.parametrize("version", [0, 1])
def test_another_programs_database_is_refused_and_left_as_it_is(path: Path, version: int) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE theirs (x)")
    execute(path, f"PRAGMA user_version = {version}")
    before = path.read_bytes()

    assert "not one of mqi's" in refusal(path).message

    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"dear diary, " * 1000)

    assert "mqi db restore" in refusal(path).hint

    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_second_hard_link_is_refused(path: Path) -> None:
    open_store(path).close()
    path.with_name("other.db").hardlink_to(path)

    assert "second hard link" in refusal(path).message


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /srv/my\\040share rw,relatime shared:7 - nfs4 nas:/x rw
31 30 8:2 / /srv/my\\040share/disk rw - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/var/lib/mqi", "ext4"),
        ("/srv/my share/mqi", "nfs4"),
        ("/srv/my share", "nfs4"),
        ("/srv/my share/disk/mqi", "xfs"),
        ("/srv/my shares", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path, place: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)

    assert file_system(Path(place), mounts=mounts) == kind


def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = path.parent.parent / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {path.parent} rw - nfs4 nas:/x rw\n")
    monkeypatch.setattr(database, "file_system", lambda place: file_system(place, mounts=mounts))

    assert "network file system (nfs4)" in refusal(path).message

    assert not path.exists()


BEFORE = migrations.SCHEMA_VERSION
FURTHER = ("a further one", ("CREATE TABLE more (x)", "INSERT INTO more VALUES (1)"))
BROKEN = ("a broken one", ("CREATE TABLE more (x)", "INSERT INTO nowhere VALUES (1)"))


def further(monkeypatch: pytest.MonkeyPatch, step: tuple[str, tuple[str, ...]]) -> None:
    """Let the schema have one more step."""
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, step))
    for module in (migrations, database):
        monkeypatch.setattr(module, "SCHEMA_VERSION", BEFORE + 1)


def test_a_migration_backs_up_what_was_there_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()
    further(monkeypatch, FURTHER)

    assert prepare(path) == 1

    assert pragma(path, "user_version") == BEFORE + 1
    (copy,) = (path.parent / "backups").glob("*.db")
    assert f"before-schema-{BEFORE + 1}" in copy.name
    assert pragma(copy, "user_version") == BEFORE


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()
    further(monkeypatch, BROKEN)

    with pytest.raises(StateError, match="nowhere"):
        prepare(path)

    assert pragma(path, "user_version") == BEFORE
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        execute(path, "SELECT * FROM more")


def test_each_installation_has_a_mark_that_stays(path: Path) -> None:
    store = open_store(path)
    mark = store.owner
    store.close()
    other = open_store(path.with_name("other.db"))
    assert OWNER_PATTERN.match(mark) and len(mark) == 6 and open_store(path).owner == mark != other.owner


ONE_CASE = """INSERT INTO case_ (key, name, revision, source, directory, workflow, fingerprint, files, size, snapshot, look, look_boot,
    look_since, state, step, reason, hint, priority, paused, cancelling, cleared, created_at, updated_at)
    VALUES ('caaaaaaaaaa', 'case', 1, 'in', '/in/case', 'qa', '', 1, 1, '', '', '', 0, 'done', '', '', '', 0, 0, 0, '[]', 1, 1)"""


def test_one_that_had_cases_before_there_were_marks_has_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (migrations, database):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:3])
    store = open_store(path)
    store.close()
    execute(path, ONE_CASE)
    monkeypatch.undo()
    assert open_store(path).owner == ""


MAKE = "import sys, pathlib; from mqi_cli.store.database import prepare; print(prepare(pathlib.Path(sys.argv[1])))"


def test_of_processes_that_create_at_once_one_does_and_all_go_on(path: Path) -> None:
    program = [sys.executable, "-c", MAKE, str(path)]
    running = [subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]

    ends = [(child.communicate(timeout=60), child.returncode) for child in running]

    assert sorted(out.strip() for (out, _), _ in ends) == ["0", "0", str(migrations.SCHEMA_VERSION)], ends
    assert [code for _, code in ends] == [0, 0, 0]


def test_a_full_disk_is_named_also_where_sqlite_has_rolled_back_by_itself(path: Path) -> None:
    store = open_store(path)
    store.database.execute_sql("PRAGMA max_page_count = 1")  # which SQLite takes for a full disk
    for _ in range(2):
        with pytest.raises(StateError, match="disk is full") as caught, store.transaction(), store.transaction():
            for number in range(2000):
                store.events.add(at=number, case=None, kind="test", actor="test", text="x" * 1000)
        assert "make space" in caught.value.hint
    store.database.execute_sql("PRAGMA max_page_count = 1000000")
    with store.transaction():
        store.events.add(at=1.0, case=None, kind="test", actor="test", text="again")
    assert [event.text for event in store.events.latest(limit=9)] == ["again"]
    store.close()
