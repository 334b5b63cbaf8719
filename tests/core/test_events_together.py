"""Several events in one transaction: each whole or not at all, and none at another's expense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mqi_cli.case import CaseState
from mqi_cli.errors import StateError
from mqi_cli.message import EventKind


def test_events_that_come_together_have_the_effect_of_one_after_the_other(bench: Any) -> None:
    first, second = bench.case(), bench.case()
    commands = bench.commands()
    events = [bench.event(each, kind, facts={}) for kind in (EventKind.ACCEPTED, EventKind.DONE) for each in commands]

    assert bench.conductor.apply_all([*events, *events]) == [""] * 8

    assert [bench.fresh(each).step for each in (first, second)] == ["run", "run"]
    assert [each.step for each in bench.commands()] == ["run", "run"]


def test_an_event_that_the_conductor_can_not_apply_leaves_nothing_and_the_others_are_applied(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, well = bench.case(), bench.case()
    before = len(bench.texts(broken))
    of_broken, of_well = bench.commands()
    note = bench.conductor.note

    def fails_late(case: Any, **what: Any) -> None:
        note(case, **what)
        if case.id == broken.id:
            raise AssertionError("a fault of the conductor's own")

    monkeypatch.setattr(bench.conductor, "note", fails_late)
    events = [bench.event(each, EventKind.DONE, facts={}) for each in (of_broken, of_well)]
    unknown = replace(events[1], case="caaaaaaaaaa")

    problems = bench.conductor.apply_all([events[0], unknown, events[1]])

    assert problems == [
        "a bug in the conductor: AssertionError", "no case has the key caaaaaaaaaa", "",
    ]  # fmt: skip
    assert bench.fresh(broken).step == "upload"
    assert len(bench.texts(broken)) == before
    assert bench.fresh(well).step == "run"
    monkeypatch.undo()
    assert bench.conductor.apply(events[0]), "its id is not taken for one that was applied"


def test_when_the_database_can_not_be_written_none_of_them_is_applied(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.case(), bench.case()
    events = [bench.event(each, EventKind.DONE, facts={}) for each in bench.commands()]
    apply = bench.conductor.apply

    def disk_fills(event: Any) -> bool:
        if event is events[1]:
            raise StateError("the disk is full")
        return bool(apply(event))

    monkeypatch.setattr(bench.conductor, "apply", disk_fills)

    with pytest.raises(StateError):
        bench.conductor.apply_all(events)

    assert [bench.fresh(each).step for each in (first, second)] == ["upload", "upload"]
    assert bench.fresh(first).state is CaseState.RUNNING
