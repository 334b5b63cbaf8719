"""What long work says of itself where no terminal is: plain lines, with the rate of what moves now."""

from __future__ import annotations

import re

import pytest

from mqi_cli.cli import progress as module


def test_the_rate_is_that_of_the_present_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with module.progress("archive") as show:
        for at, done in ((20.0, 0.0), (30.0, 50e6), (40.0, 100e6), (41.0, 1e6), (51.0, 21e6)):
            clock[0] = at
            show(done, 100e6, "B", "a file's name")

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "archive: 0 B of 100.0 MB, 20 s",
        "archive: 50.0 MB of 100.0 MB, 5.0 MB/s, 30 s",
        "archive: 100.0 MB of 100.0 MB, 5.0 MB/s, 40 s",
        "archive: 21.0 MB of 100.0 MB, 2.1 MB/s, 51 s",
    ]


def test_what_was_there_already_is_no_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with module.progress("upload") as show:
        for at, done in ((1.0, 0.0), (1.001, 600e6), (6.0, 605e6), (11.001, 610e6), (22.0, 621e6)):
            clock[0] = at
            show(done, 1000e6, "B", "a file's name")

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "upload: 610.0 MB of 1.0 GB, 1.0 MB/s, 11 s",
        "upload: 621.0 MB of 1.0 GB, 1.0 MB/s, 22 s",
    ]


def test_a_bar_fits_a_terminal_of_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    with module.progress("upload") as show:
        for at, done in ((0.0, 0.0), (0.001, 600e6), (20.0, 620e6)):
            clock[0] = at
            show(done, 1000e6, "B", "13/223 files, 01_20250424014403.ptn")

    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", each) for each in capsys.readouterr().err.splitlines()]
    (last,) = [each for each in lines if "62 %" in each][-1:]
    assert len(last) <= 80
    assert "620.0 MB of 1.0 GB, 1.0 MB/s, 6 min left" in last
    assert "13/223" in last
