"""The broker under test: each contract test runs on the embedded queue and on a real RabbitMQ."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqi_cli.broker.base import Broker
from servers.broker_place import Place


@pytest.fixture
def embedded_place(tmp_path: Path) -> Iterator[Place]:
    """A queue file."""
    place = Place("embedded", {"path": str(tmp_path / "queue.db")})
    yield place
    place.close()


@pytest.fixture
def rabbit_place(rabbitmq: Any) -> Iterator[Place]:
    """Queues of this test's own on the RabbitMQ node."""
    given = {"url": rabbitmq.url, "password": rabbitmq.password, "prefix": f"test-{uuid.uuid4().hex[:8]}"}
    place = Place("rabbitmq", given)
    yield place
    place.close()


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def place(request: pytest.FixtureRequest) -> Place:
    """Both kinds of queue, one after the other."""
    found: Place = request.getfixturevalue("embedded_place" if request.param == "embedded" else "rabbit_place")
    return found


@pytest.fixture
def broker(place: Place) -> Broker:
    """A broker on the queue under test."""
    return place.open()
