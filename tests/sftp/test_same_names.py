"""Results whose names the disk here would take for one another are not written over each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqi_cli import Done, GiveUp
from mqi_sftp.same_names import Sameness, count_same, look_for_sameness
from sftp.bench import Bench, contents, fill

BOTH = Sameness(letters=True, accents=True)
NAMES = ["a/x", "A/x", "b", "cafe\u0301", "caf\u00e9", "CAF\u00c9"]


@pytest.mark.parametrize(
    ("sameness", "count"),
    [
        (Sameness(letters=False, accents=False), 0),
        (Sameness(letters=True, accents=False), 4),
        (Sameness(letters=False, accents=True), 2),
        (BOTH, 5),
    ],
)
def test_names_are_counted_that_a_file_system_takes_for_the_same(sameness: Sameness, count: int) -> None:
    assert count_same(NAMES, sameness.fold) == count


def test_the_disk_is_asked_by_trying_and_nothing_is_left_there(tmp_path: Path) -> None:
    found = look_for_sameness(tmp_path / "not" / "there" / "yet")

    assert found.letters == ((tmp_path / "probe").touch() is None and (tmp_path / "PROBE").exists())
    assert [each.name for each in tmp_path.iterdir()] == ["probe"]


def test_such_results_are_refused_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bench.outputs, {"Dose.raw": b"1", "dose.raw": b"2", "other": b"3"})

    with monkeypatch.context() as patch:
        patch.setattr("mqi_sftp.same_names.look_for_sameness", lambda _place: BOTH)
        with pytest.raises(GiveUp, match="2 names of the results differ only in letter case and") as caught:
            bench.download()
    assert "dose" not in (caught.value.message + caught.value.hint).lower()
    assert not bench.destination.parent.exists()

    assert isinstance(bench.download(), Done), "this disk tells them apart"
    assert contents(bench.destination) == contents(bench.outputs)
