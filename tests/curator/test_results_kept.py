"""What a run computed is never removed from its host before it was fetched and filed: as an operator's commands do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curator.test_look_script import eventually

Step = dict[str, Any]


class Desk:
    """A config with one host, one case, and `mqi` to call. Its run writes `content` once `hold` is gone."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.content = base / "content"
        self.hold = base / "hold"
        self.results = base / "results" / "case" / "dose.raw"
        self.content.write_text("first")
        self.case = str(base / "case")
        (base / "case").mkdir()
        (base / "case" / "a.dat").write_text("input")

    def begin(self, *steps: Step) -> None:
        """Write the config and take the case in."""
        config = {
            "state": {"path": str(self.base / "state" / "state.db")},
            "hosts": {"here": {"type": "local", "base_dir": str(self.base / "far")}},
            "workflows": {"qa": [{"upload": {"host": "here"}}, *steps]},
        }
        (self.base / "mqi.yaml").write_text(json.dumps(config))
        self.mqi("case", "add", self.case)

    @property
    def run(self) -> Step:
        """The run step."""
        command = f"while [ -e {self.hold} ]; do sleep 0.05; done; cat {self.content} > dose.raw"
        return {"run": {"host": "here", "command": command, "outputs": ["dose.raw"]}}

    @property
    def download(self) -> Step:
        """The download step."""
        return {"download": {"host": "here", "to": str(self.base / "results" / "{case_key}")}}

    def archive(self, **options: Any) -> Step:
        """The archive step."""
        return {"archive": {"to": str(self.base / "archives"), **options}}

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "mqi_cli", *words],
            cwd=self.base,
            env={"PATH": os.environ["PATH"], "HOME": str(self.base), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def mqi(self, *words: str, code: int = 0) -> str:
        """Call mqi; return what it printed."""
        begun = self.popen(*words)
        said, _ = begun.communicate(timeout=60)
        assert begun.returncode == code, said
        return said

    def steps(self, *words: str) -> None:
        """Do steps by hand."""
        commands = {
            "upload": ("transfer", "upload"),
            "run": ("exec", "run"),
            "download": ("transfer", "download"),
            "archive": ("archive", "run"),
        }
        for word in words:
            self.mqi(*commands[word], self.case)

    @property
    def doses(self) -> dict[str, str]:
        """Every dose on the host, by its attempt."""
        return {each.parent.name: each.read_text() for each in (self.base / "far").rglob("dose.raw")}

    @property
    def fetched(self) -> list[str]:
        """Every dose that was fetched."""
        return [each.read_text() for each in (self.base / "results").rglob("dose.raw")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_results_that_nobody_fetched_stay_though_the_case_is_done_and_archived(desk: Desk) -> None:
    desk.begin(desk.run, desk.archive(clear_host=False))
    desk.steps("upload", "run", "archive")

    planned = desk.mqi("host", "clean", "here", "--dry-run")

    assert "done, but results of step run were never fetched" in planned
    assert "There is nothing to remove on here" in desk.mqi("host", "clean", "here", "--yes")
    assert desk.doses == {"1": "first"}


def test_what_was_fetched_and_archived_goes(desk: Desk) -> None:
    desk.begin(desk.run, desk.download, desk.archive(clear_host=False))
    desk.steps("upload", "run", "download", "archive")
    assert "done and archived" in desk.mqi("host", "clean", "here", "--yes")
    assert (desk.doses, desk.fetched) == ({}, ["first"])


@pytest.mark.parametrize("clear_host", [False, True])
def test_no_directory_is_removed_under_a_run_that_was_begun_by_hand(desk: Desk, clear_host: bool) -> None:
    desk.begin(desk.run, desk.download, desk.archive(clear_host=clear_host))
    desk.steps("upload", "run", "download")
    desk.steps(*[] if clear_host else ["archive"])
    desk.hold.touch()
    desk.content.write_text("second")
    run = desk.popen("exec", "run", desk.case)
    try:
        eventually(lambda: any((desk.base / "far").glob("*/work/run/_/2")))
        if clear_host:
            assert "run of this case goes on" in desk.mqi("archive", "run", desk.case, code=2)
        else:
            assert "goes on, or may" in desk.mqi("host", "clean", "here", "--yes")
    finally:
        desk.hold.unlink()
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert desk.doses == {"1": "first", "2": "second"}


def test_an_attempt_after_the_download_is_fetched_before_its_host_is_cleared(desk: Desk) -> None:
    desk.begin(desk.run, desk.download, desk.archive())
    desk.steps("upload", "run", "download")
    desk.content.write_text("second")
    desk.steps("run")

    refused = desk.mqi("archive", "run", desk.case, code=1)

    assert "step run has newer results than those that step download fetched" in refused
    assert "mqi transfer download" in refused
    assert desk.doses == {"1": "first", "2": "second"}
    desk.steps("download", "archive")
    assert (desk.doses, desk.fetched) == ({}, ["second"])


def test_a_run_is_not_cleared_away_before_the_one_that_is_fetched_has_worked_on_it(desk: Desk) -> None:
    dose = {"run": {"host": "here", "command": "cat {step.first}/dose.raw > out", "outputs": ["out"], "name": "second"}}
    desk.begin({"run": {**desk.run["run"], "name": "first"}}, dose, desk.download, desk.archive())
    desk.steps("upload", "run", "run", "download")
    desk.content.write_text("second")
    desk.mqi("exec", "run", desk.case, "--step", "first")
    assert "than those that step download fetched" in desk.mqi("archive", "run", desk.case, code=1)
    desk.steps("download")

    refused = desk.mqi("archive", "run", desk.case, code=1)

    assert "step first has newer results than those that step second worked on" in refused
    assert "do step second again: mqi exec run" in refused
    assert desk.doses == {"1": "first", "2": "second"}
    desk.mqi("exec", "run", desk.case, "--step", "second")
    desk.steps("download", "archive")
    assert desk.doses == {}
    assert [each.read_text() for each in (desk.base / "results").rglob("out")] == ["second"]


def test_a_run_after_the_case_was_cleared_keeps_its_results_until_they_are_fetched_and_archived(desk: Desk) -> None:
    desk.begin(desk.run, desk.download, desk.archive())
    desk.steps("upload", "run", "download", "archive")
    assert desk.doses == {}
    desk.content.write_text("second")
    desk.steps("upload", "run")

    assert "newer results" in desk.mqi("host", "clean", "here", "--yes")
    desk.steps("download")
    assert "mqi archive run" in desk.mqi("host", "clean", "here", "--yes")
    assert desk.doses == {"2": "second"}
    desk.steps("archive")
    assert (desk.doses, desk.fetched) == ({}, ["second"])


def test_a_case_whose_run_is_there_for_its_effect_alone_goes_once_it_says_so(desk: Desk) -> None:
    run = {"run": {"host": "here", "command": "true", "outputs": []}}
    desk.begin(run, desk.archive(clear_host=False))
    desk.steps("upload", "run", "archive")
    assert "done and archived" in desk.mqi("host", "clean", "here", "--yes")
    assert not list((desk.base / "far").glob("c*"))
