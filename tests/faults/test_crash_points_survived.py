"""Conductor and workers die between any two durable steps: nothing is lost, doubled or left behind."""

from __future__ import annotations

from faults.checker import check
from faults.plant import Plant, crew
from mqi_cli.crash_points import AT_VARIABLE, MARKS_VARIABLE, POINTS


def test_dying_at_every_point_loses_and_repeats_nothing(plant: Plant, either_broker: str) -> None:
    plant.configure(broker=either_broker, seconds=0.5)
    plant.drop(3)
    points = [
        name for name in POINTS if either_broker or name != "worker.accepted"
    ]  # one transaction in the embedded queue
    # A count above 1 moves a death to a later case; it counts within one process, which others of these deaths may end.
    later = [name for name in points if not name.startswith(("worker", "intake"))]
    at = ",".join(f"{name}:{plant.random.randint(1, 2) if name in later else 1}" for name in points)
    with crew(plant, **{AT_VARIABLE: at, MARKS_VARIABLE: str(plant.marks)}) as processes:
        plant.wait_done(limit=150, keep=processes.keep)
    assert sorted(each.name for each in plant.marks.iterdir()) == sorted(points)
    assert processes.starts == len(points) + 5
    check(plant)
