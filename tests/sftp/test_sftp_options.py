"""Options are checked when the config is read, and what a transfer needs is looked at by `mqi doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from mqi_cli import Host, HostUnreachable, SourceView, Step, Workflow
from mqi_cli import Verdict as Level
from mqi_sftp.checks import check_destination, check_host, checks
from mqi_sftp.options import DownloadOptions, SftpSection, UploadOptions, check_download
from sftp.bench import DOWNLOAD, RUN, UPLOAD, RunOptions


def download(**options: Any) -> Step:
    given = {"host": "far", "to": "/data/{case_name}"} | options
    return Step("download", DOWNLOAD, DownloadOptions.model_validate(given))


BEFORE = (Step("upload", UPLOAD, UploadOptions(host="far")), Step("simulate", RUN, RunOptions()))


def problems(step: Step, before: tuple[Step, ...] = BEFORE) -> list[str]:
    return check_download([*before, step], len(before), {})


@pytest.mark.parametrize("origin", ["/etc", "../up", "a/../../b", "a\nb"])
def test_from_stays_inside_the_work_directory(origin: str) -> None:
    with pytest.raises(ValidationError, match="relative to the run's work directory"):
        download(**{"from": origin})


@pytest.mark.parametrize(("origin", "meant"), [("", ""), (".", ""), ("dose/", "dose"), ("a/./b", "a/b")])
def test_from_is_kept_in_its_plain_form(origin: str, meant: str) -> None:
    assert download(**{"from": origin}).options.origin == meant  # type: ignore[attr-defined]


def test_a_sound_download_has_no_problem() -> None:
    assert problems(download()) == []
    assert problems(download(step="simulate")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "/data/all"}, "{case_name} or {case_key}"),
        ({"to": "/data/{patient}"}, "{patient} is not one of"),
        ({"to": "/data/{case_name"}, "braces"),
        ({"step": "later"}, "no step before it is named later"),
        ({"host": "near"}, "step simulate runs on host far, but it fetches from near"),
    ],
)
def test_what_is_wrong_with_a_download_is_said_in_one_sentence(options: dict[str, str], said: str) -> None:
    (problem,) = problems(download(**options))

    assert said in problem


def test_a_download_without_a_run_before_it_has_nothing_to_fetch() -> None:
    (problem,) = problems(download(), BEFORE[:1])

    assert "no run step before it" in problem


def test_the_latest_run_step_is_meant() -> None:
    before = (*BEFORE, Step("second", RUN, RunOptions(host="near")))

    assert "step second runs on host near" in problems(download(), before)[0]


def test_a_third_partys_stage_with_outputs_counts_as_a_run() -> None:
    from mqi_cli import Stage

    foreign = Stage("simulate_elsewhere", RUN.run, "foreign", RunOptions)

    assert problems(download(), (Step("elsewhere", foreign, RunOptions()),)) == []


def test_unknown_options_and_endless_waits_are_refused() -> None:
    with pytest.raises(ValidationError):
        download(form="dose")
    with pytest.raises(ValidationError):
        SftpSection.model_validate({"verify_timeout": "2h"})


@pytest.mark.parametrize(("kind", "level"), [("local", Level.OK), ("ssh", Level.OK), ("sftp_only", Level.WARN)])
def test_doctor_says_how_a_host_proves_files(make_host: Callable[..., Host], kind: str, level: Level) -> None:
    host = make_host(kind)

    check = check_host(host, timeout=30)

    assert check.verdict is level
    assert ("reading it back" in check.text) == (level is Level.WARN)
    assert not [path for path in Path(host.base_dir).rglob("*") if path.is_file()], "the probe is gone"


def test_doctor_says_that_a_host_does_not_answer() -> None:
    def away() -> None:
        raise HostUnreachable("host far does not answer", host="far")

    check = check_host(SimpleNamespace(name="far", files=away), timeout=30)  # type: ignore[arg-type]

    assert check.verdict is Level.FAIL
    assert check.mend == "mqi host test far"


def test_doctor_looks_at_the_place_for_results(tmp_path: Path) -> None:
    source = SourceView("in", tmp_path / "in", 1, None, "qa")
    (tmp_path / "in").mkdir()

    assert check_destination(tmp_path / "{case_name}", []).verdict is Level.OK
    assert check_destination(tmp_path / "none" / "{case_name}", [source]).verdict is Level.WARN
    (tmp_path / "door").symlink_to(tmp_path / "in")
    assert check_destination(tmp_path / "door" / "{case_name}", [source]).verdict is Level.FAIL


def test_doctor_looks_only_at_what_transfers_use(tmp_path: Path, make_host: Callable[..., Host]) -> None:
    ctx = SimpleNamespace(
        config=SftpSection(),
        sources=[],
        hosts=["far", "unused"],
        workflows={"qa": Workflow("qa", (*BEFORE, download(to=str(tmp_path / "{case_key}"))))},
        host=lambda name: {"far": make_host("local")}[name],
    )

    assert [each.name for each in checks(ctx)] == ["host far: files", "place for results"]  # type: ignore[arg-type]
