"""Poison, repeats and reordering in the queues: poison lies among the dead letters with its reason, everything else flows on."""

from __future__ import annotations

import json

from faults.checker import check, dead_letters
from faults.plant import CREW, Plant, crew
from mqi_cli.broker import open_broker
from mqi_cli.broker.base import Broker, Outgoing
from mqi_cli.config.load import load_config
from mqi_cli.message import EVENTS_LANE
from mqi_cli.plugins import load_plugins
from servers.house import wait_for

EVENT = {
    "v": 1, "type": "event", "id": "poison", "kind": "done", "worker": "w", "at": 1.0, "case": "caaaaaaaaaa",
    "step": "upload", "part": "", "attempt": 1, "turn": 1, "data": {},
}  # fmt: skip


def poison(**changes: object) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


POISON = {
    "no JSON": (b"\xff{", "not JSON"),
    "not a number": (poison(data={"x": 1}).replace(b'"x": 1', b'"x": NaN'), "not JSON"),
    "unknown version": (poison(v=2), "unknown version"),
    "unknown kind of message": (poison(type="order"), "unknown kind of message"),
    "unknown kind of event": (poison(kind="exploded"), "unknown kind of event"),
    "wrong schema": (poison(attempt="one"), "attempt"),
    "unknown field": (poison(path="/etc/passwd"), "unknown fields"),
    "too large": (poison(data={"x": "y" * 70_000}), "limit"),
    "much too large": (b" " * 16_000_000, "limit"),
    "a command for the conductor": (b"", "a command, where an event"),
    "unknown case": (poison(), "no case"),
}


def opened(plant: Plant) -> Broker:
    return open_broker(load_config(plant.config, load_plugins()))


def test_poison_is_put_aside_with_its_reason_and_the_rest_flows_on(plant: Plant, rabbitmq_first: str) -> None:
    plant.configure(broker=rabbitmq_first)
    plant.drop(1)
    queue = opened(plant)
    with crew(plant, *[each for each in CREW if each != "sftp"]) as processes:
        # The first command, taken from its lane, is a message of ours that is well, in a place where it is not.
        command = wait_for(lambda: queue.take("sftp", timeout=1), "a command", limit=60, stand=plant.stand)
        queue.reject(command, reason="", requeue=True)
        for number, (body, _) in enumerate(POISON.values()):
            queue.publish([Outgoing(EVENTS_LANE, f"poison-{number}", body or command.body)])
        queue.publish([Outgoing("sftp", "poison-last", b"{}")])
        processes.start("sftp")
        plant.wait_done()
        wait_for(lambda: len(dead_letters(plant)) == len(POISON) + 1, "all poison to be put aside", stand=plant.stand)
        reasons = {each["id"]: each["reason"] for each in listed(plant)}
        for number, (_, reason) in enumerate(POISON.values()):
            assert reason in reasons[f"poison-{number}"]
        assert all(len(reason) < 300 and "passwd" not in reason for reason in reasons.values())
        wait_for(lambda: "dead letters" in plant.mqi("status", code=None), "status to tell", stand=plant.stand)
        assert "unknown version" in plant.mqi("dead", "show", "poison-2")
        plant.mqi("dead", "replay", "poison-10")  # it is refused again: one dead letter, as before
        wait_for(lambda: len(dead_letters(plant)) == len(POISON) + 1, "it to be put aside again", stand=plant.stand)
        plant.mqi("dead", "purge", "poison-0", "--yes")
        assert len(dead_letters(plant)) == len(POISON)
        plant.mqi("dead", "purge", "--yes")
    queue.close()
    check(plant)


def listed(plant: Plant) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(plant.mqi("dead", "list", "--json"))
    return found


def test_a_command_that_is_replayed_again_and_again_has_one_effect(plant: Plant, rabbitmq_first: str) -> None:
    lane = "ssh-exec" if rabbitmq_first else "sftp"  # each lane once is enough: what is tried out is the message's way
    plant.configure(broker=rabbitmq_first, seconds=0.5)
    plant.drop(1)
    queue = opened(plant)
    with crew(plant, *[each for each in CREW if each != lane]) as processes:
        command = wait_for(lambda: queue.take(lane, timeout=1), "a command", limit=60, stand=plant.stand)
        queue.reject(command, reason="put aside by hand")
        plant.mqi("dead", "replay", command.id)
        queue.publish([Outgoing(lane, command.id, command.body)] * 2)
        processes.start(lane)
        processes.start(f"{lane}+2")
        plant.wait_done()
        queue.publish([Outgoing(lane, command.id, command.body)] * 2)  # and late
        wait_for(lambda: queue.depth(lane).ready == 0, "the late ones to be taken", stand=plant.stand)
    queue.close()
    check(plant)


def test_events_that_come_three_times_and_in_disorder_have_one_effect(plant: Plant, either_broker: str) -> None:
    plant.configure(broker=either_broker, lease="10s")
    plant.drop(4)
    queue = opened(plant)
    with crew(plant, *[each for each in CREW if each != "conductor"]) as processes:
        while not plant.all_in("done"):
            # The conductor lives between the storms only.
            processes.start("conductor")
            wait_for(lambda: plant.all_in("done") or progressed(plant), "a step", limit=60, stand=plant.stand)
            processes.kill("conductor")
            processes.running.pop("conductor").wait(20)
            storm(plant, queue)
        log = plant.directory / "conductor.log"
        began = log.read_text().count("is at work")
        processes.start("conductor")
        wait_for(lambda: log.read_text().count("is at work") > began, "the conductor", stand=plant.stand)
        wait_for(lambda: queue.depth(EVENTS_LANE).ready == 0, "the storm to be over", stand=plant.stand)
    queue.close()
    check(plant)


def progressed(plant: Plant) -> bool:
    """Whether more runs have begun than at the last look."""
    before, plant.seen = getattr(plant, "seen", 0), len(plant.starts())  # type: ignore[attr-defined]
    return len(plant.starts()) > before


def storm(plant: Plant, queue: Broker) -> None:
    """Take all events that wait and put them back three times, in any order."""
    taken = []
    while delivery := queue.take(EVENTS_LANE, timeout=1):
        taken.append(Outgoing(EVENTS_LANE, f"{delivery.id}", delivery.body))
        queue.ack(delivery)
    for _ in range(3):
        plant.random.shuffle(taken)
        queue.publish(taken)
