"""The figures of docs/scaling.md: what one conductor and one broker carry, and what a case takes on the disk.

Every rate is printed beside the disk's own durable writes of the same minute, because that is what bounds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flow import Flow
from pydantic import SecretStr

from mqi_cli.broker.base import Broker, Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.broker.rabbitmq import RabbitBroker
from mqi_cli.config.model import BrokerSection
from mqi_cli.message import Event, EventKind, encode
from mqi_cli.store import Store, open_store

CASES = 300
STEPS = 4
MESSAGES = 2000
BATCH = 200


def main() -> None:
    """Measure and print."""
    print("Scaling: what one conductor and one broker carry (docs/scaling.md)")
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        print(f"  fdatasync, {BATCH} times 4 KiB: {durable_writes(place):.0f} a second")
        conductor(place)
        broker("embedded queue", EmbeddedBroker(place / "queue.db"))
        rabbitmq(place)


def durable_writes(place: Path, *, count: int = 200) -> float:
    """Return how many small writes a second this disk makes durable, one after the other."""
    descriptor = os.open(place / "writes", os.O_RDWR | os.O_CREAT, 0o600)
    began = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, b"x" * 4096)
        os.fdatasync(descriptor)
    os.close(descriptor)
    return count / (time.perf_counter() - began)


def conductor(place: Path) -> None:
    """Send cases through the conductor, an event a transaction and many; say its rate and what a case leaves on the disk."""
    for title, most in (("one transaction an event", 1), (f"up to {BATCH} events a transaction", BATCH)):
        store = open_store(place / f"state-{most}.db")
        flow = Flow(store)
        before, events = size(store), 0
        for number in range(CASES):
            flow.new_case(f"case-{number}")
        began, cpu = time.perf_counter(), time.process_time()
        while commands := flow.commands():
            answers = [event for command in commands for event in flow.answers(command)]
            for start in range(0, len(answers), most):
                problems = flow.conductor.apply_all(answers[start : start + most])
                assert not any(problems)
            events += len(answers)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        log = store.database.execute_sql("SELECT COUNT(*) FROM event").fetchone()[0]
        print(f"  conductor, {title}: {events / seconds:.0f} events a second, {cpu / events * 1000:.2f} ms CPU each")
        took = (size(store) - before) / CASES / 1024
        store.close()
    print(
        f"  state database: {took:.1f} KiB a case of {STEPS} steps, {log / CASES:.0f} log entries, {events / CASES:.0f} events"
    )


def size(store: Store) -> int:
    """Return how large the database is without its journal."""
    pages, page = (store.database.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages) * int(page)


def broker(name: str, made: Broker) -> None:
    """Publish, take and settle in batches, as the conductor does, and one by one, as a worker does."""
    event = Event(
        "e", EventKind.DONE, "sftp@box2-1234", 0.0, "caaaaaaaaaa", "upload", "", 1, 1, {"facts": {"files": 3}}
    )
    letters = [Outgoing("lane", f"{number}", encode(event)) for number in range(MESSAGES)]
    made.publish(letters[:1])
    take_all(made)
    began = time.perf_counter()
    for start in range(0, MESSAGES, BATCH):
        made.publish(letters[start : start + BATCH])
    put = time.perf_counter()
    take_all(made)
    taken = time.perf_counter()
    single = MESSAGES // 10
    for letter in letters[:single]:
        made.publish([letter])
    one = time.perf_counter()
    take_all(made)
    made.close()
    print(f"  {name}: {MESSAGES / (put - began):.0f} messages a second in, {MESSAGES / (taken - put):.0f} out, in batches of"
          f" {BATCH}; {single / (one - taken):.0f} a second in one by one; {len(letters[0].body)} bytes each")  # fmt: skip


def take_all(made: Broker) -> None:
    """Take and settle everything."""
    while deliveries := made.take_many("lane", timeout=0.3, most=BATCH):
        made.ack(*deliveries)


def rabbitmq(place: Path) -> None:
    """Measure a RabbitMQ node of our own, where there is one, and count the connections of one process."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    try:
        from servers.rabbitmq import RabbitNode, find_sbin
    except ImportError:
        print("  RabbitMQ: left out, the tests' servers need pytest (.ci/venv test)")
        return
    sbin = find_sbin()
    if sbin is None:
        print("  RabbitMQ: left out, there is none here (tests/servers/install)")
        return
    (place / "node").mkdir()
    node = RabbitNode(sbin, place / "node")
    try:
        node.start()
        section = BrokerSection(url=node.url, password=SecretStr(node.password), prefix="bench")
        counted = RabbitBroker(section)
        counted.publish([Outgoing("lane", "1", b"{}")])
        take_all(counted)
        print(f"  RabbitMQ: {connections(node.port)} connections for a process that publishes and takes")
        counted.close()
        broker("RabbitMQ, quorum queues, one node", RabbitBroker(section))
    finally:
        node.close()


def connections(port: int) -> int:
    """Count this process's connections to a port."""
    lines = subprocess.run(["ss", "-tnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    return sum(1 for line in lines if f"pid={os.getpid()}," in line and line.split()[4].endswith(f":{port}"))


if __name__ == "__main__":
    main()
