"""`mqi watch` on a terminal of its own: what it draws, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli.case import CaseState
from mqi_cli.store import Store

ROOT = Path(__file__).parents[2]
ALTERNATE_ON, ALTERNATE_OFF, CURSOR_ON = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def environment(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MQI_") and name != "NO_COLOR"}
    return {
        **kept,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        "HOME": str(directory),
        "TERM": "xterm-256color",
        "COLUMNS": "80",  # what a shell exported once must not win over the window as it is
        "MQI_CONFIG": str(directory / "mqi.yaml"),
    }


class Terminal:
    """A terminal with `mqi watch` on it."""

    def __init__(self, directory: Path, *, width: int = 100, height: int = 30) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self.theirs)
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mqi_cli", "watch", "--interval", "250ms"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=environment(directory),
            start_new_session=True,
        )

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read(self, seconds: float) -> str:
        new = ""
        while select.select([self.ours], [], [], seconds)[0]:
            new += os.read(self.ours, 65536).decode("utf-8", "replace")
            seconds = 0.02
        self.said += new
        return new

    def until(self, text: str, *, within: float = 15.0) -> None:
        """Wait until a frame drawn from now on has the text in it."""
        deadline = time.monotonic() + within
        seen = ""
        while text not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen):
            assert time.monotonic() < deadline, f"{text!r} did not show; the last was {seen[-3000:]!r}"
            seen += self.read(0.2)

    def ended(self, *, within: float = 10.0) -> int:
        deadline = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it did not end"
            self.read(0.05)
        self.read(0.1)
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Whether modes, screen and cursor are what they were."""
        screen = self.said.rfind(ALTERNATE_OFF) > self.said.rfind(ALTERNATE_ON) >= 0
        return screen and CURSOR_ON in self.said and termios.tcgetattr(self.theirs) == self.before


@pytest.fixture
def site(tmp_path: Path, store: Store) -> Path:
    (tmp_path / "mqi.yaml").write_text("state: {path: state/state.db}\n")
    return tmp_path


@pytest.fixture
def terminal(site: Path) -> Iterator[Terminal]:
    terminal = Terminal(site)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.ours)
    os.close(terminal.theirs)


def test_it_draws_follows_changes_and_quits_on_q(terminal: Terminal, store: Store) -> None:
    terminal.until("no daemon is running -> mqi daemon start")
    case = store.cases.listing(states=[CaseState.HELD])[0]
    with store.transaction():
        store.cases.update(case.id, reason="seen by nobody before")
    terminal.until("seen by nobody")
    terminal.press("q")
    assert terminal.ended() == 0
    assert terminal.is_as_before()


def test_keys_move_open_filter_and_help(terminal: Terminal) -> None:
    terminal.until("tab pane")
    terminal.press("?")
    terminal.until("nothing stops by it")
    terminal.press("x")
    terminal.until("tab pane")
    terminal.press("\r")
    terminal.until("unchanged for")
    terminal.press("\x1b")
    terminal.until("tab pane")
    terminal.press("/")
    terminal.until("find: ▏")
    terminal.press("downlo")
    terminal.until("find: downlo▏")
    terminal.press("\r\t")
    terminal.until("HOST / GPU")
    terminal.press("q")
    assert terminal.ended() == 0


def test_it_follows_the_size_of_the_window(terminal: Terminal) -> None:
    terminal.until("tab pane")
    terminal.resize(200, 60)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.until("23.0/40 GiB")
    terminal.press("q")
    assert terminal.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    terminal.until("tab pane")
    os.kill(terminal.process.pid, number)
    assert terminal.ended() == 0
    assert terminal.is_as_before()


def test_a_bug_in_it_leaves_the_terminal_as_it_was(site: Path) -> None:
    (site / "state" / "daemon.json").write_text("")
    broken = site / "sitecustomize.py"
    broken.write_text(
        "import mqi_cli.watch.live as live\ndef bug(*_, **__): raise RuntimeError('a bug')\nlive.render = bug\n"
    )
    terminal = Terminal(site)
    try:
        terminal.process.kill()
        terminal.process.wait()
        terminal.said = ""
        terminal.process = subprocess.Popen(
            [sys.executable, "-m", "mqi_cli", "watch"],
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            env={**environment(site), "PYTHONPATH": f"{site}:{ROOT}:{ROOT / 'plugins'}"},
            start_new_session=True,
        )
        assert terminal.ended() == 70
        assert "a bug" in terminal.said
        assert terminal.is_as_before()
    finally:
        terminal.process.kill()
        os.close(terminal.ours)
        os.close(terminal.theirs)


def test_it_is_idle_when_nothing_happens(terminal: Terminal) -> None:
    terminal.until("tab pane")
    terminal.read(1.0)
    before = _cpu(terminal.process.pid)
    began = time.monotonic()
    while time.monotonic() - began < 3.0:
        terminal.read(0.5)
    used = _cpu(terminal.process.pid) - before
    assert used / (time.monotonic() - began) < 0.15, f"{used:.2f} s of processor time in 3 s"


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def once(site: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mqi_cli", "watch", *words],
        env={**environment(site), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_once_prints_one_plain_frame(site: Path) -> None:
    text = once(site, "--once")
    assert "\x1b" not in text
    assert "2.16.840" in text
    assert "gpu 1" in text
    assert max(map(len, text.splitlines())) <= 120


def test_once_works_before_there_is_any_state_and_makes_none(site: Path, tmp_path: Path) -> None:
    (site / "mqi.yaml").write_text("state: {path: elsewhere/state.db}\n")
    assert "no cases: mqi case add DIRECTORY" in once(site, "--once")
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_terminal_it_says_what_to_do(site: Path) -> None:
    assert "mqi watch --once" in once(site, code=2)
