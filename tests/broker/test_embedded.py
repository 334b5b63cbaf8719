"""The embedded queue's own ways to fail, on real files, and what becomes of them."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import sqlite
from mqi_cli.broker import embedded, queue_file
from mqi_cli.broker.base import Outgoing
from mqi_cli.broker.doorbell import Bell, lane_directory, lives, ring_all
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.errors import BrokerRefused, BrokerUnreachable
from servers.broker_place import Place, outgoing, take_all, taken, wait_for


@pytest.fixture
def place(embedded_place: Place) -> Place:
    return embedded_place


@pytest.fixture
def path(place: Place) -> Path:
    return Path(place.given["path"])


def bells(path: Path, lane: str = "sftp") -> list[Path]:
    return list(lane_directory(path.with_name(path.name + ".bells"), lane).iterdir())


def connect(path: Path) -> Any:
    """Open the file beside the broker, with the SQLite that it uses: two libraries in one process break each other's locks."""
    return sqlite.driver().connect(str(path), isolation_level=None)


def test_a_message_that_its_lane_still_holds_is_not_taken_up_twice(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing("1", "1"))
    held = taken(broker)
    broker.publish(outgoing("1"))
    assert broker.take("sftp", timeout=0) is None

    broker.ack(held)
    broker.publish(outgoing("1"))

    assert take_all(broker) == ["1"]


def test_every_message_survives_a_publisher_that_is_killed_right_after(place: Place) -> None:
    process = place.process(
        "broker.publish([Outgoing('sftp', str(number), b'') for number in range(50)]); tell('out'); time.sleep(600)"
    )
    assert process.stdout is not None and process.stdout.readline()
    process.kill()

    assert len(take_all(place.open())) == 50


def test_a_taker_that_is_stopped_keeps_what_it_took(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing("1"))
    process = place.process("tell(broker.take('sftp', timeout=20).id); time.sleep(600)")
    assert process.stdout is not None and process.stdout.readline()

    process.send_signal(signal.SIGSTOP)  # it lives: it may go on at any time
    assert broker.take("sftp", timeout=2.5) is None

    process.kill()
    assert taken(broker).id == "1"


def test_what_the_dead_held_comes_back_even_to_a_lane_that_is_never_empty(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing("held"))
    process = place.process("tell(broker.take('sftp', timeout=20).id); time.sleep(600)")
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    process.wait()

    found: list[str] = []

    def comes_back() -> bool:
        broker.publish(outgoing(f"other-{len(found)}"))
        delivery = taken(broker)
        broker.ack(delivery)
        found.append(delivery.id)
        return delivery.id == "held"

    wait_for(comes_back, limit=10)


def test_the_bells_of_the_dead_are_taken_down(place: Place, path: Path) -> None:
    process = place.process("broker.take('sftp', timeout=0); tell('there'); time.sleep(600)")
    assert process.stdout is not None and process.stdout.readline()
    assert len(bells(path)) == 1
    process.kill()
    process.wait()

    broker = place.open()
    broker.publish(outgoing("1"))
    assert bells(path) == []

    broker.take("sftp", timeout=0)
    assert len(bells(path)) == 1
    broker.close()
    assert bells(path) == []


def test_two_waiting_threads_get_the_two_messages_of_one_batch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "POLL_SECONDS", 30.0)  # so that only ringing can wake
    broker = place.open()
    broker.take("sftp", timeout=0)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(broker.take, "sftp", timeout=20) for _ in range(2)]
        start = time.monotonic()
        broker.publish(outgoing("1", "2"))

        assert {each.result().id for each in waiting} == {"1", "2"}  # type: ignore[union-attr]
    assert time.monotonic() - start < 10


def test_waiting_costs_next_to_no_processor_time(place: Place) -> None:
    broker = place.open()
    broker.take("sftp", timeout=0)
    before = resource.getrusage(resource.RUSAGE_SELF)

    broker.take("sftp", timeout=3.0)

    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.03  # one per cent


def test_a_file_that_another_keeps_locked_is_unreachable_and_then_not(
    place: Place, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_file, "BUSY_SECONDS", 0.2)
    broker = place.open()
    broker.publish(outgoing("1"))
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(BrokerUnreachable, match="locked"):
        broker.publish(outgoing("2"))

    other.execute("ROLLBACK")
    other.close()
    broker.publish(outgoing("2"))
    assert take_all(broker) == ["1", "2"]


