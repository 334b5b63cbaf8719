"""What happens to archives later: list, prove, remove by age; and the copies of the state database."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from archiver.filing import KEY, Filing, content, stamps
from mqi_archiver import plugin
from mqi_archiver.backup import patrol_backup
from mqi_archiver.byhand import state_of
from mqi_archiver.checks import checks
from mqi_archiver.config import ArchiverSection, BackupSection
from mqi_archiver.index import Archived, Index
from mqi_archiver.retention import patrol_retention, prune, too_old
from mqi_cli import Alert, CaseState, CaseView, Clock, SourceView, UsageError, Verdict
from mqi_cli.config.model import CompleteWhen
from mqi_cli.errors import StateError

DAY = 86400.0


@pytest.fixture
def filed(filing: Filing) -> Filing:
    """A case that is archived."""
    filing.done()
    return filing


def only(filed: Filing) -> Archived:
    (archived,) = Index(filed.ctx.data_dir).each()
    return archived


# --- listing


def test_the_index_knows_who_when_and_where(filed: Filing) -> None:
    archived = only(filed)
    assert (archived.key, archived.name, archived.revision) == (KEY, "patient-7/study", 1)
    assert archived.path == str(filed.archive)
    assert abs(archived.archived_at - Clock().now()) < 60
    records = list((filed.ctx.data_dir / "archives").glob("*.json"))
    assert [path.stat().st_mode & 0o077 for path in records] == [0]


@pytest.mark.parametrize("text", [KEY, KEY[:4], "patient-7/study", "patient"])
def test_an_archive_is_found_by_key_name_or_a_beginning(filed: Filing, text: str) -> None:
    assert Index(filed.ctx.data_dir).find(text) == only(filed)


def test_a_beginning_that_means_several_cases_lists_them(filed: Filing) -> None:
    index = Index(filed.ctx.data_dir)
    index.put(replace(only(filed), key="cabcdefghi2", name="patient-8/study", path="/elsewhere"))
    with pytest.raises(UsageError, match="means 2 cases") as raised:
        index.find("patient")
    assert KEY in str(raised.value)
    with pytest.raises(UsageError, match="no archive"):
        index.find("nobody")


def test_a_damaged_record_hides_no_other(filed: Filing) -> None:
    index = Index(filed.ctx.data_dir)
    index.put(replace(only(filed), key="cabcdefghi2", name="other", path="/elsewhere"))
    (filed.ctx.data_dir / "archives" / "cabcdefghi2.json").write_text('[{"key": 1')
    assert only(filed).key == KEY
    assert index.damaged() == 1


def test_verify_tells_the_proven_the_damaged_and_the_missing_apart(filed: Filing) -> None:
    archived = only(filed)
    assert state_of(archived, verify=False) == "there"
    assert state_of(archived, verify=True) == "proven"
    data = bytearray(filed.archive.read_bytes())
    data[len(data) // 2] ^= 1
    filed.archive.write_bytes(data)
    assert state_of(archived, verify=False) == "there"
    assert state_of(archived, verify=True).startswith("damaged")
    filed.archive.write_bytes(data[:-1])
    assert state_of(archived, verify=False).startswith("damaged")
    filed.archive.unlink()
    assert state_of(archived, verify=True) == "missing"


# --- removing by age


def test_only_archives_that_are_old_enough_are_removed(filed: Filing) -> None:
    index, now = Index(filed.ctx.data_dir), only(filed).archived_at
    assert too_old(index, older_than=180 * DAY, now=now + 179 * DAY) == []
    old = too_old(index, older_than=180 * DAY, now=now + 181 * DAY)
    before = stamps(filed.source), stamps(filed.results)
    (pruned,) = prune(index, old, now=now + 181 * DAY)
    assert pruned.outcome == "removed"
    assert not filed.archive.exists()
    assert not filed.archive.parent.exists()  # a directory that is named after a patient goes with its last archive
    assert filed.archives.exists()
    assert (stamps(filed.source), stamps(filed.results)) == before
    assert state_of(only(filed), verify=False) == "removed by age"
    assert too_old(index, older_than=180 * DAY, now=now + 999 * DAY) == []


def test_a_dry_run_removes_nothing(filed: Filing) -> None:
    index = Index(filed.ctx.data_dir)
    (pruned,) = prune(index, [only(filed)], now=0, dry_run=True)
    assert pruned.outcome == "would be removed"
    assert filed.archive.exists()
    assert only(filed).pruned_at is None


def swap_for_link(path: Path) -> None:
    path.rename(path.with_name("precious"))
    path.symlink_to("precious")


def swap_for_directory(path: Path) -> None:
    path.unlink()
    (path / "precious").mkdir(parents=True)


def swap_for_another(path: Path) -> None:
    path.write_bytes(b"precious")


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_directory, swap_for_another])
def test_what_is_not_the_recorded_file_is_left_and_named(filed: Filing, swap: Any) -> None:
    swap(filed.archive)
    before = content(filed.archives)
    (pruned,) = prune(Index(filed.ctx.data_dir), [only(filed)], now=0)
    assert pruned.is_problem
    assert content(filed.archives) == before
    assert only(filed).pruned_at is None


def test_with_the_disk_unmounted_no_archive_is_taken_for_gone(filed: Filing) -> None:
    filed.archives.rename(filed.archives.with_name("disk"))
    (pruned,) = prune(Index(filed.ctx.data_dir), [only(filed)], now=0)
    assert pruned.is_problem
    assert only(filed).pruned_at is None


def test_a_case_that_was_pruned_and_is_archived_again_is_packed_anew(filed: Filing) -> None:
    list(prune(Index(filed.ctx.data_dir), [only(filed)], now=0))
    filed.done()
    assert filed.archive.exists()
    assert only(filed).pruned_at is None


# --- the patrols


class TurnedClock(Clock):
    """Stands still until a test turns it."""

    def __init__(self) -> None:
        self.at = Clock().now()

    def now(self) -> float:
        return self.at


@dataclass
class Round:
    """A `PatrolContext` whose backup is a named file, or the failure that a test gave it."""

    config: ArchiverSection
    data_dir: Path
    clock: TurnedClock = field(default_factory=TurnedClock)
    sources: tuple[SourceView, ...] = ()
    hosts: tuple[str, ...] = ()
    seen: list[Any] = field(default_factory=list)
    backups: list[tuple[Path, int]] = field(default_factory=list)
    failure: Exception | None = None
    log: Any = field(default_factory=lambda: logging.LoggerAdapter(logging.getLogger("test"), {}))

    def host(self, name: str) -> Any:
        raise AssertionError("no host is needed")

    def known(self, source: str, names: Iterable[str]) -> dict[str, Any]:
        return {}

    def settling(self, source: str) -> tuple[str, ...]:
        return ()

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        return iter(())

    def report(self, finding: Any) -> None:
        self.seen.append(finding)

    def backup_state(self, directory: Path, *, keep: int) -> Path:
        if self.failure:
            raise self.failure
        self.backups.append((directory, keep))
        return directory / "copy"

    def stopping(self) -> bool:
        return False


def test_the_retention_patrol_removes_what_is_old_and_raises_an_alert_for_what_it_cannot(filed: Filing) -> None:
    ctx = Round(ArchiverSection(retention=180 * DAY), filed.ctx.data_dir)
    patrol_retention(ctx)
    assert filed.archive.exists()
    ctx.clock.at += 181 * DAY
    swap_for_another(filed.archive)
    patrol_retention(ctx)
    assert [(each.topic, each.active) for each in ctx.seen] == [
        ("archive-retention", False),
        ("archive-retention", True),
    ]
    assert "patient" not in ctx.seen[-1].text
    filed.archive.unlink()
    patrol_retention(ctx)
    assert not ctx.seen[-1].active
    assert only(filed).pruned_at == ctx.clock.at


def test_without_a_retention_nothing_is_ever_removed(filed: Filing) -> None:
    ctx = Round(ArchiverSection(), filed.ctx.data_dir)
    ctx.clock.at += 99999 * DAY
    patrol_retention(ctx)
    assert filed.archive.exists()


def test_a_backup_is_made_when_it_is_due_and_not_at_each_start(tmp_path: Path) -> None:
    plan = BackupSection(directory=tmp_path / "copies", every=DAY, keep=3)
    ctx = Round(ArchiverSection(backup=plan), tmp_path / "data")
    patrol_backup(ctx)
    assert ctx.backups == [(tmp_path / "copies", 3)]
    ctx.clock.at += DAY - 1
    patrol_backup(Round(ctx.config, ctx.data_dir, clock=ctx.clock, backups=ctx.backups))  # another process
    assert len(ctx.backups) == 1
    ctx.clock.at += 1
    patrol_backup(ctx)
    assert len(ctx.backups) == 2
    ctx.clock.at -= 30 * DAY  # a clock that was ahead is set right
    patrol_backup(ctx)
    assert len(ctx.backups) == 3


def test_a_backup_that_fails_raises_an_alert_and_is_tried_at_the_next_round(tmp_path: Path) -> None:
    plan = BackupSection(directory=tmp_path / "copies")
    ctx = Round(ArchiverSection(backup=plan), tmp_path / "data", failure=StateError("No space left on device"))
    patrol_backup(ctx)
    (alert,) = ctx.seen
    assert isinstance(alert, Alert)
    assert alert.active
    assert "No space left" in alert.text
    ctx.failure = None
    patrol_backup(ctx)
    assert not ctx.seen[-1].active
    assert len(ctx.backups) == 1


def test_the_patrols_are_off_unless_they_are_configured(tmp_path: Path) -> None:
    retention, backup = plugin.mqi_patrols()
    assert (retention.name, backup.name) == ("retention", "state-backup")
    nothing = ArchiverSection()
    assert (retention.interval(nothing), backup.interval(nothing)) == (0, 0)
    both = ArchiverSection(retention=DAY, backup=BackupSection(directory=tmp_path, every=600.0))
    assert (retention.interval(both), backup.interval(both)) == (3600, 600)


def test_the_section_is_written_as_the_config_writes_it() -> None:
    section = ArchiverSection.model_validate(
        {"retention": "180d", "backup": {"directory": "/copies", "every": "12h", "keep": 7}}
    )
    assert (section.retention, section.backup and section.backup.every) == (180 * DAY, DAY / 2)
    with pytest.raises(ValueError, match="retention_days"):
        ArchiverSection.model_validate({"retention_days": 180})
    assert json.loads(section.model_dump_json())["retention"] == "180d"


# --- doctor


@dataclass
class Doctor:
    """A `CheckContext`."""

    config: ArchiverSection
    workflows: dict[str, Any]
    sources: tuple[SourceView, ...] = ()
    hosts: tuple[str, ...] = ()

    def host(self, name: str) -> Any:
        raise AssertionError("no host is needed")

    def host_config(self, name: str) -> Any:
        raise AssertionError("no host is needed")


def test_doctor_looks_at_every_directory_that_archives_and_copies_go_to(filing: Filing, tmp_path: Path) -> None:
    section = ArchiverSection(backup=BackupSection(directory=tmp_path / "copies"))
    found = checks(Doctor(section, {"qa": filing.workflow()}))
    assert [(each.name, each.verdict) for each in found] == [("archives", Verdict.OK), ("backup", Verdict.OK)]
    assert "made when it is first used" in found[0].text


def test_doctor_names_a_place_that_is_missing_a_file_or_inside_a_source(filing: Filing) -> None:
    filing.options["to"] = None
    assert checks(Doctor(ArchiverSection(), {"qa": filing.workflow()}))[0].verdict is Verdict.FAIL
    filing.options["to"] = filing.input / "RP.dcm"
    assert checks(Doctor(ArchiverSection(), {"qa": filing.workflow()}))[0].verdict is Verdict.FAIL
    filing.options["to"] = filing.source / "archives"
    source = SourceView("incoming", filing.source, 1, CompleteWhen(quiet_for=30.0), "qa")
    found = checks(Doctor(ArchiverSection(), {"qa": filing.workflow()}, sources=(source,)))
    assert any("inside source incoming" in each.text for each in found)


def test_doctor_names_a_place_where_mqi_may_not_write(filing: Filing, monkeypatch: Any) -> None:
    real = os.access

    def read_only(path: Any, mode: int) -> bool:
        return not (Path(path).is_relative_to(filing.base) and mode & os.W_OK) and real(path, mode)

    monkeypatch.setattr("mqi_archiver.checks.os.access", read_only)
    (check, _) = checks(Doctor(ArchiverSection(), {"qa": filing.workflow()}))
    assert check.verdict is Verdict.FAIL
    assert check.mend


def test_doctor_names_a_disk_that_is_nearly_full(filing: Filing, monkeypatch: Any) -> None:
    class Usage:
        total, free = 10**12, 10**9

    monkeypatch.setattr("mqi_archiver.checks.shutil.disk_usage", lambda path: Usage)
    assert checks(Doctor(ArchiverSection(), {"qa": filing.workflow()}))[0].verdict is Verdict.WARN
