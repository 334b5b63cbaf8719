"""What of the machinery does not work is an alert in the state database, raised once, and cleared when it works again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mqi_cli.broker.base import LaneDepth
from mqi_cli.condition import Condition
from mqi_cli.errors import BrokerRefused, BrokerUnreachable


class Depths:
    """A broker of which only the depths are asked."""

    def __init__(self) -> None:
        self.dead: dict[str, int] = {}
        self.ready: dict[str, int] = {}

    def depth(self, lane: str) -> LaneDepth:
        return LaneDepth(self.ready.get(lane, 0), 0, self.dead.get(lane, 0))


class Stand:
    """A condition, and what it is told."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.broker = Depths()
        self.broken: dict[str, str] = {}
        self.condition = Condition(
            bench.store,
            self.broker,  # type: ignore[arg-type]
            bench.clock,
            lanes=("conductor", "sftp"),
            not_running=lambda: self.broken,
        )

    def look(self) -> None:
        self.bench.clock.turn(60.0)
        self.condition.look()

    def topics(self) -> list[str]:
        return [alert["topic"] for alert in self.bench.store.switches.alerts()]

    def said(self) -> Sequence[str]:
        return [event.text for event in self.bench.store.events.latest(limit=100)]


@pytest.fixture
def stand(bench: Any) -> Stand:
    return Stand(bench)


def test_a_broker_that_is_away_is_an_alert_until_it_answers(stand: Stand) -> None:
    for _ in range(3):
        stand.condition.broker_is_away(BrokerUnreachable("the broker x:1 cannot be reached", hint="start it"))
    (alert,) = stand.bench.store.switches.alerts()
    assert (alert["topic"], alert["hint"]) == ("broker", "start it")
    stand.condition.broker_is_away(BrokerRefused("the broker x:1 does not let the user in", hint="mend the password"))
    (alert,) = stand.bench.store.switches.alerts()
    assert alert["hint"] == "mend the password"
    stand.condition.broker_answers()
    stand.condition.broker_answers()
    assert stand.topics() == []
    assert len(stand.said()) == 2, "one when it went, one when it came"


def test_an_alert_that_a_former_conductor_left_is_cleared(stand: Stand) -> None:
    stand.condition.broker_is_away(BrokerUnreachable("away", hint=""))
    Stand(stand.bench).condition.broker_answers()
    assert stand.topics() == []


def test_dead_letters_and_what_the_broker_holds_are_noted(stand: Stand) -> None:
    stand.broker.ready["sftp"] = 7
    stand.look()
    assert stand.bench.store.switches.loads()["sftp"] == (7, 0)
    assert stand.topics() == []
    stand.broker.dead["sftp"] = 2
    stand.look()
    assert stand.bench.store.switches.loads()["sftp"] == (7, 2)
    (alert,) = stand.bench.store.switches.alerts()
    assert "2 of lane sftp" in alert["text"]
    assert alert["hint"] == "mqi dead list"
    stand.broker.dead.clear()
    stand.look()
    assert stand.topics() == []


def test_nothing_is_written_while_nothing_changes(stand: Stand) -> None:
    stand.broker.dead["sftp"] = 1
    stand.broken["sftp-1"] = "fatal, exit code 1"
    stand.look()
    before = stand.bench.store.events.last_id()
    total = stand.bench.store.database.connection().total_changes
    stand.look()
    assert stand.bench.store.events.last_id() == before
    assert stand.bench.store.database.connection().total_changes == total


def test_a_process_that_does_not_run_is_an_alert_also_while_the_broker_is_away(stand: Stand) -> None:
    stand.broken["sftp-1"] = "fatal, exit code 1"
    stand.condition.broker_is_away(BrokerUnreachable("away", hint=""))
    assert stand.topics() == ["broker", "process:sftp-1"]
    assert any("sftp-1 does not run: fatal, exit code 1" in each for each in stand.said())
    stand.broken.clear()
    stand.condition.broker_answers()
    stand.look()
    assert stand.topics() == []


def test_alerts_of_hosts_and_sources_that_the_config_lost_are_cleared(stand: Stand) -> None:
    topics = ["host:gone", "disk:gone", "gpu-memory:gone", "source:gone:names", "host:hpc", "source:in", "state-backup"]
    with stand.bench.store.transaction():
        for topic in [*topics, "process:gone"]:
            stand.bench.store.switches.raise_alert(topic, text="x", hint="", now=1.0)
    stand.condition.forget_gone(hosts=["hpc"], sources=["in"])
    assert sorted(stand.topics()) == ["host:hpc", "process:gone", "source:in", "state-backup"]
