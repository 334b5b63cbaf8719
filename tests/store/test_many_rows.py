"""What the daemon does for each event, tick and frame costs the same however many cases there are, and were.

Counted are SQLite's own steps, not seconds: the same on every machine, and the same on each run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mqi_cli.case import CaseState
from mqi_cli.store import Store
from mqi_cli.store.views import Views

NOW = 1.8e9
FEW, MANY = 1_500, 12_000
GROWTH = 1.3  # a tree is a level deeper here and there
STEPS_COUNTED = 20  # SQLite's steps between two counts


def _big_store() -> ModuleType:
    """Return the benchmarks' maker of stores: they are no package."""
    spec = importlib.util.spec_from_file_location(
        "big_store", Path(__file__).parents[2] / "benchmarks" / "big_store.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BIG_STORE = _big_store()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """A small installation, one with eight times its ended cases, and one with ten times as many that wait."""
    place = tmp_path_factory.mktemp("stores")
    made = {
        "few": BIG_STORE.build(place / "few" / "state.db", cases=FEW, waiting=100, now=NOW),
        "many ended": BIG_STORE.build(place / "ended" / "state.db", cases=MANY, waiting=100, now=NOW),
        "many waiting": BIG_STORE.build(place / "waiting" / "state.db", cases=FEW + 900, waiting=1000, now=NOW),
    }
    yield made
    for store in made.values():
        store.close()


def some_case(store: Store) -> Any:
    return store.cases.listing(states=[CaseState.WAITING], limit=1)[0]


def done_case(store: Store) -> Any:
    return store.cases.listing(states=[CaseState.DONE], limit=1)[0]


NAMES = [BIG_STORE.name_of(number) for number in range(1, 60)]

Act = Callable[[Store], object]

# What happens for each event and each command.
FOR_EVENTS: dict[str, Act] = {
    "a case by key": lambda store: store.cases.by_key(some_case(store).key),
    "a case by id": lambda store: store.cases.by_id(some_case(store).id),
    "the newest revision": lambda store: store.cases.newest(BIG_STORE.SOURCE, NAMES[7]),
    "the newest attempt": lambda store: store.parts.latest(some_case(store).id, "run", ""),
    "the attempts of a step": lambda store: store.parts.of_step(some_case(store).id, "run"),
    "live attempts of a case": lambda store: store.parts.live_of_case(some_case(store).id),
    "finished steps": lambda store: store.parts.finished(some_case(store).id, ["upload"]),
    "runs that may be alive": lambda store: store.parts.maybe_alive(some_case(store).id),
    "who is next": lambda store: store.parts.waiting_for("jobs:far", limit=2),
    "runs on a host": lambda store: store.parts.jobs_on("far"),
    "GPUs of a part": lambda store: store.gpus.leased_by(1),
    "a host": lambda store: store.hosts.get("far"),
    "a new event": lambda store: store.messages.take_in("never seen", now=NOW),
    "a command": lambda store: store.messages.put_out("m", part=1, lane="sftp", body=b"{}", now=NOW),
    "an entry of the log": lambda store: store.events.add(at=NOW, case=1, kind="x", text="x"),
    "a change of state": lambda store: store.cases.update(some_case(store).id, state="held"),
    "a new priority": lambda store: store.parts.set_priority(some_case(store).id, 5),
}
# What the conductor does each second.
FOR_TICKS: dict[str, Act] = {
    "what is due": lambda store: store.parts.due(NOW),
    "ended leases": lambda store: store.parts.expired(NOW),
    "things waited for": lambda store: store.parts.things_waited_for(),
    "paused hosts": lambda store: store.hosts.paused(),
    "unsent commands": lambda store: store.messages.unsent(limit=1),
    "what is new": lambda store: store.events.after(store.events.last_id()),
    "a clock that jumped": lambda store: store.parts.shift_times(5.0),
    "leases anew": lambda store: store.parts.renew_all(NOW),
    "old ids": lambda store: store.messages.forget_in(before=0.0),
    "old entries of the log": lambda store: store.events.forget(before=0.0, limit=100),
}
# What a patrol's round, a frame or a command on the terminal reads.
FOR_PEOPLE: dict[str, Act] = {
    "counts": lambda store: store.cases.counts(),
    "all cases": lambda store: store.cases.listing(limit=20),
    "current cases": lambda store: store.cases.listing(ended_since=NOW - 3600, limit=20),
    "held cases": lambda store: store.cases.listing(states=[CaseState.HELD], limit=20),
    "ended cases": lambda store: store.cases.listing(states=[CaseState.DONE], limit=20),
    "cases of a source": lambda store: store.cases.listing(source=BIG_STORE.SOURCE, limit=20),
    "cases of another source": lambda store: store.cases.listing(source="other", limit=20),
    "changed of late": lambda store: store.cases.listing(states=[CaseState.DONE], since=NOW - 3600, limit=20),
    "a case by its name": lambda store: store.cases.matching(done_case(store).name),
    "a case by a prefix": lambda store: store.cases.matching(done_case(store).key[:10]),
    "a name that is none": lambda store: store.cases.matching("zzz"),
    "completion": lambda store: store.cases.names_beginning(done_case(store).name[:-1]),
    "completion of nothing": lambda store: store.cases.names_beginning("zzz"),
    "a case's log": lambda store: store.events.of_case(done_case(store).id),
    "all of a case": lambda store: Views(store).detail(done_case(store).key),
    "names of a source": lambda store: list(store.cases.known(BIG_STORE.SOURCE, NAMES)),
    "settling names": lambda store: store.cases.settling(BIG_STORE.SOURCE),
    "a frame": lambda store: Views(store).snapshot(ended_since=NOW - 3600, cases=50, parts=50, events=20),
}


def steps(store: Store, act: Act) -> int:
    """Count the steps that SQLite makes for an operation, which is undone."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection = store.database.connection()
    try:
        with store.transaction():
            some_case(store), done_case(store)  # what an operation needs to begin with is counted in both stores alike
            connection.set_progress_handler(count, STEPS_COUNTED)
            act(store)
            connection.set_progress_handler(None, 0)
            raise Undone
    except Undone:
        return counted * STEPS_COUNTED


class Undone(Exception):
    """Ends a transaction without keeping what it did."""


@pytest.mark.parametrize("act", (FOR_EVENTS | FOR_TICKS | FOR_PEOPLE).values(), ids=FOR_EVENTS | FOR_TICKS | FOR_PEOPLE)
def test_an_operation_costs_the_same_with_many_ended_cases(stores: dict[str, Store], act: Act) -> None:
    few, many = steps(stores["few"], act), steps(stores["many ended"], act)

    assert many <= few * GROWTH + 5 * STEPS_COUNTED


@pytest.mark.parametrize("act", (FOR_EVENTS | FOR_TICKS).values(), ids=FOR_EVENTS | FOR_TICKS)
def test_an_operation_of_the_conductor_costs_the_same_with_many_waiting_cases(
    stores: dict[str, Store], act: Act
) -> None:
    few, many = steps(stores["few"], act), steps(stores["many waiting"], act)

    assert many <= few * GROWTH + 5 * STEPS_COUNTED


def test_the_count_of_steps_tells_a_scan_from_a_look_up(stores: dict[str, Store]) -> None:
    def scan(store: Store) -> object:
        return list(store.database.execute_sql("SELECT 1 FROM part WHERE reason = 'none such'"))

    assert steps(stores["many ended"], scan) > 5 * steps(stores["few"], scan)
