"""`kill -9` at random moments over all processes, again and again, while cases keep coming: seeded, so that it can be repeated."""

from __future__ import annotations

import time

import pytest

from faults.checker import Allowed, check
from faults.plant import CREW, Plant, crew
from servers.house import wait_for


@pytest.mark.parametrize(
    ("rounds", "cases"),
    [
        (20, 6),
        pytest.param(300, 80, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
    ids=["short", "long"],
)
def test_processes_killed_at_random_moments_lose_and_repeat_nothing(
    plant: Plant, broker: str, rounds: int, cases: int
) -> None:
    plant.configure(broker=broker, seconds=0.3)
    random = plant.random
    with crew(plant, *CREW, "sftp+2", "ssh-exec+2") as processes:
        for number in range(rounds):
            if number % max(1, rounds // cases) == 0 and len(plant.dropped) < cases:
                plant.drop(1)
            time.sleep(random.uniform(0.0, 0.8))  # the moment itself is what is tried out
            processes.keep()
            processes.kill(random.choice(sorted(processes.running)))
        plant.drop(cases - len(plant.dropped))
        retried = go_on_to_the_end(plant, processes.keep)
    assert processes.starts > rounds / 2
    check(plant, Allowed(restarts=frozenset(retried)))


def go_on_to_the_end(plant: Plant, keep) -> set[str]:  # type: ignore[no-untyped-def]
    """Wait until all is done. A case over which too many workers died is held, and a person says: retry."""
    retried = set()

    def look() -> bool:
        keep()
        with plant.store() as store:
            held = [row for row in store.cases.listing(limit=1000) if str(row.state) == "held"]
        for row in held:
            assert "workers were lost over it" in row.reason, row.reason
            plant.mqi("case", "retry", row.key)
            retried.add(row.name)
        return plant.all_in("done")

    wait_for(look, "all cases to be done", limit=150, pause=0.2, stand=plant.stand)
    return retried
