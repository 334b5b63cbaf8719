"""The scanner and the core's real intake over a real state database: what is seen becomes cases and revisions."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import CaseState, CaseView, Done, KnownCase, PatrolContext, Stage, Step, StepOptions, Workflow
from mqi_cli.acts import Acts
from mqi_cli.conductor import Conductor
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import CompleteWhen, SourceSection
from mqi_cli.intake import Intake
from mqi_cli.store import open_store
from mqi_cli.testing import FakeClock
from mqi_scanner.config import ScannerSection
from mqi_scanner.scan import Scan


def never(case: Any, ctx: Any) -> Done:
    raise AssertionError("no stage is run here")


class Core:
    """A `PatrolContext` over the core's own intake."""

    def __init__(self, base: Path, clock: FakeClock) -> None:
        self.incoming = base / "in"
        self.incoming.mkdir()
        workflow = Workflow("qa", (Step("upload", Stage("upload", never, "sftp"), StepOptions()),))
        source = SourceSection(
            path=self.incoming,
            name="in",
            workflow="qa",
            complete_when=CompleteWhen.model_validate({"quiet_for": "30s"}),
        )
        self._config = Config(None, base / "state" / "state.db", sources=(source,), workflows={"qa": workflow})
        self.store = open_store(self._config.state_path)
        self.conductor = Conductor(self.store, self._config, clock=clock)
        self.intake = Intake(self.conductor)
        self.clock = clock
        self.config = ScannerSection()
        self.sources = self._config.source_views()
        self.hosts: tuple[str, ...] = ()
        self.data_dir = base / "data"
        self.log = logging.LoggerAdapter(logging.getLogger("test"), {})
        self.scan = Scan()

    def known(self, source: str, names: Iterable[str]) -> Mapping[str, KnownCase]:
        return self.intake.known(source, names)

    def settling(self, source: str) -> Sequence[str]:
        return self.store.cases.settling(source)

    def report(self, finding: Any) -> None:
        self.intake.take(finding)

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        return self.intake.views(*states)

    def host(self, name: str) -> Any:
        raise AssertionError("the scanner uses no host")

    def backup_state(self, directory: Path, *, keep: int) -> Path:
        raise AssertionError("the scanner makes no backup")

    def stopping(self) -> bool:
        return False

    def look(self, *, after: float = 0.0) -> None:
        """Let time pass and go one round."""
        self.clock.turn(after)
        context: PatrolContext = self
        self.scan(context)

    def restart(self) -> None:
        """Begin a new process."""
        self.scan = Scan()

    def write(self, path: str, content: str = "content") -> Path:
        """Write a file below the source."""
        file = self.incoming / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def cases_of(self, name: str) -> list[tuple[int, CaseState]]:
        """Return revision and state of every revision of a name."""
        return [(each.revision, each.state) for each in self.cases() if each.name == name]

    def reason(self, name: str) -> str:
        """Return what the state database says of why the newest revision waits."""
        row = self.store.cases.newest("in", name)
        assert row is not None
        return str(row.reason)


@pytest.fixture
def core(tmp_path: Path, fake_clock: FakeClock) -> Iterator[Core]:
    core = Core(tmp_path, fake_clock)
    yield core
    core.store.close()


def test_a_quiet_case_is_taken_once_and_begins_its_workflow(core: Core) -> None:
    core.write("c1/a")
    core.look()
    assert core.cases_of("c1") == [(1, CaseState.SETTLING)]
    assert core.reason("c1") == "quiet for 0 of 30 s"
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]
    for _ in range(3):
        core.look(after=5000)
        core.restart()
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_slow_copy_is_never_taken_early_over_restarts_and_clock_jumps(core: Core) -> None:
    for step in range(20):
        core.write("c1/field/a", "x" * step)
        core.look(after=20)
        core.clock.jump(7200 if step % 2 else -7200)
        core.restart()
        assert core.cases_of("c1") == [(1, CaseState.SETTLING)]
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_after_a_reboot_the_quiet_time_begins_anew(core: Core) -> None:
    core.write("c1/a")
    core.look()
    core.look(after=25)
    core.clock.reboot()
    core.restart()
    core.look(after=25)
    assert core.cases_of("c1") == [(1, CaseState.SETTLING)]
    core.look(after=25)
    assert core.cases_of("c1") == [(1, CaseState.SETTLING)]
    core.look(after=5)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_equal_content_written_again_is_no_second_case(core: Core) -> None:
    core.write("c1/a")
    core.look()
    core.look(after=30)
    (core.incoming / "c1/a").unlink()
    core.write("c1/a")
    for _ in range(4):
        core.look(after=20)
    core.restart()
    core.look(after=20)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_other_content_becomes_the_next_revision_once_it_is_quiet(core: Core) -> None:
    core.write("c1/a")
    core.look()
    core.look(after=30)
    core.write("c1/late")
    core.look(after=10)
    core.restart()
    core.look(after=20)
    assert [revision for revision, _ in core.cases_of("c1")] == [1]
    core.look(after=10)
    assert [revision for revision, _ in core.cases_of("c1")] == [1, 2]
    for _ in range(3):
        core.look(after=5000)
    assert len(core.cases_of("c1")) == 2


