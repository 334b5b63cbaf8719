"""How a worker takes commands: as many as it has free threads, in one go, and never keeps what it could not accept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mqi_cli.broker.base import Delivery, Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.errors import BrokerUnreachable
from mqi_cli.message import EVENTS_LANE, Event, decode
from mqi_cli.worker import Worker


class FullDisk(EmbeddedBroker):
    """A queue whose disk is full for the first answer."""

    failed = False

    def answer(self, deliveries: Sequence[Delivery], messages: Sequence[Outgoing]) -> None:
        if not self.failed:
            self.failed = True
            raise BrokerUnreachable("the disk is full")
        super().answer(deliveries, messages)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def at_work(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """Start a worker whose turns last until it is stopped."""
    going = threading.Event()
    running: list[tuple[Worker, threading.Thread]] = []
    monkeypatch.setattr(Worker, "_turn", lambda *_: (going.wait(30), ("done", {"facts": {}}))[1])

    def start(broker: EmbeddedBroker, *, threads: int) -> Worker:
        worker = Worker("sftp", config=bench.config, plugins=None, broker=broker, threads=threads)  # type: ignore[arg-type]
        thread = threading.Thread(target=worker.run)
        running.append((worker, thread))
        thread.start()
        return worker

    yield start
    going.set()
    for worker, thread in running:
        worker.ask_stop()
        thread.join(20)


def commands_of(bench: Any, count: int) -> list[Outgoing]:
    for _ in range(count):
        bench.case()
    return [Outgoing(row.lane, row.message, row.body) for row in bench.store.messages.unsent()]


def accepted(broker: EmbeddedBroker) -> int:
    found = [decode(each.body) for each in broker.take_many(EVENTS_LANE, timeout=0.1, most=100)]
    return sum(isinstance(each, Event) and each.kind == "accepted" for each in found)


def test_a_worker_takes_as_many_commands_as_it_has_threads_and_leaves_the_others(
    bench: Any, tmp_path: Path, at_work: Callable[..., Worker]
) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    broker.publish(commands_of(bench, 5))

    at_work(broker, threads=3)

    until(lambda: broker.depth("sftp").ready == 2)
    assert broker.depth("sftp").taken == 0, "acknowledged before the work"
    assert accepted(broker) == 3
    assert broker.depth("sftp").ready == 2


def test_what_could_not_be_accepted_goes_back_to_its_lane(
    bench: Any, tmp_path: Path, at_work: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqi_cli.worker.BROKER_PAUSE", 0.1)
    broker = FullDisk(tmp_path / "queue.db")
    broker.publish(commands_of(bench, 2))

    at_work(broker, threads=2)

    total = 0

    def all_accepted() -> bool:
        nonlocal total
        total += accepted(broker)
        return total == 2

    until(all_accepted)
    assert broker.failed
    assert broker.depth("sftp").taken == 0
