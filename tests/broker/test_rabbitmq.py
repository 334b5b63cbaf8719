"""RabbitMQ's own ways to fail, on a real node, and what becomes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pytest

from mqi_cli.broker.amqp import line, post
from mqi_cli.broker.rabbitmq import RabbitBroker
from mqi_cli.config.model import BrokerSection
from mqi_cli.errors import BrokerError, BrokerRefused, BrokerUnreachable
from servers import free_port
from servers.broker_place import Place, outgoing, take_all, taken, wait_for
from servers.proxy import TcpProxy
from servers.rabbitmq import RabbitNode

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def place(rabbit_place: Place) -> Place:
    return rabbit_place


def opened(place: Place, **changes: Any) -> RabbitBroker:
    """Open a broker with something else in its section."""
    broker = RabbitBroker(BrokerSection.model_validate(place.given | changes))
    place.brokers.append(broker)
    return broker


@pytest.fixture
def by_hand(rabbitmq: RabbitNode) -> Iterator[Any]:
    """A channel beside ours, as an administrator has one."""
    credentials = pika.PlainCredentials(rabbitmq.user, rabbitmq.password)
    parameters = pika.ConnectionParameters("127.0.0.1", rabbitmq.port, credentials=credentials)
    connection = pika.BlockingConnection(parameters)
    yield connection.channel()
    if connection.is_open:
        connection.close()


def exists(by_hand: Any, queue: str) -> bool:
    """Whether the broker has the queue."""
    channel = by_hand.connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    channel.close()
    return True


def go_on(broker: RabbitBroker, *ids: str) -> None:
    """Publish as the conductor does: again until it works."""

    def works() -> bool:
        try:
            broker.publish(outgoing(*ids))
        except BrokerUnreachable:
            return False
        return True

    wait_for(works, limit=60)


def test_what_was_confirmed_outlives_the_broker_s_sudden_death(place: Place, rabbitmq: RabbitNode) -> None:
    broker = place.open()
    ids = [str(number) for number in range(200)]
    broker.publish(outgoing(*ids))
    held = taken(broker)
    # RabbitMQ writes the names of new queues down seconds later, and loses the queue when it is killed before.
    wait_for(lambda: rabbitmq.has_on_disk(f"{place.given['prefix']}.sftp"))

    rabbitmq.kill()
    with pytest.raises(BrokerUnreachable):
        broker.publish(outgoing("while it is dead"))
    with pytest.raises(BrokerUnreachable):
        broker.take("sftp", timeout=0.3)
    rabbitmq.start()

    broker.ack(held)  # of a connection that is gone: no error, and no effect
    go_on(broker, "after")
    found = [broker.take("sftp", timeout=20) for _ in range(201)]
    assert sorted(each.id for each in found if each) == sorted([*ids, "after"])


def test_a_waiting_taker_outlasts_a_restart_of_the_broker(place: Place, rabbitmq: RabbitNode) -> None:
    broker, publisher = place.open(), place.open()
    broker.take("sftp", timeout=0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(broker.take, "sftp", timeout=60)
        rabbitmq.restart()
        go_on(publisher, "1")

        delivery = waiting.result(timeout=60)

    assert delivery is not None and delivery.id == "1"


def test_a_broker_that_comes_up_late_is_waited_for(place: Place, rabbitmq: RabbitNode) -> None:
    rabbitmq.stop()
    broker = place.open()
    with pytest.raises(BrokerUnreachable) as caught:
        broker.publish(outgoing("1"))
    assert f"127.0.0.1:{rabbitmq.port}" in caught.value.message and caught.value.hint

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(broker.take, "sftp", timeout=60)
        rabbitmq.start()
        go_on(broker, "1")

        delivery = waiting.result(timeout=60)

    assert delivery is not None and delivery.id == "1"


def test_tries_to_connect_keep_apart(place: Place) -> None:
    broker = opened(place, url=f"amqp://mqi@127.0.0.1:{free_port()}/")
    tries = 0
    start = time.monotonic()
    while time.monotonic() - start < 1.0:
        with pytest.raises(BrokerUnreachable):
            broker.publish(outgoing("1"))
        tries += 1

    assert tries > 20  # asked often
    assert broker._publishing._failures < 7  # tried rarely


def test_a_wrong_password_is_refused_and_never_told(place: Place) -> None:
    broker = opened(place, password="not-the-password")

    with pytest.raises(BrokerRefused, match="user mqi") as caught:
        broker.publish(outgoing("1"))

    chain: list[BaseException] = [caught.value]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    assert "not-the-password" not in "".join(map(repr, chain)) + caught.value.hint
    with pytest.raises(BrokerRefused):  # at once, not when the time is up
        broker.take("sftp", timeout=30)


def test_a_virtual_host_that_does_not_exist_is_refused_with_the_command_that_makes_it(place: Place) -> None:
    broker = opened(place, url=place.given["url"].replace("%2F", "nowhere"))

    with pytest.raises(BrokerRefused, match="virtual host nowhere") as caught:
        broker.publish(outgoing("1"))

    assert "add_vhost nowhere" in caught.value.hint


def test_a_queue_with_other_settings_is_refused_by_name(place: Place, by_hand: Any) -> None:
    queue = f"{place.given['prefix']}.sftp"
    by_hand.queue_declare(queue, durable=True)  # a classic queue
    broker = place.open()

    for act in (lambda: broker.publish(outgoing("1")), lambda: broker.take("sftp", timeout=5)):
        with pytest.raises(BrokerRefused, match=queue) as caught:
            act()
        assert "delete_queue" in caught.value.hint

    by_hand.queue_delete(queue)
    broker.publish(outgoing("1"))
    assert take_all(broker) == ["1"]


def test_a_queue_deleted_under_a_waiting_taker_is_made_again(place: Place, by_hand: Any) -> None:
    broker, publisher = place.open(), place.open()
    queue = f"{place.given['prefix']}.sftp"
    broker.take("sftp", timeout=0)  # connected
    broker.take("sftp", timeout=0.05)  # its consumer lingers
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(broker.take, "sftp", timeout=30)
        by_hand.queue_delete(queue)
        wait_for(lambda: exists(by_hand, queue))
        publisher.publish(outgoing("1"))

        delivery = waiting.result(timeout=30)

    assert delivery is not None and delivery.id == "1"


def test_a_queue_deleted_and_made_again_at_once_has_its_taker_back_soon(
    place: Place, by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "RENEW_SECONDS", 1.0)
    broker, publisher = place.open(), place.open()
    broker.take("sftp", timeout=0)  # connected
    broker.take("sftp", timeout=0.05)  # its consumer lingers
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(broker.take, "sftp", timeout=30)
        by_hand.queue_delete(f"{place.given['prefix']}.sftp")
        publisher.publish(outgoing("1"))

        delivery = waiting.result(timeout=30)

    assert delivery is not None and delivery.id == "1"


def test_messages_for_a_queue_that_was_deleted_are_not_lost(place: Place, by_hand: Any) -> None:
    broker = place.open()
    broker.publish(outgoing("1"))
    assert take_all(broker) == ["1"]
    by_hand.queue_delete(f"{place.given['prefix']}.sftp")

    broker.publish(outgoing("2", "3"))

    assert take_all(broker) == ["2", "3"]


def test_an_alarm_of_the_broker_is_named_and_over_when_it_is_over(place: Place, rabbitmq: RabbitNode) -> None:
    broker = place.open()
    broker.publish(outgoing("1"))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        with pytest.raises(BrokerUnreachable, match=r"takes no messages now: .*memory"):
            broker.publish(outgoing("2"))
        with pytest.raises(BrokerUnreachable, match="takes no messages now"):  # at once
            broker.publish(outgoing("2"))

        broker.ack(taken(broker))  # taking goes on
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")

    go_on(broker, "3")
    assert "3" in take_all(broker, wait=1.0)


def test_heartbeats_go_out_while_the_process_computes(place: Place) -> None:
    broker = opened(place, heartbeat=1.0)
    broker.publish(outgoing("1"))
    held = taken(broker)

    end = time.monotonic() + 4.0  # the broker gives up on a silent client after two heartbeats
    while time.monotonic() < end:
        sum(range(10_000))

    broker.ack(held)
    assert broker.take("sftp", timeout=0.5) is None


def test_a_user_who_may_not_make_queues_uses_those_that_are_there(place: Place, rabbitmq: RabbitNode) -> None:
    rabbitmq.ctl("add_user", "reader", "reader-password")
    rabbitmq.ctl("set_permissions", "reader", "^$", ".*", ".*")
    try:
        limited = opened(place, url=place.given["url"].replace("mqi@", "reader@"), password="reader-password")
        with pytest.raises(BrokerRefused, match="forbids it to the user reader"):
            limited.publish(outgoing("1"))

        place.open().publish(outgoing("1"))

        limited.publish(outgoing("2"))
        assert take_all(limited) == ["1", "2"]
    finally:
        rabbitmq.ctl("delete_user", "reader")


def test_tls_is_spoken_with_a_broker_whose_certificate_fits(place: Place, rabbitmq: RabbitNode) -> None:
    broker = opened(place, url=rabbitmq.tls_url, tls={"ca_file": str(rabbitmq.ca_file)})
    broker.publish(outgoing("1"))

    assert take_all(broker) == ["1"]


@pytest.mark.parametrize("host, tls", [("localhost", {}), ("127.0.0.1", {"ca_file": "ours"})])
def test_a_certificate_of_an_unknown_ca_or_another_name_is_refused(
    place: Place, rabbitmq: RabbitNode, host: str, tls: dict[str, str]
) -> None:
    url = rabbitmq.tls_url.replace("localhost", host)
    broker = opened(place, url=url, tls={key: str(rabbitmq.ca_file) for key in tls})

    with pytest.raises(BrokerRefused, match="certificate") as caught:
        broker.publish(outgoing("1"))
    assert "broker.tls.ca_file" in caught.value.hint


def test_a_name_that_nobody_knows_is_said_so(place: Place) -> None:
    broker = opened(place, url="amqp://mqi@no-such-host.invalid/")

    with pytest.raises(BrokerUnreachable, match=r"no-such-host\.invalid"):
        broker.publish(outgoing("1"))


def test_a_ca_file_that_is_none_is_refused(place: Place, rabbitmq: RabbitNode, tmp_path: Path) -> None:
    for name, text in (("missing.pem", None), ("odd.pem", "not a certificate")):
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(BrokerRefused, match=r"broker\.tls"):
            opened(place, url=rabbitmq.tls_url, tls={"ca_file": str(tmp_path / name)})


def test_a_lingering_consumer_gives_back_what_it_was_pushed(place: Place) -> None:
    gone, other = place.open(), place.open()
    gone.take("sftp", timeout=0)  # connected
    assert gone.take("sftp", timeout=0.05) is None  # and takes no more, but its consumer is still there
    other.publish(outgoing("1"))

    assert taken(other, timeout=10).id == "1"


def test_a_broker_object_leaves_no_thread_and_no_connection(place: Place, rabbitmq: RabbitNode) -> None:
    before = set(threading.enumerate())
    broker = place.open()
    broker.publish(outgoing("1"))
    broker.take("sftp", timeout=0)
    assert set(threading.enumerate()) != before

    broker.close()

    wait_for(lambda: set(threading.enumerate()) <= before)  # the one that looked up the host ends a moment later
    wait_for(lambda: "process" not in rabbitmq.ctl("list_connections", "client_properties"))


def test_a_dead_letter_of_unknown_make_can_be_seen_and_dropped(place: Place, by_hand: Any) -> None:
    broker = place.open()
    broker.publish([])
    broker.take("sftp", timeout=0)
    by_hand.basic_publish("", f"{place.given['prefix']}.sftp{line.DEAD}", b"{odd")

    (letter,) = wait_for(lambda: broker.dead("sftp"))

    assert letter.body == b"{odd" and letter.reason == "RabbitMQ: unknown"
    assert broker.drop_dead("sftp", letter.id)
    assert broker.dead("sftp") == []


def test_every_refusal_is_a_broker_error_with_a_hint(place: Place) -> None:
    for changes in ({"password": "no"}, {"url": "amqp://mqi@127.0.0.1:1/"}):
        with pytest.raises(BrokerError) as caught:
            opened(place, **changes).depth("sftp")
        assert caught.value.hint


def test_of_two_conductors_with_one_prefix_the_second_waits_until_the_first_has_ended(place: Place) -> None:
    first, second = (RabbitBroker(BrokerSection.model_validate(place.given), sole="conductor") for _ in range(2))
    place.brokers += [first, second]
    worker = place.open()
    assert first.take("conductor", timeout=0) is None
    for refused in (lambda: second.take("conductor", timeout=0), lambda: second.publish(outgoing("of-second"))):
        with pytest.raises(BrokerRefused, match="another conductor") as caught:
            refused()
        assert "broker.prefix" in caught.value.hint
    worker.publish(outgoing("event", lane="conductor"))
    assert taken(first, lane="conductor").id == "event", "a worker is no conductor and is not held up"
    first.close()
    assert wait_for(lambda: taken_or_refused(second, "conductor")) == "event"


def taken_or_refused(broker: RabbitBroker, lane: str) -> str:
    try:
        delivery = broker.take(lane, timeout=1)
    except BrokerRefused:
        return ""
    return delivery.id if delivery else ""


def test_a_conductor_that_lost_its_connection_has_its_place_again(place: Place) -> None:
    with TcpProxy(int(place.given["url"].rsplit(":", 1)[1].split("/")[0])) as proxy:
        through = {**place.given, "url": place.given["url"].replace(f":{proxy.target_port}/", f":{proxy.port}/")}
        broker = RabbitBroker(BrokerSection.model_validate(through), sole="conductor")
        assert broker.take("conductor", timeout=0) is None
        proxy.reset()
        place.open().publish(outgoing("event", lane="conductor"))
        assert wait_for(lambda: taken_or_refused(broker, "conductor"), limit=30) == "event"
        broker.close()


def test_two_installations_with_prefixes_of_their_own_share_a_broker(place: Place) -> None:
    ours, theirs = (
        opened(place, prefix=f"{place.given['prefix']}-a"),
        opened(place, prefix=f"{place.given['prefix']}-b"),
    )
    ours.publish(outgoing("of-ours", "dead-of-ours"))
    theirs.publish(outgoing("of-theirs"))
    assert taken(ours).id == "of-ours"
    ours.reject(taken(ours), reason="refused")
    assert take_all(theirs) == ["of-theirs"]
    assert theirs.dead("sftp") == []
    assert [letter.id for letter in ours.dead("sftp")] == ["dead-of-ours"]
