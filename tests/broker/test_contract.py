"""What every broker keeps to, whichever it is."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqi_cli.broker.base import DELIVERY_LIMIT, Broker, Outgoing
from mqi_cli.errors import BrokerUnreachable
from servers.broker_place import Place, outgoing, take_all, taken, wait_for


def test_messages_come_in_the_order_in_which_they_were_published(broker: Broker) -> None:
    broker.publish(outgoing("1", "2"))
    broker.publish(outgoing("3"))

    assert take_all(broker) == ["1", "2", "3"]


def test_a_message_arrives_as_it_was_sent(broker: Broker) -> None:
    body = bytes(range(256)) * 250
    broker.publish([Outgoing("sftp", "an id: with ümlaut", body)])

    delivery = taken(broker)

    assert (delivery.lane, delivery.id, delivery.body) == ("sftp", "an id: with ümlaut", body)
    assert not delivery.redelivered


def test_publishing_nothing_is_allowed(broker: Broker) -> None:
    broker.publish([])

    assert broker.take("sftp", timeout=0) is None


def test_lanes_are_apart(broker: Broker) -> None:
    broker.publish([*outgoing("1", lane="sftp"), *outgoing("2", lane="ssh-exec")])

    assert take_all(broker, lane="ssh-exec") == ["2"]
    assert take_all(broker, lane="sftp") == ["1"]


def test_messages_outlive_who_published_them(place: Place) -> None:
    first = place.open()
    first.publish(outgoing("1", "2"))
    first.close()

    assert take_all(place.open()) == ["1", "2"]


def test_an_empty_lane_gives_none_when_the_time_is_up(broker: Broker) -> None:
    broker.take("sftp", timeout=0)  # connected
    start = time.monotonic()

    assert broker.take("sftp", timeout=0.5) is None

    assert 0.45 < time.monotonic() - start < 3.0


def test_after_a_wait_in_vain_the_next_message_is_there_at_once(broker: Broker) -> None:
    for number in range(5):
        assert broker.take("sftp", timeout=0.05) is None
        broker.publish(outgoing(str(number)))

        assert take_all(broker) == [str(number)]


def test_a_message_has_one_taker(place: Place) -> None:
    first, second = place.open(), place.open()
    first.publish(outgoing(*map(str, range(40))))

    with ThreadPoolExecutor(2) as threads:
        ids = [each.result() for each in [threads.submit(take_all, one, wait=0.5) for one in (first, second)]]

    assert sorted(ids[0] + ids[1], key=int) == list(map(str, range(40)))


def test_nobody_else_gets_a_message_while_its_taker_lives(place: Place) -> None:
    first, second = place.open(), place.open()
    first.publish(outgoing("1"))
    held = taken(first)

    assert second.take("sftp", timeout=2.5) is None

    first.ack(held)
    assert first.depth("sftp").ready == 0


def test_a_busy_taker_holds_back_nothing_it_did_not_ask_for(place: Place) -> None:
    busy, idle = place.open(), place.open()
    busy.publish(outgoing("1", "2", "3"))
    busy.ack(taken(busy))  # and now it works for an hour

    assert take_all(idle, wait=0.2) == ["2", "3"]


def test_an_acknowledged_message_never_comes_again(place: Place) -> None:
    first = place.open()
    first.publish(outgoing("1"))
    first.ack(taken(first))
    first.close()

    assert place.open().take("sftp", timeout=0.3) is None


def test_closing_gives_back_what_was_taken(place: Place) -> None:
    first, second = place.open(), place.open()
    first.publish(outgoing("1"))
    taken(first)
    first.close()

    assert taken(second).id == "1"


def test_what_a_killed_process_had_taken_comes_back_within_seconds(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing("1"))
    process = place.process("tell(broker.take('sftp', timeout=20).id); time.sleep(600)")
    assert process.stdout is not None and json.loads(process.stdout.readline()) == "1"
    assert broker.take("sftp", timeout=0) is None

    process.kill()
    process.wait()
    start = time.monotonic()
    delivery = taken(broker)

    assert delivery.id == "1" and delivery.redelivered
    assert time.monotonic() - start < 5.0


def test_a_message_that_is_put_back_comes_again(broker: Broker) -> None:
    broker.publish(outgoing("1"))
    broker.reject(taken(broker), reason="not now", requeue=True)

    again = taken(broker)

    assert again.id == "1" and again.redelivered
    assert broker.depth("sftp").dead == 0


def test_an_old_delivery_settles_nothing(place: Place) -> None:
    first = place.open()
    first.publish(outgoing("1"))
    old = taken(first)
    first.reject(old, reason="", requeue=True)
    taken(first)

    first.ack(old)
    first.reject(old, reason="", requeue=True)
    assert first.take("sftp", timeout=0.2) is None
    first.close()

    assert taken(place.open()).id == "1"


def test_a_rejected_message_lies_among_the_dead_with_its_reason(broker: Broker) -> None:
    before = time.time()
    broker.publish(outgoing("1", "2"))
    broker.reject(taken(broker), reason="not JSON – ünreadable")

    assert take_all(broker) == ["2"]
    (letter,) = broker.dead("sftp")
    assert (letter.id, letter.lane, letter.body) == ("1", "sftp", b"body of 1")
    assert letter.reason == "not JSON – ünreadable"
    assert before - 1 <= letter.at <= time.time() + 1


def test_looking_at_dead_letters_leaves_them_where_they_are(place: Place) -> None:
    first, second = place.open(), place.open()
    first.publish(outgoing("1", "2", "3"))
    for _ in range(3):
        first.reject(taken(first), reason="no")

    for _ in range(DELIVERY_LIMIT + 2):  # looking is no trying
        assert [each.id for each in first.dead("sftp")] == ["1", "2", "3"]
    assert [each.id for each in second.dead("sftp")] == ["1", "2", "3"]
    assert [each.id for each in second.dead("sftp", limit=2)] == ["1", "2"]
    assert second.depth("sftp").dead == 3


def test_one_dead_letter_can_be_dropped_and_the_others_stay(broker: Broker) -> None:
    broker.publish(outgoing("1", "2", "3"))
    for _ in range(3):
        broker.reject(taken(broker), reason="no")

    assert broker.drop_dead("sftp", "2")
    assert not broker.drop_dead("sftp", "2")

    assert [each.id for each in broker.dead("sftp")] == ["1", "3"]


def test_a_dead_letter_can_be_sent_again(broker: Broker) -> None:
    broker.publish(outgoing("1"))
    broker.reject(taken(broker), reason="no")
    (letter,) = broker.dead("sftp")

    broker.publish([Outgoing(letter.lane, letter.id, letter.body)])
    broker.drop_dead("sftp", letter.id)

    assert take_all(broker) == ["1"]
    assert broker.dead("sftp") == []


def test_a_message_that_nobody_can_settle_ends_among_the_dead(broker: Broker) -> None:
    broker.publish(outgoing("poison", "good"))

    for _ in range(2 * DELIVERY_LIMIT):
        delivery = taken(broker)
        if delivery.id == "good":
            break
        broker.reject(delivery, reason="", requeue=True)

    assert delivery.id == "good"
    (letter,) = wait_for(lambda: broker.dead("sftp"))
    assert letter.id == "poison"
    assert letter.reason == f"taken {DELIVERY_LIMIT} times and never settled"
    assert abs(letter.at - time.time()) < 60


def test_the_depth_counts_what_waits_what_is_taken_and_what_is_dead(broker: Broker) -> None:
    broker.publish(outgoing("1", "2", "3", "4"))
    broker.reject(taken(broker), reason="no")
    held = taken(broker)

    depth = wait_for(lambda: (found := broker.depth("sftp")).ready == 2 and found)
    assert (depth.ready, depth.taken, depth.dead) == (2, 1, 1)

    broker.ack(held)
    assert broker.depth("sftp").taken == 0


def test_a_thousand_messages_arrive_in_order_and_once(place: Place) -> None:
    publisher, taker = place.open(), place.open()
    ids = [f"m{number}" for number in range(1000)]

    publisher.publish(outgoing(*ids))

    assert take_all(taker) == ids


def test_threads_may_share_a_broker(broker: Broker) -> None:
    ids = [f"{thread}-{number}" for thread in range(4) for number in range(25)]
    found: list[str] = []

    def publish(thread: int) -> None:
        for number in range(25):
            broker.publish(outgoing(f"{thread}-{number}"))

    def take() -> None:
        while len(found) < len(ids):
            if delivery := broker.take("sftp", timeout=0.2):
                found.append(delivery.id)
                broker.ack(delivery)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    threads += [threading.Thread(target=take) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)

    assert sorted(found) == sorted(ids)


def test_a_waiting_taker_wakes_when_another_process_publishes(place: Place) -> None:
    broker = place.open()
    broker.take("sftp", timeout=0)
    place.process(
        "broker.publish([Outgoing('sftp', 'first', b'')])\n"
        "for number in range(11):\n"
        "    time.sleep(0.05)\n"
        "    broker.publish([Outgoing('sftp', str(number), repr(time.time()).encode())])\n"
        "time.sleep(600)"
    )
    broker.ack(taken(broker))

    delays = []
    for _ in range(11):
        delivery = taken(broker)
        delays.append(time.time() - float(delivery.body))
        broker.ack(delivery)

    assert sorted(delays)[5] < 0.1  # publishing with its confirmation included


def test_closing_wakes_who_waits(place: Place) -> None:
    broker = place.open()
    with ThreadPoolExecutor(1) as threads:
        broker.take("sftp", timeout=0)
        waiting = threads.submit(broker.take, "sftp", timeout=60.0)
        time.sleep(0.1)  # not needed for the outcome; it makes the usual case that it waits already
        broker.close()

        assert waiting.result(timeout=10) is None


def test_a_closed_broker_stays_closed(broker: Broker) -> None:
    broker.publish(outgoing("1"))
    broker.close()
    broker.close()

    with pytest.raises(BrokerUnreachable):
        broker.take("sftp", timeout=0)
    with pytest.raises(BrokerUnreachable):
        broker.publish(outgoing("2"))


def test_a_broker_that_was_never_used_can_be_closed(place: Place) -> None:
    place.open().close()


def test_many_are_taken_at_once_in_order_and_settled_at_once(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing(*map(str, range(7))))

    first = broker.take_many("sftp", timeout=20, most=5)
    rest = broker.take_many("sftp", timeout=20, most=5)

    assert [each.id for each in first] == ["0", "1", "2", "3", "4"]
    assert [each.id for each in rest] == ["5", "6"]
    assert broker.take_many("sftp", timeout=0, most=5) == []
    broker.ack(*first, *rest)
    broker.close()
    assert place.open().take("sftp", timeout=0.3) is None


def test_an_answer_is_published_and_settles_what_it_answers(place: Place) -> None:
    broker = place.open()
    broker.publish(outgoing("question"))

    broker.answer([taken(broker)], outgoing("answer", lane="conductor"))

    assert take_all(broker, lane="conductor") == ["answer"]
    broker.close()
    assert place.open().take("sftp", timeout=0.3) is None


def test_a_dead_letter_that_died_anew_is_not_dropped_for_the_former(broker: Broker) -> None:
    broker.publish(outgoing("a"))
    broker.reject(taken(broker), reason="first")
    (former,) = broker.dead("sftp")
    broker.publish(outgoing("a"))
    time.sleep(0.01)  # the times of the two differ
    broker.reject(taken(broker), reason="second")
    broker.drop_dead("sftp", "a", at=former.at)
    assert [letter.reason for letter in broker.dead("sftp")] == ["second"]
    assert not broker.drop_dead("sftp", "a", at=former.at)
    assert broker.drop_dead("sftp", "a")
    assert broker.dead("sftp") == []
