"""Which directories on a host may go."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from mqi_cli import (
    CaseCleared,
    CaseRef,
    CaseState,
    CaseView,
    Done,
    Earlier,
    Finished,
    HostUnreachable,
    RemoteLayout,
    Stage,
    StageContext,
    Step,
    StepOptions,
    Workflow,
    key_of,
    seen_attempts,
)
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_cli.testing import FakeClock
from mqi_curator.cleaning import PATROL, Kept, Removable, clear_in_time, judge, remove, survey
from mqi_curator.config import CuratorSection
from mqi_curator.host_commands import clean_host

KEYS = ("caaaaaaaaaa", "cbbbbbbbbbb", "cccccccccc2", "cdddddddddd")


def _run(case: CaseRef, ctx: StageContext) -> Done:
    return Done()


class On(StepOptions):
    """Options of a step on a host."""

    host: str = "hpc"
    step: str = ""


class Running(On):
    """Options of a run."""

    outputs: tuple[str, ...] = ()


def step(name: str, stage: str = "", **options: Any) -> Step:
    stage = stage or name.removeprefix("my-")
    chosen = StepOptions() if stage == "archive" else Running(**options) if stage == "run" else On(**options)
    return Step(name, Stage(stage, _run, lane="x", job=stage == "run"), chosen)


def workflow(*stages: str) -> Workflow:
    return Workflow("qa", tuple(step(f"my-{name}") for name in stages))


FILED = {"qa": workflow("upload", "run", "download", "archive")}
NOT_FILED = {"qa": workflow("upload", "run")}


def case(key: str, state: CaseState, *, done: tuple[str, ...] = (), cleared: tuple[str, ...] = ()) -> CaseView:
    return CaseView(
        key=key, name="patient/plan", revision=1, source="in", workflow="qa", directory=Path("/in/patient/plan"),
        fingerprint="f" * 64, state=state, step="", created_at=0.0, ended_at=None, cleared=frozenset(cleared),
        facts={(step, ""): {} for step in done},
        finished=tuple(Finished(step, "", 1, {}, at, at + 1.0) for at, step in enumerate(done, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("state", [state for state in CaseState if state not in (CaseState.DONE, CaseState.CANCELLED)])
def test_a_case_that_has_not_ended_keeps_its_directory(state: CaseState) -> None:
    found = judge(KEYS[0], case(KEYS[0], state, done=("my-archive",), cleared=("hpc",)), "hpc", FILED)
    assert isinstance(found, Kept)
    assert str(state) in found.reason


def test_a_cancelled_case_needs_nothing_there_any_more() -> None:
    assert isinstance(judge(KEYS[0], case(KEYS[0], CaseState.CANCELLED), "hpc", NOT_FILED), Removable)


def test_a_case_that_is_done_goes_only_when_its_archive_step_is() -> None:
    done = case(KEYS[0], CaseState.DONE, done=("my-upload", "my-run"))
    assert isinstance(judge(KEYS[0], done, "hpc", NOT_FILED), Kept)
    assert isinstance(judge(KEYS[0], done, "hpc", {}), Kept), "its workflow is no longer in the config"
    archived = case(KEYS[0], CaseState.DONE, done=ARCHIVED)
    assert isinstance(judge(KEYS[0], archived, "hpc", FILED), Removable)


def test_what_came_back_after_it_was_cleared_goes_from_that_host_only() -> None:
    cleared = case(KEYS[0], CaseState.DONE, done=("my-upload",), cleared=("hpc",))
    assert isinstance(judge(KEYS[0], cleared, "hpc", NOT_FILED), Removable)
    assert isinstance(judge(KEYS[0], cleared, "other", NOT_FILED), Kept)


def test_a_case_that_the_state_database_does_not_know_stays() -> None:
    found = judge(KEYS[0], None, "hpc", FILED)
    assert isinstance(found, Kept)
    assert "another installation" in found.reason


ARCHIVED = ("my-upload", "my-run", "my-download", "my-archive")


def reason(found: Removable | Kept) -> str:
    assert isinstance(found, Kept)
    return found.reason


def done_by(flow: Workflow, host: str = "hpc", **attempts: Any) -> Removable | Kept:
    """Judge a case that is done; `attempts` are the newest ones of its steps, made in this order."""
    finished = tuple(
        Finished(name, "", number, facts, at, at + 1.0)
        for at, (name, (number, facts)) in enumerate(attempts.items(), 1)
    )
    return judge(KEYS[0], replace(case(KEYS[0], CaseState.DONE), finished=finished), host, {"qa": flow})


def test_results_that_were_never_fetched_keep_their_directory_though_the_case_is_archived() -> None:
    archived = case(KEYS[0], CaseState.DONE, done=("my-upload", "my-run", "my-archive"))
    flow = {"qa": workflow("upload", "run", "archive")}
    assert reason(judge(KEYS[0], archived, "hpc", flow)) == (
        "done, but results of step my-run were never fetched: add a download step for them, or give the step "
        "`outputs: []` if it leaves nothing to keep"
    )
    late = {"qa": workflow("upload", "archive", "run")}
    assert "never fetched" in reason(judge(KEYS[0], archived, "hpc", late))
    cleared = replace(archived, cleared=frozenset({"hpc"}))
    assert "never fetched" in reason(judge(KEYS[0], cleared, "hpc", flow)), "they came after it was cleared"
    assert "never fetched" in reason(judge(KEYS[0], archived, "other", flow)), (
        "it may be the same place by another name"
    )


def test_each_host_is_judged_by_what_was_computed_there() -> None:
    flow = Workflow(
        "qa",
        (*FILED["qa"].steps[:3], step("up", "upload", host="two"), step("far", "run", host="two"), step("my-archive")),
    )
    attempts = {name: (1, {}) for name in ("my-upload", "my-run", "my-download", "up", "far", "my-archive")}
    assert isinstance(done_by(flow, "hpc", **attempts), Removable)
    assert "results of step far were never fetched" in reason(done_by(flow, "two", **attempts))


def test_hosts_that_lead_to_one_directory_are_judged_as_one() -> None:
    flow = Workflow("qa", (step("my-upload", host="login"), step("my-run", host="queue"), step("my-archive")))
    archived = case(KEYS[0], CaseState.DONE, done=("my-upload", "my-run", "my-archive"))
    apart = {"login": "/scratch/mqi", "queue": "/work/mqi"}
    assert isinstance(judge(KEYS[0], archived, "login", {"qa": flow}, apart), Removable)
    found = judge(KEYS[0], archived, "login", {"qa": flow}, {"login": "/scratch/mqi", "queue": "/scratch/mqi"})
    assert "results of step my-run were never fetched" in reason(found)


def test_that_one_name_of_a_host_was_cleared_says_nothing_of_what_came_there_by_another() -> None:
    flow = Workflow(
        "qa",
        (
            step("my-upload", host="login"),
            step("my-run", host="queue"),
            step("my-download", host="queue"),
            step("my-archive"),
        ),
    )
    finished = (
        Finished("my-upload", "", 1, {}, 1.0, 2.0),
        Finished("my-archive", "", 1, {}, 3.0, 4.0),
        Finished("my-run", "", 2, {}, 5.0, 6.0),
        Finished("my-download", "", 2, {}, 7.0, 8.0),
    )
    again = replace(case(KEYS[0], CaseState.DONE, cleared=("login",)), finished=finished)
    one = {"login": "/scratch/mqi", "queue": "/scratch/mqi"}
    for host in one:
        assert "fetched results since it was archived" in reason(judge(KEYS[0], again, host, {"qa": flow}, one))


@pytest.mark.parametrize(
    ("one", "other", "may_be_one"),
    [
        ("/scratch/mqi", "/scratch/mqi/", True),
        ("/scratch//mqi", "/scratch/./x/../mqi", True),
        ("~/mqi", "/home/u/mqi", True),
        ("/home/u/mqi/", "~/mqi/", True),
        ("~", "/home/u", True),
        ("//scratch/mqi", "/scratch/mqi", True),
        ("~/mqi", "/scratch/other", False),
        ("~/mqi", "~/other", False),
        ("/scratch/mqi", "/scratch/mqi2", False),
    ],
)
def test_a_directory_may_be_written_in_several_ways(one: str, other: str, may_be_one: bool) -> None:
    flow = Workflow("qa", (step("my-upload", host="login"), step("my-run", host="queue"), step("my-archive")))
    archived = case(KEYS[0], CaseState.DONE, done=("my-upload", "my-run", "my-archive"))
    found = judge(KEYS[0], archived, "login", {"qa": flow}, {"login": one, "queue": other})
    assert isinstance(found, Kept) is may_be_one


def test_what_was_fetched_after_the_archive_step_keeps_its_directory() -> None:
    flow = workflow("upload", "run", "archive", "download")
    attempts: Any = {"my-upload": (1, {}), "my-run": (1, {}), "my-archive": (1, {}), "my-download": (1, {})}
    assert "it comes after step my-archive" in reason(done_by(flow, **attempts))


def test_what_a_later_run_has_made_its_own_of_need_not_be_fetched() -> None:
    steps = [
        step("my-upload"),
        step("interpret", "run"),
        step("simulate", "run"),
        step("my-download"),
        step("my-archive"),
    ]
    attempts = {each.name: (1, {}) for each in steps}
    assert isinstance(done_by(Workflow("qa", tuple(steps)), **attempts), Removable)
    steps[2] = step("simulate", "run", outputs=("dose.raw",))
    steps[3] = step("my-download", step="interpret")
    assert "results of step simulate were never" in reason(done_by(Workflow("qa", tuple(steps)), **attempts))


def test_what_no_later_run_has_made_its_own_of_keeps_its_directory() -> None:
    steps = (step("interpret", "run"), step("simulate", "run"), step("my-download"), step("my-archive"))
    attempts: Any = {"simulate": (1, {}), "interpret": (2, {}), "my-download": (2, {}), "my-archive": (2, {})}
    said = reason(done_by(Workflow("qa", steps), **attempts))
    assert "step interpret has newer results than those that step simulate worked on: do step simulate again" in said
    attempts = {"interpret": (2, {}), "simulate": (2, {}), "my-download": (2, {}), "my-archive": (2, {})}
    assert isinstance(done_by(Workflow("qa", steps), **attempts), Removable)


def test_a_run_that_is_there_for_its_effect_alone_keeps_no_directory() -> None:
    attempts = {name: (1, {}) for name in (*ARCHIVED[:3], "publish", "my-archive")}

    def judged(host: str, **options: Any) -> Removable | Kept:
        steps = (*FILED["qa"].steps[:3], step("publish", "run", host=host, **options), step("my-archive"))
        return done_by(Workflow("qa", steps), host, **attempts)

    assert isinstance(judged("hpc"), Removable), "what is worth keeping is fetched from there"
    assert "publish were never fetched" in reason(judged("hpc", outputs=("report",)))
    assert "publish were never fetched" in reason(judged("two")), "nothing is fetched from there"
    assert isinstance(judged("two", outputs=()), Removable), "it says that it leaves nothing"


def test_results_that_are_newer_than_the_download_keep_their_directory_until_they_are_fetched_and_archived() -> None:
    first = {"my-upload": (1, {}), "my-run": (1, {}), "my-download": (1, {}), "my-archive": (1, {})}
    assert isinstance(done_by(FILED["qa"], **first), Removable)
    run_again = {"my-upload": (1, {}), "my-download": (1, {}), "my-archive": (1, {}), "my-run": (2, {})}
    said = reason(done_by(FILED["qa"], **run_again))
    assert "step my-run has newer results than those that step my-download fetched" in said
    assert f"mqi transfer download {KEYS[0]} --step my-download" in said
    fetched = {"my-upload": (1, {}), "my-archive": (1, {}), "my-run": (2, {}), "my-download": (2, {})}
    assert f"mqi archive run {KEYS[0]} --step my-archive" in reason(done_by(FILED["qa"], **fetched))
    archived = {"my-upload": (1, {}), "my-run": (2, {}), "my-download": (2, {}), "my-archive": (2, {})}
    assert isinstance(done_by(FILED["qa"], **archived), Removable)


def test_each_download_of_a_step_has_to_fetch_its_newest_results() -> None:
    """Each may fetch another part of them."""
    two = Workflow("qa", (step("my-run"), step("dose", "download"), step("csv", "download"), step("my-archive")))
    attempts: Any = {"csv": (1, {}), "my-run": (2, {}), "dose": (2, {}), "my-archive": (2, {})}
    said = reason(done_by(two, **attempts))
    assert "step my-run has newer results than those that step csv fetched" in said
    assert f"mqi transfer download {KEYS[0]} --step csv" in said
    del attempts["csv"]
    assert f"step csv has not fetched the results of step my-run: mqi transfer download {KEYS[0]} --step csv" in reason(
        done_by(two, **attempts)
    )
    attempts = {"my-run": (2, {}), "dose": (2, {}), "csv": (2, {}), "my-archive": (2, {})}
    assert isinstance(done_by(two, **attempts), Removable)


def test_what_a_step_noted_of_attempts_counts_more_than_the_times() -> None:
    def seen(step: str, attempt: int) -> dict[str, Any]:
        return {"of": seen_attempts([Earlier(step, "", attempt)], [step])}

    attempts = {"my-run": (2, {}), "my-download": (1, seen("my-run", 1)), "my-archive": (1, seen("my-download", 1))}
    assert "newer results" in reason(done_by(FILED["qa"], **attempts)), "it began before the second attempt had ended"
    jumped = {"my-archive": (1, seen("my-download", 1)), "my-download": (1, seen("my-run", 2)), "my-run": (2, {})}
    assert isinstance(done_by(FILED["qa"], **jumped), Removable), "the clock was set back in between"


@pytest.mark.parametrize("state", [CaseState.DONE, CaseState.CANCELLED])
def test_nothing_goes_while_a_part_of_the_case_goes_on_or_may(state: CaseState) -> None:
    ended = case(KEYS[0], state, done=ARCHIVED, cleared=("hpc",))
    assert isinstance(judge(KEYS[0], ended, "hpc", FILED), Removable)
    found = judge(KEYS[0], replace(ended, alive=("my-run",)), "hpc", FILED)
    assert "step my-run goes on, or may" in reason(found)


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    """A host with four case directories, and with things that are none of mqi's."""
    base = tmp_path / "base"
    for key in KEYS:
        (base / key / "input").mkdir(parents=True)
        (base / key / "input" / "a.ptn").write_text("x")
    (base / "results of somebody").mkdir()
    (base / "cabc").mkdir()
    (base / "caaaaaaaaab").write_text("a file named like a case")
    (base / "ceeeeeeeeee").symlink_to(base / KEYS[3])
    return LocalHost("hpc", LocalHostSection(type="local", base_dir=str(base)), tmp_path)


