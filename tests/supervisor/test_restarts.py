"""When a process that ended is started again."""

from random import Random

import pytest

from mqi_cli.restarts import FATAL_DELAY, LONGEST_DELAY, MOST_EXITS, Restarts


class Middle(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_the_delay_doubles_from_one_second_to_a_minute() -> None:
    restarts = Restarts(Middle())
    delays = [restarts.ended(at * 1000.0, lived=1.0).delay for at in range(9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_minute_of_health_resets_the_delay() -> None:
    restarts = Restarts(Middle())
    for at in range(5):
        restarts.ended(at * 1000.0, lived=1.0)
    assert restarts.ended(9000.0, lived=60.0).delay == 1


def test_jitter_stays_within_a_fifth_and_is_not_always_the_same() -> None:
    delays = {Restarts(Random(seed)).ended(0.0, lived=0.0).delay for seed in range(50)}
    assert len(delays) > 10
    assert min(delays) >= 0.8
    assert max(delays) <= 1.2


def test_more_than_ten_exits_in_ten_minutes_are_fatal_and_rare_ones_never() -> None:
    often, rarely = Restarts(Middle()), Restarts(Middle())
    verdicts = [often.ended(at * 50.0, lived=1.0).fatal for at in range(MOST_EXITS + 1)]
    assert verdicts == [False] * MOST_EXITS + [True]
    assert not any(rarely.ended(at * 61.0, lived=1.0).fatal for at in range(100))


def test_a_fatal_child_is_tried_slowly_until_it_is_healthy_again() -> None:
    restarts = Restarts(Middle())
    for at in range(MOST_EXITS + 1):
        restarts.ended(float(at), lived=0.1)
    late = restarts.ended(5000.0, lived=0.1)
    assert (late.fatal, late.delay) == (True, FATAL_DELAY)
    well = restarts.ended(9000.0, lived=61.0)
    assert (well.fatal, well.delay) == (False, 1)


@pytest.mark.parametrize("exits", [2000])
def test_years_of_failing_never_overflow(exits: int) -> None:
    restarts = Restarts(Middle())
    assert max(restarts.ended(at * 100.0, lived=1.0).delay for at in range(exits)) == LONGEST_DELAY
