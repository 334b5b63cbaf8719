"""Keys: how they are read from a terminal, and what they do."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from mqi_cli.store import Store
from mqi_cli.watch.keys import Keys, decode
from mqi_cli.watch.picture import sample_view
from mqi_cli.watch.screen import Mode, Screen, press, settle


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("jk", ["j", "k"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA", ["up"]),
        ("\x1b[5~\x1b[6~", ["page-up", "page-down"]),
        ("\x1b[1;5C", []),
        ("\r\t\x1b[Z\x7f", ["enter", "tab", "back-tab", "backspace"]),
        ("ä東", ["ä", "東"]),
        ("\x00\x01", []),
        ("\x1bx", ["escape", "x"]),
    ],
)
def test_what_a_terminal_sends_becomes_keys(text: str, keys: list[str]) -> None:
    assert decode(text) == (keys, "")


def test_a_sequence_that_comes_in_pieces_is_kept_until_it_is_whole() -> None:
    keys, rest = decode("a\x1b[")
    assert (keys, rest) == (["a"], "\x1b[")
    assert decode(rest + "6~") == (["page-down"], "")


def test_a_lone_escape_is_a_key_and_the_terminal_is_put_back() -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        with pytest.raises(ValueError, match="a bug"), Keys(theirs) as keys:
            assert termios.tcgetattr(theirs) != before
            os.write(ours, b"\x1b")
            assert keys.read(1.0) == ["escape"]
            os.write(ours, "\x1b[Bü/".encode())
            assert keys.read(1.0) == ["down", "ü", "/"]
            assert keys.read(0.0) == []
            raise ValueError("a bug")
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def play(store: Store, *keys: str) -> Screen:
    view = sample_view(store)
    screen = settle(Screen(), view)
    for key in keys:
        screen = settle(press(screen, key, view), view)
    return screen


def test_moving_stays_within_the_list(store: Store) -> None:
    assert play(store, "up", "k").cursor["cases"] == 0
    assert play(store, "j", "down").cursor["cases"] == 2
    assert play(store, "page-down").cursor["cases"] == 10
    assert play(store, "page-down", "page-down", "down").cursor["cases"] == 12
    assert play(store, "G", "g").cursor["cases"] == 0


def test_enter_opens_the_chosen_case_and_escape_closes_it(store: Store) -> None:
    screen = play(store, "down", "enter")
    assert screen.mode is Mode.CASE
    assert screen.case == sample_view(store).cases[1].key
    assert play(store, "down", "enter", "down", "escape").mode is Mode.PANES
    assert play(store, "tab", "enter").mode is Mode.PANES, "only a case can be opened"


def test_slash_takes_every_key_as_text_until_enter(store: Store) -> None:
    screen = play(store, "/", "q", "?", "1", "backspace")
    assert (screen.find, screen.typing, screen.quit) == ("q?", True, False)
    screen = play(store, "/", "x", "enter")
    assert (screen.find, screen.typing) == ("x", False)
    assert play(store, "/", "x", "escape").find == ""
    assert play(store, "/", "x", "enter", "escape").find == ""
    assert play(store, "/", "a", "ctrl-u", "b").find == "b"


def test_tab_goes_round_and_numbers_go_straight(store: Store) -> None:
    assert play(store, "tab").pane == "hosts"
    assert play(store, "back-tab").pane == "events"
    assert play(store, "tab", "tab", "tab", "tab").pane == "cases"
    assert play(store, "3").pane == "workers"
    assert play(store, "3", "down").cursor["workers"] == 1


def test_q_quits_and_any_key_ends_the_help(store: Store) -> None:
    assert play(store, "q").quit
    assert play(store, "?").mode is Mode.HELP
    assert play(store, "?", "x").mode is Mode.PANES
    assert play(store, "enter", "q").quit