def test_a_survey_passes_over_all_that_is_not_named_and_shaped_like_a_case(host: LocalHost) -> None:
    cases = [
        case(KEYS[0], CaseState.CANCELLED),
        case(KEYS[1], CaseState.RUNNING),
        case(KEYS[2], CaseState.DONE, done=ARCHIVED),
        case("caaaaaaaaab", CaseState.CANCELLED),
        case("ceeeeeeeeee", CaseState.CANCELLED),
    ]
    removable, kept = survey(host, {each.key: each for each in cases}.get, FILED, owner="")
    assert [each.key for each in removable] == [KEYS[0], KEYS[2]]
    assert [each.key for each in kept] == [KEYS[1], KEYS[3]]


def test_a_host_without_a_base_dir_has_nothing_to_clean(tmp_path: Path) -> None:
    bare = LocalHost("hpc", LocalHostSection(type="local", base_dir=str(tmp_path / "none")), tmp_path)
    assert survey(bare, dict[str, CaseView]().get, FILED, owner="") == ([], [])


def test_removing_takes_one_case_and_leaves_the_rest(host: LocalHost, tmp_path: Path) -> None:
    remove(host, KEYS[0], owner="")
    base = tmp_path / "base"
    assert not (base / KEYS[0]).exists()
    assert all((base / key / "input" / "a.ptn").exists() for key in KEYS[1:])
    assert list((base / ".mqi").iterdir()) == []
    remove(host, KEYS[0], owner="")


