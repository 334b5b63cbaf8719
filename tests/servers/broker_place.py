"""What the broker tests share: a place to open brokers on, other processes, short words for taking and waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mqi_cli.broker.base import Broker, Delivery, Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.config.model import BrokerSection

ROOT = Path(__file__).parents[2]

# Another process: opens the broker that standard input names, then runs the text in its arguments with `broker` at hand.
_OTHER = """
import json, sys, time, os
from pathlib import Path
from mqi_cli.broker.base import Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
given = json.loads(sys.stdin.readline())
if "path" in given:
    broker = EmbeddedBroker(Path(given["path"]))
else:
    from mqi_cli.broker.rabbitmq import RabbitBroker
    from mqi_cli.config.model import BrokerSection
    broker = RabbitBroker(BrokerSection.model_validate(given))
def tell(what):
    print(json.dumps(what), flush=True)
exec(sys.argv[1])
"""


@dataclass
class Place:
    """A queue that any number of brokers, here and in other processes, can be opened on."""

    kind: str
    given: dict[str, Any]
    brokers: list[Broker] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def open(self) -> Broker:
        """Open another broker, as another process would."""
        if self.kind == "embedded":
            broker: Broker = EmbeddedBroker(Path(self.given["path"]))
        else:
            from mqi_cli.broker.rabbitmq import RabbitBroker

            broker = RabbitBroker(BrokerSection.model_validate(self.given))
        self.brokers.append(broker)
        return broker

    def process(self, text: str) -> subprocess.Popen[str]:
        """Start a process that opens the broker and runs `text`; what it tells are lines of JSON."""
        process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, text],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.given) + "\n")
        process.stdin.flush()
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            process.kill()
            process.communicate()
        for broker in self.brokers:
            broker.close()


def outgoing(*ids: str, lane: str = "sftp") -> list[Outgoing]:
    return [Outgoing(lane, each, f"body of {each}".encode()) for each in ids]


def take_all(broker: Broker, *, lane: str = "sftp", wait: float = 0.0) -> list[str]:
    """Take and acknowledge all that is there; return the ids."""
    ids = []
    while delivery := broker.take(lane, timeout=wait):
        ids.append(delivery.id)
        broker.ack(delivery)
    return ids


def taken(broker: Broker, *, lane: str = "sftp", timeout: float = 20.0) -> Delivery:
    """Take a message that has to be there, or come."""
    delivery = broker.take(lane, timeout=timeout)
    assert delivery is not None
    return delivery


def wait_for(condition: Callable[[], Any], *, limit: float = 20.0) -> Any:
    """Wait until the condition gives something true, and return it."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found
