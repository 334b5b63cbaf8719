"""The fixture `plant`, and both brokers to run it over."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.plant import Plant
from mqi_cli.hosts.sshd import OpenSSHServer
from servers.house import kept_on_failure


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the whole program more time than other tests get: each takes under a minute, but not on a machine that is busy."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def plant(sshd: OpenSSHServer, request: pytest.FixtureRequest) -> Iterator[Plant]:
    """A plant that is not configured yet; its seed comes from the test's name."""
    directory = Path(tempfile.mkdtemp(prefix="mqi-plant-"))
    with kept_on_failure(directory, request.node):
        yield Plant(directory, sshd, seed=zlib.crc32(request.node.name.encode()))


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest, plant: Plant) -> str:
    """The config's broker section: none, and a RabbitMQ."""
    return _section(request, plant)


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.soak])])
def either_broker(request: pytest.FixtureRequest, plant: Plant) -> str:
    """The same, for faults that are far from the broker: over RabbitMQ in the soak only."""
    return _section(request, plant)


@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.soak), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]
)
def rabbitmq_first(request: pytest.FixtureRequest, plant: Plant) -> str:
    """The same, for faults of messages: over the embedded queue in the soak only."""
    return _section(request, plant)


def _section(request: pytest.FixtureRequest, plant: Plant) -> str:
    if request.param == "embedded":
        return ""
    node = request.getfixturevalue("rabbitmq")
    plant.secrets.append(node.password)
    return plant.broker(node)