def test_a_removal_that_was_cut_off_is_finished_by_the_next(host: LocalHost, tmp_path: Path) -> None:
    half = tmp_path / "base" / ".mqi" / f"removed-{KEYS[1]}-0000"
    half.mkdir(parents=True)
    (half / "left").write_text("x")
    helper = tmp_path / "base" / ".mqi" / "bin"
    helper.mkdir()
    remove(host, KEYS[0], owner="")
    assert list((tmp_path / "base" / ".mqi").iterdir()) == [helper]


@pytest.mark.parametrize("begun_anew", [False, True])
def test_what_was_cut_off_before_it_was_known_to_go_is_judged_again(
    host: LocalHost, tmp_path: Path, begun_anew: bool
) -> None:
    base = tmp_path / "base"
    (base / ".mqi").mkdir()
    (base / KEYS[1]).rename(base / ".mqi" / f"going-{KEYS[1]}-0000")
    if begun_anew:
        (base / KEYS[1]).mkdir()
    remove(host, KEYS[0], owner="")
    assert list((base / ".mqi").iterdir()) == []
    assert (base / KEYS[1] / "input").exists() is not begun_anew


def test_two_who_clean_at_once_never_give_back_half_a_directory(host: LocalHost) -> None:
    root = Path(host.base_dir) / KEYS[0]

    def still() -> bool:
        remove(host, KEYS[1], owner="")  # the other, at the worst moment
        return False

    assert not remove(host, KEYS[0], owner="", still=still)
    assert (root / "input" / "a.ptn").read_text() == "x"


