"""Frames at every size: within their bounds, readable, nothing wrapped."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mqi_cli.case import CaseState, PartState, derive_key
from mqi_cli.crew import ChildState
from mqi_cli.daemon import ChildStatus, DaemonStatus
from mqi_cli.store import Store
from mqi_cli.store.records import LaneLoad
from mqi_cli.store.views import Views
from mqi_cli.watch.data import DaemonView, View, make_view
from mqi_cli.watch.detail import CaseText
from mqi_cli.watch.frame import boxes, render, render_all
from mqi_cli.watch.grid import cut
from mqi_cli.watch.picture import NOW, main, sample_view
from mqi_cli.watch.screen import PANES, Mode, Screen, press, settle

SIZES = [
    (40, 8),
    (60, 16),
    (80, 24),
    (81, 25),
    (100, 30),
    (110, 24),
    (120, 50),
    (149, 22),
    (150, 38),
    (200, 60),
    (317, 90),
]


def frame(view: View, width: int, height: int, screen: Screen | None = None, **more: CaseText) -> list[Text]:
    return render(view, settle(screen or Screen(), view), width, height, **more)


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def exported(lines: list[Text], width: int) -> str:
    """Print the lines as the live screen does, and return what stood on it."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, crop=True, highlight=False)
    return console.export_text(styles=False)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("pane", PANES)
def test_every_frame_is_exactly_as_large_as_the_window(store: Store, width: int, height: int, pane: str) -> None:
    for daemon in (True, False):
        lines = frame(sample_view(store, daemon=daemon), width, height, Screen(pane=pane))
        assert len(lines) == height
        assert {line.cell_len for line in lines} == {width}
        assert exported(lines, width).count("\n") == height


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_panes_never_lie_over_each_other_nor_beside_the_screen(width: int, height: int) -> None:
    for focus in PANES:
        taken: set[tuple[int, int]] = set()
        found = boxes(width, height, focus)
        assert focus in {box.pane for box in found}
        for box in found:
            cells = {
                (x, y) for x in range(box.left, box.left + box.width) for y in range(box.top, box.top + box.height)
            }
            assert not cells & taken
            taken |= cells
        assert all(0 <= x < width and 0 <= y < height for x, y in taken)


def test_a_small_terminal_shows_state_case_step_progress_age_and_reason(store: Store) -> None:
    text = plain(frame(sample_view(store), 80, 24))
    assert "1 held · 3 running · 2 waiting · 1 settling · 6 done" in text
    assert "daemon ok" in text
    held = next(line for line in text.splitlines() if line.startswith("held"))
    assert "…2027010911" in held
    assert "simulate" in held
    assert "90 min" in held
    assert "exit code 139" in held
    assert "61 %" in text
    assert "upload begun" in text, "the latest events show below"


def test_a_large_terminal_shows_everything_at_once(store: Store) -> None:
    text = plain(frame(sample_view(store), 200, 60))
    for expected in (
        "2.16.840.1.114337.1/2027010911",
        "exit code 139 (signal 11 (SIGSEGV)) after 21 min",
        "waits for 1 GPU on hpc: 0 of 2 free",
        "connection refused; goes on in 95 s",
        "100 batches",
        "gpu 0",
        "23.0/40 GiB",
        "/simulate",
        "ssh-exec-1",
        "2 at work, 1 waiting",
        "all steps done",
    ):
        assert expected in text, expected


def test_cases_that_need_a_person_come_first_and_ended_ones_last(store: Store) -> None:
    states = [row.cells["state"] for row in sample_view(store).cases]
    assert states[0] == "held"
    order = ["held", "running", "waiting", "settling", "done"]
    assert states == sorted(states, key=order.index)
    ages = [row.cells["for"] for row in sample_view(store).cases if row.cells["state"] == "done"]
    assert ages[0] == "8 h"


def test_without_a_daemon_it_says_so_and_what_to_do(store: Store) -> None:
    for width, height in SIZES[1:]:
        assert "no daemon is running -> mqi daemon start" in plain(
            frame(sample_view(store, daemon=False), width, height)
        )


