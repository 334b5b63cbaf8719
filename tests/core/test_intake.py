"""What the conductor makes of directories that patrols see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mqi_cli.case import CaseState
from mqi_cli.patrol import Alert, CaseSeen, CaseVanished, GpuSeen, GpusSeen


def seen(snapshot: str, **changes: Any) -> CaseSeen:
    """Return a look at one directory."""
    return CaseSeen("in", "p/s", Path("/in/p/s"), snapshot, **changes)


def test_a_directory_settles_with_its_note_and_the_core_measures_how_long_it_is_unchanged(bench: Any) -> None:
    bench.intake.take(seen("a", note="quiet for 0 of 30 s"))
    bench.clock.turn(20)
    bench.clock.jump(-500)
    bench.intake.take(seen("a", note="quiet for 20 of 30 s"))

    row = bench.now("in", "p/s")
    assert (row.state, row.reason) == (CaseState.SETTLING, "quiet for 20 of 30 s")
    assert bench.intake.known("in", ["p/s"])["p/s"].unchanged_for == 20

    bench.intake.take(seen("b", note="quiet for 0 of 30 s"))
    assert bench.intake.known("in", ["p/s"])["p/s"].unchanged_for == 0


def test_a_reboot_starts_the_quiet_time_anew(bench: Any) -> None:
    bench.intake.take(seen("a"))
    bench.clock.turn(100)
    bench.clock.reboot()

    assert bench.intake.known("in", ["p/s"])["p/s"].unchanged_for == 0


def test_a_complete_directory_is_taken_once_however_often_it_is_reported(bench: Any) -> None:
    for _ in range(3):
        bench.intake.take(seen("a", fingerprint="f" * 64, files=1, size=1))

    assert len(bench.store.cases.listing()) == 1
    assert len(bench.commands()) == 1


def test_the_same_content_again_is_dropped_and_other_content_is_a_new_revision(bench: Any) -> None:
    bench.intake.take(seen("a", fingerprint="f" * 64))
    first = bench.now("in", "p/s")
    bench.finish(first)
    bench.intake.take(seen("touched"))
    bench.intake.take(seen("touched", fingerprint="f" * 64))
    assert bench.now("in", "p/s").revision == 1
    assert bench.intake.known("in", ["p/s"])["p/s"].accepted == "touched"

    bench.intake.take(seen("changed", fingerprint="e" * 64))

    second = bench.now("in", "p/s")
    assert second.revision == 2
    assert second.key != first.key
    assert second.state is CaseState.RUNNING
    assert bench.fresh(first).state is CaseState.DONE


def test_a_case_whose_content_changes_before_it_was_taken_gives_way_to_its_next_revision(bench: Any) -> None:
    bench.intake.take(seen("a", fingerprint="f" * 64))
    first = bench.now("in", "p/s")

    bench.intake.take(seen("b", fingerprint="e" * 64))

    assert bench.fresh(first).state is CaseState.CANCELLED
    assert "revision 2 follows" in bench.fresh(first).reason
    assert [command.case for command in bench.commands()] == [bench.now("in", "p/s").key]


def test_a_directory_that_vanishes_and_comes_back_begins_anew(bench: Any) -> None:
    bench.intake.take(seen("a", note="settling"))
    bench.intake.take(CaseVanished("in", "p/s"))
    assert bench.now("in", "p/s").state is CaseState.CANCELLED

    bench.intake.take(seen("a", note="settling"))
    assert bench.now("in", "p/s").state is CaseState.SETTLING
    bench.intake.take(seen("a", fingerprint="f" * 64))

    assert bench.now("in", "p/s").state is CaseState.RUNNING


def test_an_accepted_case_does_not_vanish(bench: Any) -> None:
    bench.intake.take(seen("a", fingerprint="f" * 64))

    bench.intake.take(CaseVanished("in", "p/s"))

    assert bench.now("in", "p/s").state is CaseState.RUNNING


def test_a_directory_that_cant_be_a_case_says_why(bench: Any) -> None:
    bench.intake.take(seen("a", problem="it holds 2 symbolic links"))

    assert bench.now("in", "p/s").reason == "it holds 2 symbolic links"


def test_a_directory_outside_every_source_waits_for_its_operator(bench: Any) -> None:
    row = bench.intake.accept_by_hand(
        CaseSeen("", "/elsewhere/x", Path("/elsewhere/x"), "a", fingerprint="f" * 64), workflow="qa"
    )

    assert row.state is CaseState.WAITING
    assert "by hand" in row.reason
    assert bench.commands() == []
    command = bench.claims.claim(row.id, "upload", worker="hand:me@here-1", daemon_running=True)
    assert command.step == "upload"


def test_an_alert_is_raised_once_and_cleared_once(bench: Any) -> None:
    for _ in range(3):
        bench.intake.take(Alert("source:in", True, "the source can't be read"))
    assert len(bench.store.switches.alerts()) == 1
    for _ in range(2):
        bench.intake.take(Alert("source:in", False, ""))

    assert bench.store.switches.alerts() == []
    assert [event.kind for event in bench.store.events.latest(limit=10)] == ["alert", "all-clear"]


def test_a_gpu_that_is_no_longer_listed_is_one_alert_until_it_is_back(bench: Any) -> None:
    bench.gpus(3)
    bench.gpus(1)
    bench.clock.turn(30)
    bench.gpus(1)
    (alert,) = bench.store.switches.alerts()
    assert (alert["topic"], alert["text"]) == ("gpu-gone:hpc", "host hpc no longer lists GPU 1 (GPU-1), GPU 2 (GPU-2)")
    assert alert["hint"].endswith("mqi gpu hold GPU-1")
    bench.gpus(3)
    assert bench.store.switches.alerts() == []
    told = [event.kind for event in bench.store.events.latest(limit=9) if event.kind in ("alert", "all-clear")]
    assert told == ["alert", "all-clear"]


def test_a_gpu_that_is_there_and_unusable_or_was_taken_out_is_not_missed(bench: Any) -> None:
    bench.gpus(3)
    bench.acts.hold_gpu("GPU-1", held=True)
    bench.intake.take(GpusSeen("hpc", (GpuSeen("GPU-0", 0),), unusable=("GPU-2",)))
    assert bench.store.switches.alerts() == []
    bench.gpus(1)
    (alert,) = bench.store.switches.alerts()
    assert "GPU-2" in alert["text"] and "GPU-1" not in alert["text"]
    bench.clock.turn(7 * 86400)
    bench.gpus(1)
    assert bench.store.switches.alerts() == []


def test_a_look_that_failed_misses_no_gpu(bench: Any) -> None:
    bench.gpus(2)
    bench.intake.take(GpusSeen("hpc", (), problem="no driver"))
    assert [alert["topic"] for alert in bench.store.switches.alerts()] == ["gpus:hpc"]
