"""Conductor and workers die between any two durable steps: nothing is lost, doubled or left behind."""

from __future__ import annotations

from faults.checker import check
from faults.plant import Plant, crew
from mqi_cli.crash_points import AT_VARIABLE, MARKS_VARIABLE, POINTS


def test_dying_at_every_point_loses_and_repeats_nothing(plant: Plant, broker: str) -> None:
    plant.configure(broker=broker, seconds=0.5)
    plant.drop(3)
    # The counts spread the deaths over the cases' lives; one that is too high is never reached, which the end tells.
    at = ",".join(f"{name}:{plant.random.randint(1, 4 if name.startswith('conductor') else 2)}" for name in POINTS)
    with crew(plant, **{AT_VARIABLE: at, MARKS_VARIABLE: str(plant.marks)}) as processes:
        plant.wait_done(limit=50, keep=processes.keep)
    assert sorted(each.name for each in plant.marks.iterdir()) == sorted(POINTS)
    assert processes.starts == len(POINTS) + 5
    check(plant)