def test_a_case_that_is_begun_again_during_a_removal_finds_nothing_rather_than_half(host: LocalHost) -> None:
    layout = RemoteLayout(PurePosixPath(host.base_dir), KEYS[0])
    seen: list[bool] = []

    class Watching:
        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

        def remove_tree(self, path: PurePosixPath) -> None:
            if KEYS[0] in path.name:
                seen.append(inner.stat(layout.root) is None)
            inner.remove_tree(path)

    class WatchedHost:
        name = host.name
        base_dir = host.base_dir

        def files(self) -> object:
            return self

        def __enter__(self) -> Watching:
            return Watching()

        def __exit__(self, *_: object) -> None:
            pass

    with host.files() as inner:
        remove(WatchedHost(), KEYS[0], owner="")  # type: ignore[arg-type]
    assert seen == [True]


def test_a_case_that_is_begun_again_while_the_operator_thinks_stays(host: LocalHost, capsys: Any) -> None:
    class Desk:
        """An operator's desk with one case, which is begun again at the question."""

        def __init__(self) -> None:
            self.config = SimpleNamespace(workflows=FILED, hosts={"hpc": host.config})
            self.owner = ""
            self.state = CaseState.CANCELLED

        def host(self, name: str) -> LocalHost:
            return host

        def case(self, key: str) -> CaseView | None:
            return case(key, self.state) if key == KEYS[0] else None

    desk = Desk()

    def think(question: str) -> str:
        desk.state = CaseState.RUNNING
        return "yes"

    clean_host(desk, "hpc", dry_run=False, yes=False, ask=think)  # type: ignore[arg-type]
    assert "begun again meanwhile" in capsys.readouterr().out
    with host.files() as files:
        assert files.stat(RemoteLayout(host.base_dir, KEYS[0]).input) is not None


