"""How far a run is, read from its own log: in the part's row, by hand and in `mqi exec status`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from exec.far_side import FarSide, until
from exec.test_exec_commands import CommandLine
from exec.test_exec_commands import line as line
from exec.turns import Bench
from mqi_cli import Wait
from mqi_ssh_exec.helper_calls import survey_call
from mqi_ssh_exec.job_status import read_survey
from mqi_ssh_exec.options import RunOptions
from mqi_ssh_exec.progress import Progress, read_progress

BATCHES = r"batch (\d+) of (\d+)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("batch 1 of 40\nbatch 2 of 40\n", Progress(2, 40)),
        ("batch 1 of 40\rbatch 17 of 40\rba", Progress(17, 40)),
        ("batch 3 of 40 \x1b[31m batch 999 of 40", Progress(3, 40)),
        ("batch 1 of 0", None),
        ("tch 3 of 40", None),
    ],
)
def test_the_newest_mark_that_makes_sense_counts(text: str, found: Progress | None) -> None:
    assert read_progress(BATCHES, text) == found


def test_a_line_ends_before_its_carriage_return() -> None:
    assert read_progress(rf"(?m)^{BATCHES}$", "batch 1 of 40\r\nbatch 2 of 40\r\r\nend\r\n") == Progress(2, 40)


def test_numbers_with_a_point_count_and_groups_that_are_no_numbers_do_not() -> None:
    assert read_progress(r"(\S+) / (\S+) s", "1.5 / 6.0 s\nx / 6.0 s") == Progress(1.5, 6.0)
    assert read_progress(r"a(\d+)|b(\d+)", "a1 b2") is None
    assert read_progress(r"(\S+) / (\S+)", "1 / inf") is None


@pytest.mark.parametrize("pattern", ["batch (", "batch", r"(\d+)", r"(\d+) (\d+) (\d+)"])
def test_a_pattern_without_two_groups_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        RunOptions(host="hpc", command="true", progress=pattern)


def test_one_look_brings_the_ends_of_the_logs_that_are_wanted(far_side: FarSide) -> None:
    far_side.submit("for n in 1 2 3; do echo batch $n of 3; done; sleep 30")
    until(lambda: far_side.status().log_bytes > 30)
    place = far_side.place()

    seen = read_survey(far_side.call(survey_call(far_side.far_helper, [place], [place])))[str(place.part), 1]
    unasked = read_survey(far_side.call(survey_call(far_side.far_helper, [place])))[str(place.part), 1]

    assert seen.tail.startswith("batch 1 of 3\nbatch 2 of 3\nbatch 3 of 3\n")
    assert unasked.tail == ""
    nothing = far_side.place(7)
    assert (
        read_survey(far_side.call(survey_call(far_side.far_helper, [nothing], [nothing])))[str(place.part), 7].tail
        == ""
    )


def test_a_mark_is_found_though_much_was_written_since(far_side: FarSide) -> None:
    far_side.submit("echo batch 3 of 9; head -c 9000 /dev/zero | tr '\\0' x; sleep 30")
    until(lambda: far_side.status().log_bytes > 9000)
    place = far_side.place()
    seen = read_survey(far_side.call(survey_call(far_side.far_helper, [place], [place])))[str(place.part), 1]
    assert read_progress(BATCHES, seen.tail) == Progress(3, 9)


class Told(list[Any]):
    """What a stage tells of its progress."""

    def __call__(self, done: float, total: float, unit: str, *, detail: str = "") -> None:
        self.append((done, total, unit))


def test_a_turn_tells_how_far_the_run_is(bench: Bench) -> None:
    ctx = bench.context("seq -f 'batch %g of 8' 5; sleep 30", progress=BATCHES)
    ctx.progress = told = Told()  # type: ignore[method-assign,assignment]
    until(lambda: isinstance(bench.turn(ctx), Wait) and told)

    assert told[-1] == (5, 8, "")
    bench.drive(ctx, cancel=True)


def test_only_the_end_of_a_long_log_is_read(local_bench: Bench) -> None:
    ctx = local_bench.context("echo batch 1 of 2; head -c 200000 /dev/zero | tr '\\0' x; sleep 30", progress=BATCHES)
    ctx.progress = told = Told()  # type: ignore[method-assign,assignment]
    local_bench.turn(ctx)
    until(lambda: local_bench.job(ctx).status().log_bytes > 200000)
    told.clear()

    local_bench.turn(ctx)

    assert not told
    local_bench.drive(ctx, cancel=True)


def steps(line: CommandLine) -> list[dict[str, Any]]:
    """Return what `mqi case show` says of each step."""
    found: list[dict[str, Any]] = json.loads(line.mqi("case", "show", "Meier", "--json"))["steps"]
    return found


def test_status_and_the_case_show_how_far_it_is(line: CommandLine) -> None:
    config = line.directory / "mqi.yaml"
    config.write_text(
        config.read_text().replace("outputs: [made]", r"outputs: [made], progress: 'line (\d+) of (\d+)'")
    )
    config.write_text(config.read_text().replace("echo line $i;", "echo line $i of 5;"))
    by_hand = line.start("exec", "run", "Meier")
    try:
        until(lambda: any(step["progress"] for step in steps(line)), within=60.0)
        assert steps(line)[-1]["progress"] == "(5 of 5, 100 %)"
        assert line.status()["progress"] == "5 of 5"
        assert "5 of 5, 100 %" in line.mqi("case", "why", "Meier")
        assert "works on it (5 of 5, 100 %)" in line.mqi("case", "show", "Meier")
    finally:
        line.go.touch()
        line.mqi("exec", "kill", "Meier", "--yes")
        by_hand.communicate(timeout=60)
