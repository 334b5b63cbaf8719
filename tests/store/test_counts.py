"""The counts of cases by state are kept by the database itself, whatever changes a case, and proven by the check."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest

from mqi_cli.case import CaseState
from mqi_cli.store import Store
from mqi_cli.store.backup import check


def add(store: Store, number: int, state: CaseState) -> None:
    store.cases.add(
        key=f"c{number:010d}",
        source="in",
        name=f"case-{number}",
        revision=1,
        state=state,
        created_at=0.0,
        updated_at=0.0,
    )


def counted(store: Store) -> dict[CaseState, int]:
    rows = store.cases.listing()
    return {state: sum(row.state is state for row in rows) for state in CaseState}


def test_the_counts_follow_every_change(store: Store) -> None:
    random = Random(7)
    for number in range(30):
        add(store, number, random.choice(list(CaseState)))
    for row in store.cases.listing():
        store.cases.update(row.id, state=str(random.choice(list(CaseState))))
    store.database.execute_sql("DELETE FROM case_ WHERE id % 5 = 0")

    assert store.cases.counts() == counted(store)
    assert sum(store.cases.counts().values()) == 24
    assert check(store.path) == []


def test_what_is_undone_is_not_counted(store: Store) -> None:
    add(store, 1, CaseState.READY)
    with pytest.raises(KeyError), store.transaction():
        add(store, 2, CaseState.READY)
        raise KeyError

    assert store.cases.counts()[CaseState.READY] == 1


@pytest.mark.parametrize(
    "change", ["UPDATE tally SET cases = cases + 1", "DELETE FROM tally", "INSERT INTO tally VALUES ('held', 3)"]
)
def test_the_check_finds_a_count_that_is_wrong(store: Store, path: Path, change: str) -> None:
    add(store, 1, CaseState.READY)
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()

    assert "the count of cases that are" in check(path)[0]
