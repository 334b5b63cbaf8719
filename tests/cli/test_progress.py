"""What long work says of itself where no terminal is: plain lines, with the rate of what moves now."""

from __future__ import annotations

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
