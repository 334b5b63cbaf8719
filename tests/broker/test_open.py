"""The config chooses the broker, and choosing costs and connects nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mqi_cli.broker import open_broker
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.broker.rabbitmq import RabbitBroker
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import BrokerSection


def test_without_a_broker_section_the_queue_lies_beside_the_state(tmp_path: Path) -> None:
    broker = open_broker(Config(file=None, state_path=tmp_path / "state.db"))

    assert isinstance(broker, EmbeddedBroker)
    assert broker.path == tmp_path / "queue.db"
    assert list(tmp_path.iterdir()) == []
    broker.close()


def test_with_a_broker_section_it_is_rabbitmq_and_nothing_is_connected_yet(tmp_path: Path) -> None:
    section = BrokerSection(url="amqp://mqi@192.0.2.1/")  # nobody is there
    broker = open_broker(Config(file=None, state_path=tmp_path / "state.db", broker=section))

    assert isinstance(broker, RabbitBroker)
    broker.close()


def test_the_embedded_queue_loads_neither_pika_nor_asyncio() -> None:
    text = (
        "import sys, mqi_cli.broker, mqi_cli.broker.embedded; print({'pika', 'asyncio', 'peewee'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=Path(__file__).parents[2], capture_output=True, text=True)

    assert done.stdout.strip() == "set()", done.stderr