def test_a_case_that_is_begun_again_in_the_moment_of_its_removal_gets_its_directory_back(host: LocalHost) -> None:
    root = Path(host.base_dir) / KEYS[0]
    seen: list[bool] = []

    def still() -> bool:
        seen.append(root.exists())
        return False

    assert not remove(host, KEYS[0], owner="", still=still)
    assert seen == [False], "asked when nobody can begin in it any more"
    assert (root / "input" / "a.ptn").read_text() == "x"

    ending = filed(KEYS[0])
    patrol = Round(host, ending)
    looks = iter((ending, ending, ending))
    began = replace(ending, alive=("my-run",))
    patrol.case = lambda key: next(looks, began) if key == KEYS[0] else None  # type: ignore[method-assign]
    assert patrol.go() == sorted(KEYS)
    assert (patrol.reported, list(looks)) == ([], [])


class Round:
    """A round of the patrol that clears, over cases given by key."""

    def __init__(self, host: LocalHost, *cases: CaseView, after: float | None = 3600.0, now: float = 100_000.0) -> None:
        self.config = CuratorSection(clear_after=after)
        self.log = logging.LoggerAdapter(logging.getLogger("mqi.patrol"), {})
        self.clock = FakeClock(now)
        self.hosts = (host.name,)
        self.workflows = FILED
        self.owner = ""
        self.reported: list[Any] = []
        self._host = host
        self._cases = {each.key: each for each in cases}

    def host(self, name: str) -> LocalHost:
        return self._host

    def case(self, key: str) -> CaseView | None:
        return self._cases.get(key)

    def report(self, finding: Any) -> None:
        self.reported.append(finding)

    def stopping(self) -> bool:
        return False

    def go(self) -> list[str]:
        """Go a round; return the keys of the directories that are left."""
        clear_in_time(self)  # type: ignore[arg-type]
        return sorted(entry.name for entry in Path(self._host.base_dir).iterdir() if entry.name in KEYS)


