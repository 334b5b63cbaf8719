"""How far a transfer is: what everybody is told, what only the operator's terminal shows."""

from __future__ import annotations

from typing import Any

from mqi_sftp.meter import Meter
from sftp.bench import Bench


def test_everybody_is_told_files_rate_and_time_left_and_nobody_a_name(local_bench: Bench) -> None:
    told: list[tuple[str, str]] = []
    clock = [100.0]
    ctx: Any = local_bench.context("upload")
    ctx.progress = lambda *_far, detail, note: told.append((detail, note))
    meter = Meter(ctx, elapsed=lambda: clock[0])
    meter.begin("looking at the source")
    meter.expect(files=4, size=100_000_000)
    meter.keep(files=1, size=40_000_000)
    meter.begin_file("Meier_Anna/one.ptn")
    meter.move(10_000_000)
    clock[0] += 2.0
    meter.begin_file("Meier_Anna/two.ptn")
    meter.move(20_000_000)
    clock[0] += 2.0
    meter.move(0)
    assert told[0] == ("looking at the source", "looking at the source")
    assert told[-1] == ("3/4 files, two.ptn", "3 of 4 files, 7.5 MB/s, 4 s left"), (
        "what was kept is no work of this turn"
    )
    assert not any("Meier" in note or "ptn" in note for _, note in told)
    meter.begin("proving")
    assert told[-1][1] == "proving"
