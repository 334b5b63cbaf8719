"""Backups, restores, damage, and processes that die in the middle of a transaction."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from mqi_cli.errors import StateError
from mqi_cli.store import Store, open_store
from mqi_cli.store.backup import backup, check, restore


def fill(store: Store, count: int, *, start: int = 0) -> None:
    """Write events in pairs, one transaction a pair."""
    for number in range(start, start + count):
        with store.transaction():
            for _ in range(2):
                store.events.add(at=float(number), case=None, kind="test", actor="test", text=f"{number:05} " * 40)


def events(path: Path) -> int:
    connection = sqlite3.connect(path)
    count = int(connection.execute("SELECT count(*) FROM event").fetchone()[0])
    connection.close()
    return count


def test_a_backup_taken_while_another_connection_writes_is_sound_and_of_one_moment(store: Store, path: Path) -> None:
    fill(store, 5)
    ended = threading.Event()

    def write() -> None:
        other = open_store(path)
        number = 5
        while not ended.is_set():
            fill(other, 1, start=number)
            number += 1
        other.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [backup(path, path.parent / "copies", label=str(number)) for number in range(5)]
    finally:
        ended.set()
        writer.join()

    for copy in copies:
        assert check(copy) == []
        assert events(copy) >= 10
        assert events(copy) % 2 == 0
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not list((path.parent / "copies").glob(".*"))


def test_restore_puts_the_copy_in_place_and_keeps_the_former_one(path: Path) -> None:
    store = open_store(path)
    fill(store, 3)
    copy = backup(path, path.parent / "copies")
    fill(store, 4)
    store.close()

    former = restore(copy, path)

    assert former is not None
    assert (events(path), events(former), events(copy)) == (6, 14, 6)
    open_store(path).close()


CRASH = """
import os, pathlib, sys
from mqi_cli.store import open_store
store = open_store(pathlib.Path(sys.argv[1]))
with store.transaction():
    store.events.add(at=1.0, case=None, kind="test", actor="test", text="late")
os._exit(9)
"""


def test_the_former_databases_log_of_changes_does_not_reach_the_restored_one(path: Path) -> None:
    store = open_store(path)
    fill(store, 3)
    copy = backup(path, path.parent / "copies")
    store.close()
    assert subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False).returncode == 9

    former = restore(copy, path)

    assert former is not None
    assert (events(path), events(former)) == (6, 7)
    assert check(path) == []


def test_a_damaged_copy_is_not_restored(store: Store, path: Path) -> None:
    fill(store, 100)
    copy = backup(path, path.parent / "copies")
    damage(copy)

    with pytest.raises(StateError) as caught:
        restore(copy, path)

    assert caught.value.exit_code == 6
    assert check(path) == []


def damage(path: Path) -> None:
    """Overwrite a page in the middle."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)


def test_a_damaged_page_is_found(path: Path) -> None:
    store = open_store(path)
    fill(store, 200)
    store.close()
    assert check(path) == []

    damage(path)

    try:
        assert check(path)
    except StateError as error:  # damage that ends the look itself
        assert "db restore" in error.hint


PAIRS = """
import pathlib, sys
from mqi_cli.store import open_store
store = open_store(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
while True:
    with store.transaction():
        for _ in range(2):
            store.events.add(at=1.0, case=None, kind="test", actor="test", text="x" * 3000)
    print("+", flush=True)
"""


def test_a_process_killed_in_the_middle_of_transactions_leaves_before_or_after_never_between(path: Path) -> None:
    random = Random(7)
    before = 0
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", PAIRS, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(random.randrange(1, 20)):
            assert child.stdout.readline() == "+\n"
            before += 2
        child.kill()
        rest, _ = child.communicate()
        before += 2 * rest.count("+")

        found = events(path)
        assert found % 2 == 0
        assert found in (before, before + 2)  # the last one may be written and not yet told
        before = found
    assert check(path) == []