def filed(key: str, *, ended_at: float = 1000.0, **changes: Any) -> CaseView:
    return replace(case(key, CaseState.DONE, done=ARCHIVED), ended_at=ended_at, **changes)


def test_only_what_is_done_and_archived_for_long_goes_by_itself(host: LocalHost) -> None:
    patrol = Round(
        host,
        filed(KEYS[0]),
        filed(KEYS[1], ended_at=99_000.0),
        case(KEYS[2], CaseState.DONE, done=("my-run",)),
        case(KEYS[3], CaseState.CANCELLED),
    )
    assert patrol.go() == [KEYS[1], KEYS[2], KEYS[3]]
    assert patrol.reported == [CaseCleared(KEYS[0], "hpc")]
    assert (Path(host.base_dir) / "results of somebody").is_dir()


def test_what_was_just_sent_anew_by_hand_does_not_go_before_it_is_worked_on(host: LocalHost) -> None:
    again = Finished("my-upload", "", 2, {}, 98_000.0, 99_000.0)
    ended = filed(KEYS[0])
    patrol = Round(host, replace(ended, finished=(again, *ended.finished[1:])))
    assert patrol.go() == sorted(KEYS)
    patrol.clock.turn(3600.0)
    assert patrol.go() == sorted(KEYS[1:])


def test_nothing_goes_by_itself_unless_the_operator_says_when(host: LocalHost) -> None:
    assert Round(host, filed(KEYS[0]), after=None).go() == sorted(KEYS)
    assert PATROL.interval(CuratorSection()) == 0