def test_a_full_disk_is_unreachable_and_loses_nothing(place: Place) -> None:
    """A limit on the size of files stands for the full disk: SQLite sees a write that fails."""
    process = place.process(
        "import resource, signal\n"
        "from mqi_cli.errors import BrokerUnreachable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "broker.publish([Outgoing('sftp', '1', b'')])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    broker.publish([Outgoing('sftp', 'big', b'x' * 1_000_000)])\n"
        "except BrokerUnreachable as error:\n"
        "    tell([error.message, error.hint])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "broker.publish([Outgoing('sftp', '2', b'')])\n"
        "tell('went on')\n"
    )
    out, _ = process.communicate(timeout=60)

    message, went_on = out.splitlines()
    assert "queue file" in message and "space" in message
    assert went_on == '"went on"'
    assert take_all(place.open()) == ["1", "2"]


def test_a_damaged_file_is_refused_with_the_command_that_removes_it(place: Place, path: Path) -> None:
    path.write_bytes(b"this was a queue" * 1000)
    broker = place.open()

    with pytest.raises(BrokerRefused, match="damaged") as caught:
        broker.publish(outgoing("1"))

    command = caught.value.hint.partition("rm ")[2].partition("  ")[0]
    assert str(path) in command
    os.system(f"rm {command}")
    broker.publish(outgoing("1"))
    assert take_all(broker) == ["1"]


def test_a_file_of_a_newer_program_is_left_alone(place: Place, path: Path) -> None:
    place.open().publish(outgoing("1"))
    other = connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    before = path.read_bytes()

    with pytest.raises(BrokerRefused, match="newer"):
        place.open().take("sftp", timeout=0)

    assert path.read_bytes() == before


def test_a_file_that_is_removed_under_its_users_is_made_anew_for_all(place: Place, path: Path) -> None:
    first, second = place.open(), place.open()
    first.publish(outgoing("lost"))
    second.take("sftp", timeout=0)
    for each in path.parent.glob("queue.db*"):
        if each.is_file():
            each.unlink()

    first.publish(outgoing("1"))
    place.open().publish(outgoing("2"))

    assert take_all(second) == ["1", "2"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_to_is_refused(place: Place, path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises((BrokerRefused, BrokerUnreachable), match="queue file"):
            place.open().publish(outgoing("1"))
    finally:
        path.parent.chmod(0o700)


def test_a_directory_that_is_missing_is_made(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "new" / "state" / "queue.db")
    broker.publish(outgoing("1"))
    broker.close()

    assert (tmp_path / "new" / "state" / "queue.db").stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_before_the_first_verb(place: Place, path: Path) -> None:
    place.open()

    assert not path.exists()


def test_state_directories_may_have_long_paths_and_lanes_odd_names(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    broker = EmbeddedBroker(deep / "queue.db")
    broker.publish([Outgoing("../odd lane/ü", "1", b"")])

    assert take_all(broker, lane="../odd lane/ü") == ["1"]
    broker.close()
    assert sorted(each.name for each in deep.iterdir()) == ["queue.db", "queue.db.bells"]


def test_an_affected_sqlite_works_without_a_wal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "driver", lambda: sqlite3)
    monkeypatch.setattr(sqlite, "has_wal_reset_bug", lambda version: True)
    first, second = EmbeddedBroker(path), EmbeddedBroker(path)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(take_all, second, wait=1.0)
        first.publish(outgoing("1", "2", "3"))
        assert waiting.result() == ["1", "2", "3"]
    assert not list(path.parent.glob("queue.db-wal"))
    first.close()
    second.close()


@pytest.mark.parametrize(
    "version, affected",
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 45, 0), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 53, 0), False),
    ],
)  # fmt: skip
def test_a_wal_is_used_only_where_sqlite_has_the_fix(version: tuple[int, ...], affected: bool) -> None:
    assert sqlite.has_wal_reset_bug(version) is affected
    assert sqlite.journal_mode(version) == ("truncate" if affected else "wal")


def test_a_bell_rings_once_for_many_rings_and_not_again(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "sftp")
    ring_all(tmp_path, "sftp")
    ring_all(tmp_path, "sftp")

    assert bell.wait(5.0)
    assert not bell.wait(0.05)
    bell.take_down()


def test_a_bell_that_is_never_heard_does_not_block_who_rings(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "sftp")

    for _ in range(70_000):  # more than a pipe holds
        bell.ring()

    assert bell.wait(0)
    bell.take_down()


def test_a_bell_lives_until_it_is_taken_down(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "sftp")
    assert lives(tmp_path, "sftp", bell.name)

    bell.take_down()
    bell.take_down()

    assert not lives(tmp_path, "sftp", bell.name)
    assert bell.wait(5.0)  # at once: who waits shall see that it is over
