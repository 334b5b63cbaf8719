"""The stage `report`, run on directories of the test's own. `stage_kit` comes from mqi's pytest kit."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from mqi_result_report.checks import fixed_part
from mqi_result_report.options import ReportOptions, ReportSection, check_report
from mqi_result_report.stage import STAGE

from mqi_cli import Done, GiveUp, RetryLater, Wait

SECTION = ReportSection(site="Site <A>")


@pytest.fixture
def results(tmp_path):
    """A directory with two results."""
    directory = tmp_path / "results" / "plan-1"
    (directory / "dose").mkdir(parents=True)
    (directory / "dose" / "dose.raw").write_bytes(b"dose" * 100)
    (directory / "<b>&.csv").write_text("1,2\n")
    return directory


def options(tmp_path, **more):
    return {"to": tmp_path / "pages" / "{case_name}.html", "results": tmp_path / "results" / "{case_name}", **more}


def test_the_page_names_every_result_with_its_hash(stage_kit, tmp_path, results):
    end, ctx = stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))

    text = (tmp_path / "pages" / "plan-1.html").read_text()
    assert hashlib.sha256(b"dose" * 100).hexdigest() in text
    assert "&lt;b&gt;&amp;.csv" in text
    assert "Site &lt;A&gt;" in text
    assert isinstance(end, Done)
    assert (end.facts["files"], end.facts["bytes"]) == (2, 404)
    assert ctx.told[-1] == (404, 404, "B")


def test_nothing_that_leaves_the_machine_names_the_case(stage_kit, tmp_path, results):
    end, _ = stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))
    assert "plan-1" not in str(end.facts)
    assert "dose" not in str(end.facts)


def test_a_second_call_changes_nothing_and_leaves_no_temporary_file(stage_kit, tmp_path, results):
    case = stage_kit.case("plan-1")
    ledger = tmp_path / "pages" / "ledger.csv"
    ends = [stage_kit.run(STAGE, case, config=SECTION, **options(tmp_path, ledger=ledger))[0] for _ in range(2)]

    assert ends[0] == ends[1]
    assert [row[1] for row in csv.reader(ledger.open())] == ["name", "plan-1"]
    assert sorted(path.name for path in ledger.parent.iterdir()) == [".ledger.csv.lock", "ledger.csv", "plan-1.html"]


def test_the_ledger_keeps_a_line_for_each_case(stage_kit, tmp_path, results):
    ledger = tmp_path / "ledger.csv"
    (tmp_path / "results" / "plan-2").mkdir()
    (tmp_path / "results" / "plan-2" / "dose.raw").write_bytes(b"d")
    for name in ("plan-1", "plan-2", "plan-1"):
        stage_kit.run(STAGE, stage_kit.case(name), config=SECTION, **options(tmp_path, ledger=ledger))
    assert [row[1] for row in csv.reader(ledger.open())] == ["name", "plan-1", "plan-2"]


def test_results_that_are_not_there_hold_the_case(stage_kit, tmp_path):
    with pytest.raises(GiveUp, match="not there"):
        stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))
    (tmp_path / "results" / "plan-1").mkdir(parents=True)
    with pytest.raises(GiveUp, match="not a single result"):
        stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))
    assert not (tmp_path / "pages").exists()


def test_a_link_among_the_results_holds_the_case(stage_kit, tmp_path, results):
    (results / "link").symlink_to("/etc/passwd")
    with pytest.raises(GiveUp):
        stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))


def test_a_place_that_can_not_be_written_is_tried_again_later(stage_kit, tmp_path, results):
    (tmp_path / "pages").write_text("in the way")
    with pytest.raises(RetryLater):
        stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))


def test_a_worker_that_is_asked_to_end_gives_the_step_back(stage_kit, tmp_path, results, monkeypatch):
    monkeypatch.setattr("mqi_cli.testing.KitContext.stopping", lambda self: True)
    end, _ = stage_kit.run(STAGE, stage_kit.case("plan-1"), config=SECTION, **options(tmp_path))
    assert isinstance(end, Wait)
    assert not (tmp_path / "pages" / "plan-1.html").exists()


def test_a_report_must_keep_cases_apart_and_know_where_the_results_are(stage_kit):
    from mqi_cli import Step

    def problems(**options):
        return check_report([Step("report", STAGE, ReportOptions(**options))], 0, {})

    assert problems(to="/r/{case_name}.html", results="/d/{case_name}") == []
    assert any("replaces" in each for each in problems(to="/r/page.html", results="/d"))
    assert any("name the directory" in each for each in problems(to="/r/{case_key}.html"))
    assert any("{patient}" in each for each in problems(to="/r/{case_key}.html", results="/d/{patient}"))
    assert any("ledger" in each for each in problems(to="/r/{case_key}.html", results="/d", ledger="/r/{case_key}"))


def test_the_check_looks_at_what_all_pages_have_in_common():
    assert fixed_part(Path("/data/reports/{case_name}/page.html")) == Path("/data/reports")
