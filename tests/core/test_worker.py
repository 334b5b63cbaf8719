"""A worker over a real embedded queue: what it needs on its machine, and what it does with a message that is none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mqi_cli.broker.base import LaneDepth, Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker
from mqi_cli.message import EVENTS_LANE, Command, Event, EventKind, decode, encode
from mqi_cli.plugins import load_plugins
from mqi_cli.stage import Done, Stage, Step, StepOptions, Workflow
from mqi_cli.step_digest import step_digest
from mqi_cli.store import Store
from mqi_cli.worker import Worker


@contextlib.contextmanager
def serving(bench: Any, broker: EmbeddedBroker, stage: Stage, *, store: Store | None = None) -> Iterator[None]:
    """Serve a lane with one stage, on a machine that has neither the state database nor the source."""
    bench.config.workflows["qa"] = Workflow("qa", (Step(stage.name, stage, StepOptions()),))
    plugins = load_plugins(entry_points=())
    plugins.section_of = lambda owner: ""  # type: ignore[method-assign]
    plugins.owner_of = lambda kind, name: "test"  # type: ignore[method-assign]
    worker = Worker(stage.lane, config=bench.config, plugins=plugins, broker=broker, store=store)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.ask_stop()
        thread.join(20)
        assert not thread.is_alive()


def command(stage: str) -> Command:
    """Return a command for a case whose directory is nowhere on this machine."""
    return Command("m-1", "lane-x", "caaaaaaaaaa", 1, "in", "f" * 64, "qa", stage, "", 1, 1)


def events(broker: EmbeddedBroker, until: Callable[[list[Event]], bool], *, signs: bool = False) -> list[Event]:
    """Take events until there are those that were wanted; signs of life are among them where they are asked for."""
    found: list[Event] = []
    limit = time.monotonic() + 20
    while not until(found):
        assert time.monotonic() < limit, [event.kind for event in found]
        if delivery := broker.take(EVENTS_LANE, timeout=0.5):
            event = decode(delivery.body)
            assert isinstance(event, Event)
            found.append(event)
            broker.ack(delivery)
    return [event for event in found if signs or event.kind is not EventKind.ALIVE]


def last_is(kind: EventKind) -> Callable[[list[Event]], bool]:
    """Whether an event of a kind has come."""
    return lambda found: any(event.kind is kind for event in found)


def test_a_stage_that_needs_no_local_directory_runs_where_the_source_is_not_mounted(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    stage = Stage("compute", lambda case, ctx: Done({"key": case.key}), "lane-x", local=False)
    with serving(bench, broker, stage):
        asked = command("compute")
        broker.publish([Outgoing("lane-x", asked.id, encode(asked))])
        found = events(broker, last_is(EventKind.DONE))
    broker.close()

    assert [event.kind for event in found] == [EventKind.ACCEPTED, EventKind.DONE]
    assert found[-1].data == {"facts": {"key": "caaaaaaaaaa"}}


def test_a_stage_is_told_whether_its_command_lay_in_the_queue_for_long(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    stage = Stage("clear", lambda case, ctx: Done({"recent": ctx.is_recent}), "lane-x", local=False)
    asked = command("clear")
    ages = {"new": 1.0, "old": 3600.0, "ahead": -3600.0}
    commands = [replace(asked, id=name, at=time.time() - age) for name, age in ages.items()]
    with serving(bench, broker, stage):
        broker.publish([Outgoing("lane-x", each.id, encode(each)) for each in commands])
        found = events(broker, lambda each: sum(event.kind is EventKind.DONE for event in each) == 3)
    broker.close()

    told = [event.data["facts"]["recent"] for event in found if event.kind is EventKind.DONE]
    assert told == [True, False, False]


def test_a_stage_that_needs_the_directory_says_that_it_is_not_there_and_is_asked_again(
    bench: Any, tmp_path: Path
) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    (tmp_path / "in").mkdir()
    stage = Stage("send", lambda case, ctx: Done(), "lane-x")
    with serving(bench, broker, stage):
        asked = command("send")
        broker.publish([Outgoing("lane-x", asked.id, encode(asked))])
        found = events(broker, last_is(EventKind.RETRY))
    broker.close()

    assert "does not find the case's directory below source in" in found[-1].data["reason"]
    assert found[-1].data["host"] == ""


def test_a_message_that_is_none_goes_to_the_dead_letters_and_the_next_one_is_served(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    stage = Stage("compute", lambda case, ctx: Done(), "lane-x", local=False)
    with serving(bench, broker, stage):
        asked = command("compute")
        broker.publish([Outgoing("lane-x", "bad", b'{"v":99}'), Outgoing("lane-x", asked.id, encode(asked))])
        events(broker, last_is(EventKind.DONE))
        letters = broker.dead("lane-x")
    broker.close()

    assert [(letter.id, letter.reason) for letter in letters] == [("bad", "an unknown version of the message format")]


def test_a_bug_in_a_stage_is_told_by_its_kind_and_place_without_its_message(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")

    patient = "Doe^John"

    def broken(case: Any, ctx: Any) -> Done:
        raise ValueError(patient)

    with serving(bench, broker, Stage("compute", broken, "lane-x", local=False)):
        asked = command("compute")
        broker.publish([Outgoing("lane-x", asked.id, encode(asked))])
        found = events(broker, last_is(EventKind.BUG))
    broker.close()

    assert found[-1].data["reason"] == "ValueError"
    assert "in broken" in found[-1].data["traceback"]
    assert "Doe" not in str(found[-1].data)


def test_a_worker_whose_config_says_otherwise_waits_uses_up_no_try_and_says_so_with_each_sign_of_life(
    bench: Any, tmp_path: Path
) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    calls: list[str] = []
    stage = Stage("run", lambda case, ctx: calls.append(ctx.fence) or Done(), "lane-x", local=False)  # type: ignore[func-returns-value]
    with serving(bench, broker, stage):
        for asked in (command("other"), replace(command("run"), id="m-3", digest="0" * 16)):
            broker.publish([Outgoing("lane-x", asked.id, encode(asked))])
            found = events(broker, last_is(EventKind.WAIT), signs=True)
            troubles = [event.data["trouble"] for event in found if event.kind is EventKind.ALIVE]
            (wait,) = [event for event in found if event.kind is EventKind.WAIT]
            assert "its config" in troubles[-1]
            assert "lane-x@" in wait.data["note"], "which worker it is"
        assert "says otherwise of step run" in wait.data["note"]
        assert calls == []

        step = bench.config.workflows["qa"].step("run")
        alike = replace(command("run"), id="m-2", digest=step_digest(step, salt=bench.config.key_salt))
        broker.publish([Outgoing("lane-x", alike.id, encode(alike))])
        events(broker, last_is(EventKind.DONE))
        assert calls == ["1-1"]
    broker.close()


def test_a_worker_serves_cases_that_a_state_database_of_its_own_machine_does_not_know(
    bench: Any, tmp_path: Path
) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    stage = Stage("compute", lambda case, ctx: Done(), "lane-x", local=False)
    with serving(bench, broker, stage, store=bench.store):
        asked = command("compute")
        broker.publish([Outgoing("lane-x", asked.id, encode(asked))])
        events(broker, last_is(EventKind.DONE))
    broker.close()


def test_a_worker_that_ends_in_good_order_says_that_it_leaves(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    with serving(bench, broker, Stage("compute", lambda case, ctx: Done(), "lane-x", local=False)):
        events(broker, lambda found: bool(found), signs=True)
    left = events(broker, lambda found: found[-1:] != [] and bool(found[-1].data["leaving"]), signs=True)
    broker.close()

    for event in left:
        bench.conductor.apply(event)
    assert bench.store.workers.all() == []


def test_a_command_that_comes_twice_is_performed_once(bench: Any, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "queue.db")
    calls: list[str] = []
    stage = Stage("run", lambda case, ctx: calls.append("run") or Done(), "lane-x", local=False)  # type: ignore[func-returns-value]
    with serving(bench, broker, stage):
        for _ in range(3):
            broker.publish([Outgoing("lane-x", "m-1", encode(command("run")))])
            events(broker, lambda found: broker.depth("lane-x") == LaneDepth(0, 0, 0))
    assert calls == ["run"]
    broker.close()