def test_without_a_state_database_it_says_how_to_begin() -> None:
    view = make_view(None, DaemonView(None, None), machine="qa1", now=NOW)
    text = plain(frame(view, 80, 24))
    assert "no cases: mqi case add DIRECTORY, or mqi scan" in text
    assert "no daemon is running -> mqi daemon start" in text


def test_more_banners_than_fit_are_counted(store: Store) -> None:
    with store.transaction():
        for number in range(9):
            store.switches.raise_alert(f"t{number}", text=f"alert {number}", hint="mqi doctor", now=NOW)
        store.switches.set_drain("the server room is cooled")
    small, large = plain(frame(sample_view(store), 80, 24)), plain(frame(sample_view(store), 200, 60))
    assert "no new work is begun: the server room is cooled -> mqi daemon undrain" in small
    assert "9 more -> mqi status" in small
    assert "alert 1 -> mqi doctor" in large
    assert "7 more -> mqi status" in large


def test_hostile_names_and_texts_can_neither_move_the_cursor_nor_break_a_line(store: Store) -> None:
    hostile = "evil\x1b[2J\x07\nname\u202e" + "東京" * 30 + "\udcff"
    with store.transaction():
        case = store.cases.add(
            key=derive_key("x", hostile, 1), source="x\x1b[0m", name=hostile.encode("utf-8", "replace").decode(),
            revision=1, state=CaseState.HELD, reason="bad\r\nnews\x9b", created_at=NOW, updated_at=NOW,
        )  # fmt: skip
        store.events.add(at=NOW, case=case.id, kind="held", text="tick\ttock\x1b]0;title\x07")
    view = sample_view(store)
    for width, height in SIZES:
        lines = frame(view, width, height)
        assert {line.cell_len for line in lines} == {width}
        text = plain(lines)
        assert not any(ord(character) < 32 and character != "\n" for character in text)
        assert text.count("\n") == height - 1
        assert "\u202e" not in text
        assert "\x9b" not in text
    assert "evil\\x1b[2J" in plain(frame(view, 317, 90))


def test_the_selected_row_stays_selected_when_rows_move(store: Store) -> None:
    view = sample_view(store)
    screen = settle(Screen(), view)
    for _ in range(3):
        screen = press(screen, "down", view)
    chosen = view.cases[3].key
    with store.transaction():
        store.cases.add(
            key=derive_key("x", "new", 1), source="x", name="new", revision=1, state=CaseState.HELD, created_at=NOW,
            updated_at=NOW,
        )  # fmt: skip
    view = sample_view(store)
    screen = settle(screen, view)
    assert view.cases[screen.cursor["cases"]].key == chosen
    line = next(
        line for line in render(view, screen, 80, 24) if any("reverse" in str(span.style) for span in line.spans[-1:])
    )
    assert "2027011408" in line.plain


def test_a_long_list_scrolls_with_the_selection(store: Store) -> None:
    with store.transaction():
        for number in range(100):
            store.cases.add(
                key=derive_key("x", str(number), 1), source="x", name=f"case-{number:03d}", revision=1,
                state=CaseState.READY, created_at=NOW, updated_at=NOW,
            )  # fmt: skip
    view = sample_view(store)
    screen = settle(Screen(), view)
    assert "of 113" in plain(render(view, screen, 80, 24))
    screen = settle(press(screen, "end", view), view)
    assert "202701" in plain(render(view, screen, 80, 24)).splitlines()[-9]
    for _ in range(60):
        screen = press(screen, "up", view)
    assert f"{view.cases[52].cells['name']}" in plain(render(view, screen, 80, 24))


def test_the_filter_finds_in_name_key_state_step_and_reason(store: Store) -> None:
    views = Views(store)
    key = store.cases.listing(states=[CaseState.HELD])[0].key
    assert [row.key for row in views.snapshot(find=key[:6]).cases] == [key]
    assert [row.key for row in views.snapshot(find="Code 139").cases] == [key]
    assert {row.state for row in views.snapshot(find="waiting").cases} == {CaseState.WAITING}
    assert [row.step for row in views.snapshot(find="downlo").cases] == ["download"]
    assert len(views.snapshot(find="2027011313").cases) == 1
    assert views.snapshot(find="100%_'").cases == ()
    view = sample_view(store, find="nowhere")
    assert "nothing has “nowhere” in it" in plain(frame(view, 80, 24, Screen(find="nowhere")))