def test_a_host_that_does_not_answer_is_a_line_in_the_log(host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    class Deaf:
        name = "hpc"
        base_dir = host.base_dir
        config = host.config

        def files(self) -> Any:
            raise HostUnreachable("host hpc does not answer", host="hpc")

    patrol = Round(Deaf(), filed(KEYS[0]))  # type: ignore[arg-type]
    assert patrol.go() == sorted(KEYS)
    assert "nothing more is cleared" in caplog.text


_KILLED = """
import os, sys, pathlib
sys.path[:0] = sys.argv[2:]
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_curator.cleaning import remove
left = [3]
def unlink(path, *args, inner=os.unlink, **more):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    inner(path, *args, **more)
os.unlink = os.remove = unlink
pathlib.Path.unlink = lambda self, missing_ok=False: unlink(self)
host = LocalHost("hpc", LocalHostSection(type="local", base_dir=sys.argv[1]), pathlib.Path(sys.argv[1]))
remove(host, "KEY", owner="")
"""


def test_a_removal_that_is_killed_half_way_is_finished_and_touches_nothing_else(host: LocalHost) -> None:
    base = Path(host.base_dir)
    for number in range(20):
        (base / KEYS[0] / "input" / f"{number}.ptn").write_text("x")
    root = Path(__file__).parents[2]
    program = [sys.executable, "-c", _KILLED.replace("KEY", KEYS[0]), str(base), str(root), str(root / "plugins")]
    assert subprocess.run(program, check=False).returncode == -9
    (half,) = (base / ".mqi").iterdir()
    assert 0 < len(list(half.rglob("*.ptn"))) < 21
    assert not (base / KEYS[0]).exists(), "a case that begins again finds nothing rather than half"

    patrol = Round(host)

    assert patrol.go() == sorted(KEYS[1:])
    assert list((base / ".mqi").iterdir()) == []
    assert all((base / key / "input" / "a.ptn").exists() for key in KEYS[1:])


def test_a_directory_in_which_somebody_else_keeps_something_stays(host: LocalHost) -> None:
    root = Path(host.base_dir) / KEYS[0]
    (root / "work").mkdir()
    (root / ".parts").mkdir()
    cases = {KEYS[0]: case(KEYS[0], CaseState.CANCELLED)}
    assert [each.key for each in survey(host, cases.get, FILED, owner="")[0]] == [KEYS[0]]

    (root / "notes.txt").write_text("look at field 2 again")

    removable, kept = survey(host, cases.get, FILED, owner="")
    assert removable == []
    assert kept[0].reason == "cancelled, but 1 thing in it did not come from mqi"


def test_of_two_installations_with_the_same_cases_on_one_host_each_clears_its_own_alone(tmp_path: Path) -> None:
    base = tmp_path / "base"
    for owner in ("0a1b2c", "ffffff", ""):
        layout = RemoteLayout(PurePosixPath(base), KEYS[0], owner)
        Path(layout.input).mkdir(parents=True)
        (Path(layout.input) / "a.ptn").write_text("x")
        (base / ".mqi" / f"removed-{layout.root.name}-0000").mkdir(parents=True)
    host = LocalHost("hpc", LocalHostSection(type="local", base_dir=str(base)), tmp_path)
    mine = Round(host, filed(KEYS[0]))
    mine.owner = "0a1b2c"

    mine.go()

    assert mine.reported == [CaseCleared(KEYS[0], "hpc")]
    assert sorted(each.name for each in base.iterdir()) == [".mqi", KEYS[0], f"{KEYS[0]}-ffffff"]
    assert sorted(each.name for each in (base / ".mqi").iterdir()) == [
        f"removed-{KEYS[0]}-0000",
        f"removed-{KEYS[0]}-ffffff-0000",
    ]


@pytest.mark.parametrize(
    "name",
    ["caaaaaaaaaa", "caaaaaaaaaa-", "caaaaaaaaaa-0a1b2d", "caaaaaaaaaa-0a1b2c-0", "caaaaaaaaaa-0a1b2c\n", "x-0a1b2c"],
)
def test_a_name_that_is_not_exactly_one_of_ours_names_no_case(name: str) -> None:
    assert key_of("caaaaaaaaaa-0a1b2c", "0a1b2c") == "caaaaaaaaaa"
    assert key_of(name, "0a1b2c") is None