def test_a_case_that_vanished_and_comes_again_settles_again(core: Core) -> None:
    core.write("c1/a")
    core.look()
    (core.incoming / "c1/a").unlink()
    (core.incoming / "c1").rmdir()
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.CANCELLED)]
    core.write("c1/a")
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.SETTLING)]
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_case_that_is_moved_away_and_back_settles_again(core: Core) -> None:
    core.write("c1/a")
    core.look()
    away = (core.incoming / "c1").rename(core.incoming.with_name("c1-away"))
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.CANCELLED)]
    away.rename(core.incoming / "c1")
    core.look(after=30)
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_settling_case_that_the_operator_cancels_stays_cancelled_until_it_changes(core: Core) -> None:
    core.write("c1/a")
    core.look()
    acts = Acts(core.conductor, actor="somebody")
    row = core.store.cases.newest("in", "c1")
    assert row is not None
    acts.cancel(row.id)
    for _ in range(3):
        core.look(after=5000)
        core.restart()
    assert core.cases_of("c1") == [(1, CaseState.CANCELLED)]
    core.write("c1/more")
    core.look(after=10)
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_disk_that_fails_for_a_while_changes_nothing_about_accepted_cases(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.write("c1/a")
    core.look()
    core.look(after=30)

    def stale(*args: Any) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("mqi_scanner.scan.look_at", stale)
        patch.setattr("mqi_scanner.scan.directories_unchanged", stale)
        core.look(after=10)
        assert [each.note for each in core.scan.round.open.values()] == ["can't be looked at: Stale file handle"]
    core.look(after=5000)
    monkeypatch.setattr("mqi_scanner.scan.look_at", stale)  # at rest again: a glance is enough
    core.look(after=10)
    assert core.scan.round.unchanged == 1
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_change_that_is_taken_back_leaves_the_case_at_rest(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    file = core.write("c1/a")
    core.look()
    core.look(after=30)
    before = core.incoming.joinpath("c1").stat(), file.stat()
    away = file.rename(core.incoming.with_name("a"))
    core.look(after=10)
    away.rename(file)
    os.utime(core.incoming / "c1", ns=(before[0].st_atime_ns, before[0].st_mtime_ns))
    core.restart()
    core.look(after=10)
    monkeypatch.setattr("mqi_scanner.scan.look_at", lambda directory: pytest.fail("it was looked at file by file"))
    core.look(after=10)
    assert core.scan.round.unchanged == 1


def test_a_problem_is_the_cases_reason_until_it_is_mended(core: Core) -> None:
    core.write("c1/a")
    (core.incoming / "c1/link").symlink_to("a")
    core.look()
    assert core.reason("c1") == "it holds 1 symbolic link"
    core.look(after=60)
    assert core.reason("c1") == "it holds 1 symbolic link"
    (core.incoming / "c1/link").unlink()
    core.look(after=10)
    core.look(after=30)
    assert core.cases_of("c1") == [(1, CaseState.RUNNING)]


def test_a_source_that_is_away_raises_one_alert_and_clears_it(core: Core) -> None:
    away = core.incoming.rename(core.incoming.with_name("away"))
    core.look()
    core.look(after=10)
    alerts = [each.kind for each in core.store.events.latest(limit=20)]
    assert alerts == ["alert"]
    away.rename(core.incoming)
    core.look(after=10)
    core.look(after=10)
    assert [each.kind for each in core.store.events.latest(limit=20)] == ["alert", "all-clear"]
