"""Threads of one process that publish at one moment share a round of confirmations on RabbitMQ, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqi_cli.broker.amqp.channel import Channel
from mqi_cli.errors import BrokerRefused
from servers.broker_place import Place, outgoing, take_all
from servers.rabbitmq import RabbitNode

pytestmark = pytest.mark.rabbitmq


def test_many_threads_publish_in_few_rounds_and_every_message_arrives(
    rabbit_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = rabbit_place.open()
    broker.publish(outgoing("first"))
    rounds = 0
    publish = Channel.publish

    async def counted(self: Channel, letters: Any) -> set[str]:
        nonlocal rounds
        rounds += 1
        return await publish(self, letters)

    monkeypatch.setattr(Channel, "publish", counted)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: broker.publish(outgoing(f"{number}a", f"{number}b")), range(64)))

    found = take_all(broker, wait=1.0)
    assert sorted(found) == sorted(["first", *(f"{number}{half}" for number in range(64) for half in "ab")])
    assert all(found.index(f"{number}a") < found.index(f"{number}b") for number in range(64))
    assert rounds < 64


def test_a_lane_that_is_refused_fails_only_who_publishes_to_it(rabbit_place: Place, rabbitmq: RabbitNode) -> None:
    broker = rabbit_place.open()
    bad = f"{rabbit_place.given['prefix']}.bad"
    rabbitmq.ctl(
        "eval",
        f'rabbit_amqqueue:declare(rabbit_misc:r(<<"/">>, queue, <<"{bad}">>), true, false, [], none, <<"mqi">>).',
    )

    def publish(number: int) -> str:
        try:
            broker.publish(outgoing(str(number), lane="bad" if number % 4 == 0 else "sftp"))
        except BrokerRefused:
            return "refused"
        return "sent"

    with ThreadPoolExecutor(16) as threads:
        ends = list(threads.map(publish, range(16)))

    assert ends == ["refused" if number % 4 == 0 else "sent" for number in range(16)]
    assert set(take_all(broker, wait=1.0)) == {str(number) for number in range(16) if number % 4}
