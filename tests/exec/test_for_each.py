"""A run step that fans out: what its parts are, what each command gets, and what no message may carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exec.turns import RUN, UPLOAD, Bench, Context
from mqi_cli import Done, Earlier, GiveUp, Step, StepOptions, Workflow
from mqi_cli.config.model import LocalHostSection
from mqi_ssh_exec.for_each import ForEach
from mqi_ssh_exec.options import RunOptions, check_run
from mqi_ssh_exec.plan import select

HOSTS = {"far": LocalHostSection(type="local", base_dir="/scratch/mqi")}
FIELDS = ("20260101120000", "20260101120500", "20260101121000")


def give_input(bench: Bench, ctx: Context) -> None:
    """Put a case with three fields on the host, and what must not be taken for a fourth."""
    root = Path(ctx.layout.input)
    for name in FIELDS:
        (root / name).mkdir(parents=True)
        (root / name / "PlanInfo.txt").write_text("x")
    (root / "PlanInfo.txt").write_text("one level too high")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "PlanInfo.txt").write_text("x")
    (root / "empty").mkdir()


def listed(ctx: Context) -> Done:
    """Give the turn that lists the parts."""
    assert RUN.plan
    done = RUN.plan(None, ctx)  # type: ignore[arg-type]
    assert isinstance(done, Done)
    return done


def parts_of(bench: Bench, command: str, plan: Done, **options: Any) -> list[Context]:
    """Return a context for each part that was listed."""
    made = []
    for number in range(1, plan.facts["parts"] + 1):
        ctx = bench.context(command, part=str(number), **options)
        ctx.earlier = [Earlier("simulate", "", 1, plan.facts)]
        made.append(ctx)
    return made


def run_all(bench: Bench, command: str, ctx: Context, **options: Any) -> list[str]:
    """List the parts, run each, and return what each has written."""
    written = []
    for each in parts_of(bench, command, listed(ctx), **options):
        bench.drive(each)
        written.append(bench.log(each).strip())
    return written


def test_each_matching_file_of_the_input_is_a_part(bench: Bench) -> None:
    command, options = "echo {part_index} {part}; test -s {input_dir}/{part}", {"for_each": {"files": "*/PlanInfo.txt"}}
    ctx = bench.context(command, **options)
    give_input(bench, ctx)

    assert run_all(bench, command, ctx, **options) == [f"{n} {name}/PlanInfo.txt" for n, name in enumerate(FIELDS, 1)]


def test_a_path_that_begins_with_a_dash_is_no_option_of_a_command(local_bench: Bench) -> None:
    options: dict[str, Any] = {"for_each": {"files": "*/PlanInfo.txt", "pattern": "(.+)/PlanInfo.txt"}}
    command = "cd {input_dir}; cat {part}; cat {input_dir}/{part}; ls {part}; echo {part.1}"
    ctx = local_bench.context(command, **options)
    for name in ("-rf", "field-1"):
        (Path(ctx.layout.input) / name).mkdir(parents=True)
        (Path(ctx.layout.input) / name / "PlanInfo.txt").write_text(f"{name}\n")

    first, second = run_all(local_bench, command, ctx, **options)

    assert first.split() == ["-rf", "-rf", "./-rf/PlanInfo.txt", "-rf"]
    assert second.split() == ["field-1", "field-1", "field-1/PlanInfo.txt", "field-1"]


def test_directories_match_as_well_and_groups_are_placeholders(bench: Bench) -> None:
    option = {"files": "*", "pattern": r"(\d{8})(?P<time>\d{6})"}
    command = "echo {part.1} {part.time} {part.2} {part}"
    ctx = bench.context(command, for_each=option)
    give_input(bench, ctx)

    assert listed(ctx).facts["passed_over"] == 2  # PlanInfo.txt and empty
    assert run_all(bench, command, ctx, for_each=option)[0] == "20260101 120000 120000 20260101120000"


def test_each_line_that_an_earlier_step_wrote_is_a_part(bench: Bench) -> None:
    options = {"for_each": {"output_of": "interpret", "lines": "csv/beams.txt"}}
    command = "printf '%s' {part}"
    ctx = bench.context(command, **options)
    ctx.earlier = [Earlier("interpret", "", 2)]
    file = Path(ctx.layout.work("interpret", "", 2)) / "csv" / "beams.txt"
    file.parent.mkdir(parents=True)
    file.write_bytes('\ufeffBeam 1\r\n\r\n  it\'s $(id) "2"\n\nBeam ü\n'.encode())

    assert run_all(bench, command, ctx, **options) == ["Beam 1", 'it\'s $(id) "2"', "Beam ü"]


def test_each_text_of_a_list_is_a_part(local_bench: Bench) -> None:
    command, options = "echo {part}", {"for_each": ["left", "right"]}

    assert run_all(local_bench, command, local_bench.context(command, **options), **options) == ["left", "right"]


def test_listed_again_the_parts_are_the_same_and_each_keeps_its_text(local_bench: Bench) -> None:
    """A worker that was given up may list late: the list that the case goes by must not change under it."""
    ctx = local_bench.context("echo {part}", for_each=["a", "b"])
    first = listed(ctx)
    other = local_bench.context("echo {part}", for_each=["x", "y", "z"])

    late = listed(other)

    assert (first.facts["parts"], late.facts["parts"]) == (2, 3)
    second = parts_of(local_bench, "echo {part}", first, for_each=["a", "b"])[1]
    local_bench.drive(second)
    assert local_bench.log(second) == "b\n"


def test_what_a_plan_reports_holds_no_text_and_no_hash_that_could_be_guessed(local_bench: Bench) -> None:
    ctx = local_bench.context("echo {part}", for_each=["Meier_Anna"])
    one, two = listed(ctx).facts, listed(ctx).facts

    assert "Meier" not in json.dumps(dict(one))
    assert one["plan"] != two["plan"], "the same names make another hash each time"


def test_a_list_that_was_changed_on_the_host_is_not_used(local_bench: Bench) -> None:
    ctx = local_bench.context("echo {part}", for_each=["a"])
    plan = listed(ctx)
    (file,) = (Path(ctx.layout.root) / ".parts").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"b"'))

    (part,) = parts_of(local_bench, "echo {part}", plan, for_each=["a"])
    with pytest.raises(GiveUp, match="was changed there"):
        local_bench.turn(part)
    file.unlink()
    with pytest.raises(GiveUp, match="is not on far any more"):
        local_bench.turn(part)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"files": "*/Nothing.txt"}, "gives no part: there are no such files"),
        ({"files": "*", "pattern": "x+"}, "gives no part; `pattern` fits none of 5 files"),
        ({"files": "*/PlanInfo.txt", "most": 2}, "gives 3 parts, and `most` is 2"),
    ],
)
def test_no_part_and_too_many_parts_give_up_without_a_name(
    local_bench: Bench, option: dict[str, Any], reason: str
) -> None:
    ctx = local_bench.context("echo {part}", for_each=option)
    give_input(local_bench, ctx)

    with pytest.raises(GiveUp) as raised:
        listed(ctx)

    assert reason in raised.value.message
    assert "PlanInfo" not in raised.value.message + raised.value.hint


def test_missing_places_are_named(local_bench: Bench) -> None:
    with pytest.raises(GiveUp, match="input is not on the host"):
        listed(local_bench.context("echo {part}", for_each={"files": "*"}))
    ctx = local_bench.context("echo {part}", for_each={"output_of": "interpret", "lines": "beams.txt"})
    with pytest.raises(GiveUp, match="has not finished"):
        listed(ctx)
    ctx.earlier = [Earlier("interpret", "", 1)]
    with pytest.raises(GiveUp, match="left no file where `lines`"):
        listed(ctx)


def test_a_line_with_control_characters_is_no_part(local_bench: Bench) -> None:
    ctx = local_bench.context("echo {part}", for_each={"output_of": "interpret", "lines": "beams.txt"})
    ctx.earlier = [Earlier("interpret", "", 1)]
    work = Path(ctx.layout.work("interpret", "", 1))
    work.mkdir(parents=True)
    (work / "beams.txt").write_bytes(b"good\nb\x1bad\n")

    with pytest.raises(GiveUp, match="1 of 2 lines can't stand for a part: a text with control characters"):
        listed(ctx)


@pytest.mark.parametrize(
    ("text", "pattern", "said"),
    [
        ("Meier\nb\n\n  Meier \n", None, "lines 1 and 4 are the same"),
        ("a\nMeier\na\na\nMeier", None, "lines 1 and 3, and 2 more are the same"),
        ("#\n#\nb7\nc\nb7\n", r"b(\d)", "lines 3 and 5 are the same"),
        ("#\n#\nb7\n", r"b(\d)", ""),  # what becomes no part may be equal
    ],
)
def test_equal_lines_are_told_by_their_numbers_as_a_list_refuses_equal_texts(
    local_bench: Bench, text: str, pattern: str | None, said: str
) -> None:
    option = {"output_of": "interpret", "lines": "beams.txt", "pattern": pattern}
    ctx = local_bench.context("echo {part}", for_each=option)
    ctx.earlier = [Earlier("interpret", "", 1)]
    work = Path(ctx.layout.work("interpret", "", 1))
    work.mkdir(parents=True)
    (work / "beams.txt").write_text(text)
    if not said:
        assert listed(ctx).facts["parts"] == 1
        return

    with pytest.raises(GiveUp, match=said) as raised:
        listed(ctx)

    assert "Meier" not in raised.value.message + raised.value.hint


def test_a_later_run_gets_the_parts_side_by_side_in_one_directory(bench: Bench) -> None:
    fan = {"for_each": ["a", "b", "c"]}
    plan = listed(bench.context("x {part}", **fan))
    for ctx in parts_of(bench, "echo {part} >dose", plan, **fan):
        bench.drive(ctx)
    total = bench.context("ls {step.simulate}; cat {step.simulate}/*/dose", name="total")
    total.earlier = [Earlier("simulate", "", 1, plan.facts), *(Earlier("simulate", str(n), 1) for n in (1, 2, 3))]

    bench.drive(total)

    assert bench.log(total).split() == ["1", "2", "3", "a", "b", "c"]
    assert not list(bench.work(total).iterdir()), "the links lie beside the work directory, not among the results"


def test_a_step_that_fans_out_alike_gets_the_work_directory_of_the_same_part(local_bench: Bench) -> None:
    bench, fan = local_bench, {"for_each": ["a", "b"]}
    ctx = bench.context("echo {part} {step.simulate}", name="check", part="2", **fan)
    before = RunOptions(host="far", name="simulate", command="x {part}", **fan)
    ctx.workflow = Workflow("qa", (Step("simulate", RUN, before), *ctx.workflow.steps))
    plan = listed(ctx)
    ctx.earlier = [
        Earlier("simulate", "", 1, plan.facts), Earlier("simulate", "1", 1), Earlier("simulate", "2", 3),
        Earlier("check", "", 1, plan.facts),
    ]  # fmt: skip

    bench.drive(ctx)

    assert bench.log(ctx).split() == ["b", str(ctx.layout.work("simulate", "2", 3))]


def test_a_config_that_changed_under_a_case_is_said_rather_than_guessed(local_bench: Bench) -> None:
    with pytest.raises(GiveUp, match="`for_each` of step simulate was changed"):
        local_bench.turn(local_bench.context("echo {part}", for_each=["a"]))
    with pytest.raises(GiveUp, match="`for_each` of step simulate was changed"):
        local_bench.turn(local_bench.context("echo", part="1"))
    with pytest.raises(GiveUp, match="`for_each` of step simulate was changed"):
        listed(local_bench.context("echo"))


def test_hints_name_the_part(local_bench: Bench) -> None:
    fan = {"for_each": ["a"]}
    (ctx,) = parts_of(local_bench, "exit 3 # {part}", listed(local_bench.context("x {part}", **fan)), **fan)

    with pytest.raises(GiveUp) as raised:
        local_bench.drive(ctx)

    assert "mqi exec logs cabcdefghij simulate --part 1" in raised.value.hint


def options(**changes: Any) -> RunOptions:
    return RunOptions(**({"host": "far", "command": "x {part}", "for_each": ["a"]} | changes))


@pytest.mark.parametrize(
    "for_each",
    [
        [],
        ["a", "a"],
        ["a\nb"],
        [" "],
        {"files": "/etc/*"},
        {"files": "../*"},
        {"files": "a/**/b"},
        {"files": "*", "items": ["a"]},
        {"files": "*", "lines": "beams.txt"},
        {"lines": "beams.txt"},
        {"output_of": "interpret"},
        {"files": "*", "pattern": "("},
        {"files": "*", "most": 501},
        {"file": "*"},
        {},
        "beams",
    ],
)
def test_what_can_not_be_fanned_out_over_is_refused(for_each: Any) -> None:
    with pytest.raises(ValidationError):
        options(for_each=for_each)


def check(before: RunOptions, after: RunOptions) -> list[str]:
    steps = [Step("upload", UPLOAD, StepOptions()), Step("interpret", RUN, before), Step("simulate", RUN, after)]
    return check_run(steps, 2, HOSTS | {"other": HOSTS["far"]})


LINES = {"output_of": "interpret", "lines": "beams.txt"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"for_each": LINES | {"output_of": "interprt"}}, "no step before this one is named interprt"),
        ({}, {"for_each": LINES | {"output_of": "upload"}}, "a step upload has no work directory"),
        ({"host": "other"}, {"for_each": LINES}, "step interpret runs on host other"),
        ({"for_each": ["a"], "command": "{part}"}, {"for_each": LINES}, "fans out itself"),
        ({}, {"for_each": None, "command": "x {part}"}, "the step has no `for_each`"),
        ({}, {"for_each": None, "command": "x {part.1}"}, "the step has no `for_each`"),
        ({}, {"command": "x {part.1}"}, "`for_each` has no `pattern` with groups"),
        (
            {}, {"for_each": {"files": "*", "pattern": "(?P<beam>.)"}, "command": "{part.field}"}, "it has: 1, beam",
        ),
        ({}, {"command": "x"}, "all parts would do the same"),
    ],
)  # fmt: skip
def test_a_fan_out_is_checked_where_it_stands(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    problems = check(options(**({"for_each": None, "command": "x"} | before)), options(**after))

    assert len(problems) == 1 and said in problems[0]


def test_a_pattern_has_to_fit_the_whole_text_and_a_group_that_takes_no_part_is_empty() -> None:
    option = ForEach(output_of="a", lines="b", pattern=r"(\d+)(?:,(?P<unit>\w+))?")

    parts = select(["beam,unit", "1,MU", "2", "3,MU,more"], option)

    assert [(part.text, part.groups) for part in parts] == [
        ("1,MU", {"1": "1", "2": "MU", "unit": "MU"}),
        ("2", {"1": "2", "2": "", "unit": ""}),
    ]