def test_cases_that_ended_long_ago_leave_the_screen_but_can_be_found(store: Store) -> None:
    views = Views(store)
    states = [row.state for row in views.snapshot(ended_since=NOW - 10 * 3600 - 1).cases]
    assert states.count(CaseState.DONE) == 3
    assert len(views.snapshot(ended_since=NOW, find="done").cases) == 6


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_an_open_case_shows_attempts_events_and_why(store: Store, width: int, height: int) -> None:
    key = store.cases.listing(states=[CaseState.HELD])[0].key
    detail = Views(store).detail(key)
    assert detail is not None
    screen = Screen(mode=Mode.CASE, case=key)
    lines = frame(sample_view(store), width, height, screen, case=CaseText(detail, NOW))
    assert len(lines) == height
    assert {line.cell_len for line in lines} == {width}
    if width >= 80:
        text = plain(lines)
        assert "simulate: exit code 139 (signal 11" in text
        assert f"-> mqi case retry {key}" in text
        assert "failed" in text
        assert "223 files, 44.1 MB" in text


def test_an_open_case_scrolls_under_its_head(store: Store) -> None:
    case = store.cases.listing(states=[CaseState.HELD])[0]
    with store.transaction():
        for number in range(80):
            store.events.add(at=NOW, case=case.id, kind="note", text=f"note {number:02d}")
    detail = Views(store).detail(case.key)
    assert detail is not None
    lines = [CaseText(detail, NOW).lines(80, 20, scroll=scroll) for scroll in (0, 5, 10_000)]
    assert [len(each) for each in lines] == [20, 20, 20]
    assert lines[0][0].plain == lines[2][0].plain
    assert "note 79" in plain(lines[0])
    assert "exit code 139" in lines[2][-1].plain, "the oldest event is the last line"


def test_help_shows_every_key(store: Store) -> None:
    text = plain(frame(sample_view(store), 80, 24, Screen(mode=Mode.HELP)))
    for key in ("enter", "PgUp", "/", "tab", "esc", "q"):
        assert key in text


def test_a_printed_frame_has_everything_and_no_trailing_space(store: Store) -> None:
    lines = render_all(sample_view(store), 100)
    text = plain(lines)
    assert all(line.cell_len <= 100 for line in lines)
    assert all(word in text for word in ("Cases", "Hosts and GPUs", "Workers", "Events", "gpu 1", "conductor", "held"))
    assert not any(line.plain.endswith(" ") for line in lines)


def test_reading_a_frame_of_a_large_installation_is_quick_and_bounded(store: Store) -> None:
    with store.transaction():
        for number in range(700):
            store.cases.add(
                key=f"k{number}", source="x", name=f"case-{number}", revision=1,
                state=CaseState.DONE if number % 8 == 0 else CaseState.WAITING, created_at=NOW, updated_at=NOW,
                ended_at=NOW if number % 8 == 0 else None,
            )  # fmt: skip
    began = time.monotonic()
    view = sample_view(store)
    frame(view, 200, 60)
    assert time.monotonic() - began < 1.0
    assert len(view.cases) == 500


def test_the_picture_is_an_svg_of_the_frame(tmp_path: Path) -> None:
    main(tmp_path / "watch.svg")
    text = (tmp_path / "watch.svg").read_text()
    assert text.startswith("<svg")
    assert "url(http" not in text, "it loads nothing from anywhere"
    assert "simulate" in text


def test_wide_characters_are_counted_by_the_cells_they_take() -> None:
    assert cell_len(cut("東京" * 10, 9, middle=True)) <= 9
    assert cell_len(cut("東京" * 10, 9)) <= 9
    assert cell_len(cut("東京東京東京", 9)) <= 9
    assert cut("short", 9) == "short"
    assert cut("abcdefghij", 5, middle=True) == "ab…ij"
    assert cut("abc", 1) == "…"
    assert cut("abc", 0) == ""


