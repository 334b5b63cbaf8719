"""What grows in the state database: the record of the cases, and nothing else for ever."""

from __future__ import annotations

from mqi_cli.clockwork import FORGOTTEN_AT_ONCE, HOUSEKEEPING_EVERY, INBOX_KEPT
from mqi_cli.message import EventKind

from .conftest import Bench

DAY = 86400.0


def rows(bench: Bench) -> dict[str, int]:
    """Count the rows of every table."""
    execute = bench.store.database.execute_sql
    tables = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables}


def work_off(bench: Bench, number: int) -> None:
    """Let cases go through to their end, each with a failed try, and a worker say that it lives."""
    for _ in range(number):
        case = bench.case()
        bench.retry(bench.command())
        bench.clock.turn(200.0)
        bench.clockwork.tick()
        for _ in range(3):
            command = bench.command()
            bench.answer(command, EventKind.ACCEPTED)
            bench.answer(command, EventKind.PROGRESS, done=1, total=2, unit="B")
            bench.answer(command, EventKind.DONE, number=2, facts={})
        assert bench.fresh(case).state == "done"


def test_only_the_record_of_the_cases_grows_with_each_case(bench: Bench) -> None:
    work_off(bench, 2)
    before = rows(bench)
    work_off(bench, 5)
    grown = {name for name, count in rows(bench).items() if count > before[name]}

    # the inbox for its 35 days, the events for daemon.keep_log, cases and attempts for ever
    assert grown == {"case_", "part", "event", "inbox"}


def test_ids_of_events_are_forgotten_as_fast_as_they_come(bench: Bench) -> None:
    with bench.store.transaction():
        for number in range(2 * FORGOTTEN_AT_ONCE + 10):
            bench.store.messages.take_in(f"old-{number}", now=bench.clock.now() - INBOX_KEPT - 1)
        bench.store.messages.take_in("new", now=bench.clock.now())
    for _ in range(3):
        bench.clockwork.tick()

    assert rows(bench)["inbox"] == 1
    assert not bench.store.messages.take_in("new", now=bench.clock.now())


def test_entries_of_the_log_are_kept_for_as_long_as_the_config_says(bench: Bench) -> None:
    work_off(bench, 1)
    kept = bench.config.daemon.keep_log
    bench.clock.turn(kept / 2)
    bench.clockwork.tick()
    work_off(bench, 1)
    first, second = bench.now("in", "case-1"), bench.now("in", "case-2")
    assert bench.store.events.of_case(first.id)

    bench.clock.turn(kept / 2 + DAY)
    bench.clockwork.tick()

    assert not bench.store.events.of_case(first.id)
    assert bench.store.events.of_case(second.id)
    assert bench.fresh(first).state == "done"
    assert bench.store.parts.of_case(first.id)


def test_nothing_is_looked_for_again_before_its_time(bench: Bench) -> None:
    bench.clockwork.tick()
    with bench.store.transaction():
        bench.store.messages.take_in("old", now=bench.clock.now() - INBOX_KEPT - 1)
    bench.clockwork.tick()
    assert rows(bench)["inbox"] == 1

    bench.clock.turn(HOUSEKEEPING_EVERY)
    bench.clockwork.tick()

    assert rows(bench)["inbox"] == 0
