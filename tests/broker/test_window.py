"""The conductor's end of its lane on RabbitMQ: the broker pushes ahead, and nothing of that is lost or out of order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mqi_cli.broker.amqp import window
from mqi_cli.broker.base import Delivery
from mqi_cli.broker.rabbitmq import RabbitBroker
from mqi_cli.config.model import BrokerSection
from servers.broker_place import Place, outgoing, wait_for
from servers.rabbitmq import RabbitNode

pytestmark = pytest.mark.rabbitmq
LANE = "conductor"


def only_taker(place: Place) -> RabbitBroker:
    """Open a broker as the conductor does."""
    broker = RabbitBroker(BrokerSection.model_validate(place.given), sole=LANE)
    place.brokers.append(broker)
    return broker


def take_all(broker: RabbitBroker, count: int, *, most: int = 50) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(broker.take_many(LANE, timeout=1, most=most))
        return len(found) >= count

    wait_for(enough)
    return found


def test_more_than_the_window_holds_comes_whole_and_in_order(rabbit_place: Place) -> None:
    count = window.AHEAD + 120
    conductor, worker = only_taker(rabbit_place), rabbit_place.open()
    worker.publish(outgoing(*map(str, range(count)), lane=LANE))

    found = []
    while len(found) < count:
        batch = take_all(conductor, 1)
        assert len(batch) <= 50
        found += [each.id for each in batch]
        conductor.ack(*batch)

    assert found == list(map(str, range(count)))
    assert conductor.take_many(LANE, timeout=0.2, most=50) == []
    assert conductor.depth(LANE).ready == 0


def test_what_lies_in_the_window_comes_again_when_the_conductor_ends(rabbit_place: Place) -> None:
    first, worker = only_taker(rabbit_place), rabbit_place.open()
    worker.publish(outgoing(*map(str, range(20)), lane=LANE))
    held = take_all(first, 1, most=5)
    first.ack(*held)
    first.close()

    again = take_all(only_taker(rabbit_place), 20 - len(held))

    assert [each.id for each in again] == list(map(str, range(len(held), 20)))


def test_a_lane_that_is_deleted_under_the_conductor_is_made_again(
    rabbit_place: Place, rabbitmq: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "RENEW_SECONDS", 1.0)
    conductor, worker = only_taker(rabbit_place), rabbit_place.open()
    assert conductor.take_many(LANE, timeout=0, most=50) == []
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(take_all, conductor, 1)
        rabbitmq.ctl("delete_queue", f"{rabbit_place.given['prefix']}.{LANE}")
        worker.publish(outgoing("1", lane=LANE))

        assert [each.id for each in waiting.result(timeout=60)] == ["1"]


def test_after_a_restart_of_the_broker_the_conductor_goes_on(rabbit_place: Place, rabbitmq: RabbitNode) -> None:
    conductor, worker = only_taker(rabbit_place), rabbit_place.open()
    worker.publish(outgoing("1", "2", lane=LANE))
    held = take_all(conductor, 2)
    rabbitmq.restart()
    conductor.ack(*held)  # of a connection that is gone: no error, and no effect

    again = {each.id for each in take_all(conductor, 2)}

    assert again == {"1", "2"}