def test_a_silent_worker_in_whose_place_another_works_is_not_shown(store: Store) -> None:
    store.workers.alive(
        "sftp@qa1-17", lane="sftp", machine="qa1", pid=17, busy=0, started_at=NOW - 9000, now=NOW - 900
    )  # fmt: skip
    store.workers.alive(
        "sftp@qa2-18", lane="sftp", machine="qa2", pid=18, busy=0, started_at=NOW - 9000, now=NOW - 900
    )  # fmt: skip
    names = [row.cells["name"] for row in sample_view(store).workers]
    assert "sftp@qa1-17" not in names
    assert "sftp@qa2-18" in names  # nobody works in its place: its machine may be down


def test_what_the_broker_holds_and_its_dead_letters_are_shown_by_lane(store: Store) -> None:
    with store.transaction():
        store.switches.set_loads({"sftp": LaneLoad(7, 0), "archiver": LaneLoad(0, 2), "curator": LaneLoad(0, 0)})
    lanes = {row.key: row for row in sample_view(store).workers if row.key.startswith("lane ")}
    assert "7 in the broker" in lanes["lane sftp"].cells["note"]
    assert "2 dead letters" in lanes["lane archiver"].cells["note"]
    assert "lane curator" not in lanes, "nothing waits there"


def test_a_process_that_does_not_run_is_told_once(store: Store) -> None:
    child = ChildStatus("ssh-exec-1", ChildState.FATAL, None, 11, NOW, "exit code 1", 1, None, None)
    status = DaemonStatus(1, "1", None, "", NOW, "running", True, 0, "", (child,))
    with store.transaction():
        store.switches.raise_alert("process:ssh-exec-1", text="ssh-exec-1 does not run: fatal", hint="", now=NOW)
    for daemon in (DaemonView(1, status), DaemonView(None, None)):
        view = make_view(Views(store).snapshot(), daemon, machine="qa1", now=NOW)
        assert sum("ssh-exec-1" in banner.text for banner in view.banners) == 1


def test_a_step_that_fans_out_shows_how_many_of_its_parts_are_done_also_between_their_reports(store: Store) -> None:
    now = NOW
    case = store.cases.add(
        key="cfannedout1", source="in", name="fanned", revision=1, directory="/in/fanned", workflow="qa",
        state=CaseState.RUNNING, reason="", priority=0, created_at=now, updated_at=now,
    )  # fmt: skip
    store.cases.update(case.id, step="simulate")
    common = {"case": case.id, "lane": "ssh-exec", "host": "hpc", "job": True, "gpus": 1, "created_at": now}
    plan = store.parts.add(step="simulate", part="", attempt=1, plan=True, **common)
    store.parts.update(plan.id, state=PartState.DONE, ended_at=now)
    parts = [store.parts.add(step="simulate", part=f"{number}", attempt=1, **common) for number in (1, 2, 3, 4)]
    store.parts.update(parts[0].id, state=PartState.DONE, ended_at=now)
    again = store.parts.add(step="simulate", part="1", attempt=2, **common)  # each part counts once
    store.parts.update(again.id, state=PartState.DONE, ended_at=now)
    earlier = store.parts.add(step="interpret", part="1", attempt=1, **common)
    store.parts.update(earlier.id, state=PartState.DONE, ended_at=now)
    store.parts.update(parts[1].id, state=PartState.WORKING)

    def shown() -> tuple[str, str]:
        view = sample_view(store, now=now)
        (row,) = (each for each in view.cases if each.key == case.key)
        return row.cells["progress"], row.cells["of"]

    assert shown() == ("25 %", "4 parts")
    store.parts.update(parts[1].id, progress_done=50.0, progress_total=100.0)
    assert shown() == ("37 %", "4 parts")
    store.parts.update(parts[1].id, state=PartState.FAILED, ended_at=now)
    assert shown() == ("25 %", "4 parts")
    store.parts.add(step="simulate", part="1", attempt=3, **common)  # done again by hand
    assert shown() == ("0 %", "4 parts")
