"""A broker that is not there at the start, dies in the middle, loses its queues or takes nothing: processes stay up, say so, catch up."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from faults.checker import check
from faults.plant import Plant, crew
from servers.house import wait_for
from servers.rabbitmq import RabbitNode

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def node(rabbitmq: RabbitNode, plant: Plant) -> Iterator[RabbitNode]:
    plant.secrets.append(rabbitmq.password)
    yield rabbitmq
    rabbitmq.start()


def troubles(plant: Plant) -> str:
    """Return what `mqi status` says is wrong, with what mends it."""
    found = json.loads(plant.mqi("status", "--json", code=None))["troubles"]
    return "\n".join(f"{each['text']} -> {each['hint']}" for each in found)


def wait_trouble(plant: Plant, words: str) -> None:
    wait_for(lambda: words in troubles(plant), f"status to say {words}", pause=0.5, stand=plant.stand)


def test_a_broker_that_is_away_at_the_start_and_dies_in_the_middle_is_told_and_waited_for(
    plant: Plant, node: RabbitNode
) -> None:
    plant.configure(broker=plant.broker(node), seconds=2)
    node.stop()
    with plant.daemon():
        plant.drop(2)
        wait_trouble(plant, "cannot be reached")
        wait_for(lambda: len(plant.states()) == 2, "cases to be taken in without a broker", stand=plant.stand)
        assert "cannot be reached" in plant.mqi("watch", "--once")
        before = plant.children()
        node.start()
        plant.wait_starts(1)
        node.kill()
        plant.drop(1)
        wait_trouble(plant, "cannot be reached")
        node.start()
        plant.wait_done()
        wait_for(lambda: "broker" not in troubles(plant), "status to be well again", stand=plant.stand)
        assert plant.children() == before, "no process had to be started again"
        told = "".join(each.read_text() for each in (plant.state / "logs").iterdir())
        assert told.count("cannot be reached") < 40
        assert "AMQPConnector" not in told, "a library's own words, many a second"
    check(plant)


@pytest.mark.soak  # broker/test_rabbitmq and broker/test_window have both for one process
def test_queues_that_are_deleted_and_an_alarm_of_the_broker_cost_time_only(plant: Plant, node: RabbitNode) -> None:
    plant.configure(broker=plant.broker(node), seconds=1)
    prefix = plant.directory.name
    with crew(plant) as processes:
        plant.drop(2)
        plant.wait_starts(1)
        for lane in ("conductor", "sftp", "archiver"):
            node.ctl("delete_queue", f"{prefix}.{lane}")
        plant.drop(1)
        plant.wait_done()
        node.ctl("set_disk_free_limit", "1000GB")
        try:
            plant.drop(1)
            wait_trouble(plant, "takes no messages now")
        finally:
            node.ctl("set_disk_free_limit", "20MB")
        plant.wait_done()
        assert not any(each.poll() is not None for each in processes.running.values()), "no process ended"
    check(plant)


def test_no_delivery_is_held_while_a_transfer_or_a_run_takes_longer_than_the_broker_bears(
    plant: Plant, node: RabbitNode
) -> None:
    # RabbitMQ looks every `channel_tick_interval` for deliveries that are older than `consumer_timeout`.
    node.ctl(
        "eval", "[application:set_env(rabbit, K, 1000) || K <- [consumer_timeout, channel_tick_interval]].", timeout=120
    )
    try:
        assert_the_broker_ends_who_holds_a_delivery(plant, node)
        plant.configure(broker=plant.broker(node), seconds=6)
        plant.drop(1)
        with crew(plant):
            plant.wait_done()
    finally:
        node.ctl(
            "eval",
            "application:set_env(rabbit, consumer_timeout, 1800000), "
            "application:set_env(rabbit, channel_tick_interval, 60000).",
            timeout=120,
        )
    check(plant)
    told = "\n".join(each.read_text(errors="replace") for each in plant.directory.glob("*.log"))
    assert "timeout" not in told.lower()


def assert_the_broker_ends_who_holds_a_delivery(plant: Plant, node: RabbitNode) -> None:
    """Without this the test below could not fail."""
    import pika

    credentials = pika.PlainCredentials(node.user, node.password)
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port, credentials=credentials))
    channel = connection.channel()
    queue = f"{plant.directory.name}.held"
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", queue, b"x")
    channel.basic_consume(queue, lambda *_: None)
    ends: list[str] = []
    channel._impl.add_on_close_callback(lambda _, reason: ends.append(str(reason)))
    wait_for(lambda: connection.process_data_events(0.5) or ends, "the broker to end who holds a delivery")
    assert "timeout" in ends[0]
    connection.channel().queue_delete(queue)
    connection.close()


@pytest.mark.parametrize("what", ["password", pytest.param("vhost", marks=pytest.mark.soak)])
def test_a_broker_that_lets_us_not_in_is_told_with_what_mends_it_and_no_password(
    plant: Plant, node: RabbitNode, what: str
) -> None:
    broker = plant.broker(node)
    if what == "password":
        (plant.directory / "broker.secret").write_text("wr0ng-passw0rd")
        plant.secrets.append("wr0ng-passw0rd")
    else:
        broker = broker.replace("%2F", "nowhere")
    plant.configure(broker=broker)
    with crew(plant, "conductor", "sftp", "scanner") as processes:
        wait_trouble(plant, {"password": "wrong user or password", "vhost": "no virtual host nowhere"}[what])
        said = troubles(plant)
        assert {"password": "broker.password_file", "vhost": "rabbitmqctl add_vhost nowhere"}[what] in said
        assert not any(each.poll() is not None for each in processes.running.values())
        shown = plant.mqi("config", "show") + plant.mqi("status", code=None) + plant.mqi("doctor", code=None) + said
        arguments = "".join(plant.processes().values())
    (plant.directory / "told.log").write_text(shown + arguments)
    plant.configure(broker=plant.broker(node))
    check(plant)
