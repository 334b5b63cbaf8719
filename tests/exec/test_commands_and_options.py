"""Placeholders and options: every problem is found when the config is read, and values are quoted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exec.turns import RUN, UPLOAD
from mqi_cli import Step, StepOptions
from mqi_cli.config.model import LocalHostSection
from mqi_ssh_exec.command import check_command, check_quoting, fill, script, steps_named, uses
from mqi_ssh_exec.options import RunOptions, check_run

HOSTS = {name: LocalHostSection(type="local", base_dir="/scratch/mqi") for name in ("hpc", "other")}


def test_a_command_without_placeholders_has_no_problem() -> None:
    assert check_command("awk '{{print $1}}' ${{HOME}}/x > $OUT") == []


def test_every_problem_of_a_command_is_named() -> None:
    problems = check_command("run {case_name} {input} {work_dir} { {print $1} } {}")
    assert len(problems) == 6
    assert "patient" in problems[0] and "{case_key}" in problems[0]
    assert "{input} is not one of {input_dir}" in problems[1]
    assert "single { at character 36" in problems[2]
    assert "{{print $1}}" in problems[3]
    assert "single }" in problems[4]


def test_placeholders_are_found() -> None:
    command = "a {step.interpret}/x {step.interpret} {{step.no}} {step.two-b} {gpu_ids}"
    assert steps_named(command) == ["interpret", "two-b"]
    assert uses(command, "gpu_ids", "part") and not uses(command, "part")


def test_values_are_quoted_and_literal_braces_kept() -> None:
    value = 'it\'s $(id) "x" {part}'
    text = fill("printf %s {input_dir}; echo '{{x}}'", {"input_dir": value})
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == value + "{x}\n"


HOSTILE = "x$(touch gotcha)`touch gotcha`';touch gotcha;'\";touch gotcha;\"\\"


@pytest.mark.parametrize(
    "command",
    [
        "printf %s {part}",
        'X={part}; printf %s "$X"',
        'X=$(printf %s {part}; echo); printf %s "$X"',
        'X="$(printf %s {part})"; printf %s "$X"',
        "printf '%s' {part} # don't",
        '# don\'t\nprintf "%s" {part.field}',
        "(printf %s \\'{part.1} | tail -c +2)",
        "echo $((1 << 2)) >/dev/null; printf %s {part}",
        "awk 'END {{print}}' </dev/null >&2; printf %s {part}",
    ],
)
def test_a_parts_text_is_an_argument_and_never_read_as_shell(command: str, tmp_path: Path) -> None:
    assert check_quoting(command) == [] == check_command(command)
    text = fill(command, {"part": HOSTILE, "part.field": HOSTILE, "part.1": HOSTILE})
    done = subprocess.run(["sh"], input=text.encode(), capture_output=True, cwd=tmp_path)
    assert done.stdout.decode().removesuffix("\n") == HOSTILE, done.stderr
    assert not (tmp_path / "gotcha").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ('printf %s "{part}"', "{part} stands inside quotes"),
        ("printf %s '{part}'", "{part} stands inside quotes"),
        ('sh -c "echo {part.field}"', "{part.field} stands inside quotes"),
        ("X=`printf %s {part}`", "{part} stands inside backquotes"),
        ("X=`printf %s $(echo {part})`", "{part} stands inside backquotes"),
        ('X="${{Y:-{part}}}"', "{part} stands inside quotes"),
        ("printf %s \\{part}", "{part} stands behind a backslash"),
        ("cat <<EOF\n{part}\nEOF", "here-document"),
        ("cat <<-'EOF'\n{part}\nEOF", "here-document"),
    ],
)
def test_a_parts_text_where_the_shell_would_read_it_is_refused(command: str, said: str) -> None:
    assert said in "; ".join(check_quoting(command))
    assert said in "; ".join(check({"command": command, "for_each": {"files": "*"}}))
    assert check_quoting(command.replace("part.field", "part").replace("{part}", "{work_dir}")) == []


@pytest.mark.parametrize(
    ("command", "on_the_host"),
    [
        ("a $$ $HOME ${HOME} ${HOME:-${TMPDIR}} ${#A} ${A%.*}", None),
        ("> /tmp/scratch.$$", None),
        ("> /tmp/scratch.$$.{part_index}", "> /tmp/scratch.$$.7"),
        ("> /tmp/scratch.$${part_index}", "> /tmp/scratch.$$7"),
        ("$$$HOME $$${HOME} \\$${HOME}", None),
        ('"${HOME}"/{part_index}', '"${HOME}"/7'),
        ("${{HOME}} ${{A:-{part_index}}}", "${HOME} ${A:-7}"),
        ("$${HOME} $${{HOME}} $${{A:-x}}", "${HOME} ${HOME} ${A:-x}"),  # as it was written when `$$` was a `$`
    ],
)
def test_what_the_shell_of_the_host_is_to_read_reaches_it_as_it_stands(command: str, on_the_host: str | None) -> None:
    assert check_command(command) == [] == check_quoting(command)
    assert fill(command, {"part_index": "7"}) == (on_the_host or command)


def test_a_placeholder_that_is_written_like_a_variable_is_told() -> None:
    assert check_command("cat ${input_dir}/x ${part.field}") == [
        "${input_dir} would be a variable of the host's shell; the placeholder is {input_dir}",
        "${part.field} would be a variable of the host's shell; the placeholder is {part.field}",
    ]


@pytest.mark.parametrize(
    "command", ['${A:-"} {part} "}', "${A:-$(} {part} )}", "${A:-'} {part} '}", "${A:-\\} {part} }"]
)
def test_a_variable_of_the_shell_hides_no_quotes_in_which_a_parts_text_would_be_read(command: str) -> None:
    assert "a literal brace is written twice" in check_command(command)[0]


def test_the_environment_reaches_the_command_as_it_is() -> None:
    value = "line\nbreak $(id) 'q'"
    done = subprocess.run(["sh"], input=script('printf %s "$V"', {"V": value}), capture_output=True, check=True)
    assert done.stdout.decode() == value


def options(**changes: Any) -> RunOptions:
    return RunOptions(**({"host": "hpc", "command": "true"} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ""},
        {"outputs": ["/etc/passwd"]},
        {"outputs": ["../x"]},
        {"outputs": ["a/**/b"]},
        {"outputs": [""]},
        {"time_limit": "0s"},
        {"gpus": -1},
        {"log_must_contain": "two\nlines"},
        {"log_must_contain": ""},
        {"log_must_contain": "/(/"},
        {"log_must_not_contain": r"/batch \d+/"},
        {"environment": {"A B": "x"}},
        {"environment": {"MQI_JOB": "x"}},
        {"log_limit": "1kB"},
        {"unknown": 1},
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**changes)


def test_one_text_or_several_may_be_asked_of_the_log() -> None:
    assert options(log_must_contain="one").log_must_contain == ("one",)
    assert options(log_must_not_contain=["one", "two"]).log_must_not_contain == ("one", "two")
    assert options(log_must_contain=[r"/a\.b[[:space:]]\\d/", r"\d"]).log_must_contain == (
        r"/a\.b[[:space:]]\\d/",
        r"\d",
    )


def check(*changes: dict[str, Any]) -> list[str]:
    """Check the last of some run steps after an upload."""
    steps = [Step("upload", UPLOAD, StepOptions())]
    steps += [Step(f"run{number}", RUN, options(**each)) for number, each in enumerate(changes)]
    return check_run(steps, len(steps) - 1, HOSTS)


def test_a_sound_step_has_no_problem() -> None:
    assert check({}, {"command": "x {step.run0}/a {input_dir} {gpu_ids}", "gpus": 1}) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("{step.later}", "no step before this one has that name (run steps before it: run0)"),
        ("{step.run1}", "no step before this one has that name"),
        ("{step.upload}", "a step upload has no work directory"),
        ("{gpu_ids}", "`gpus` is 0"),
        ("{gpu_uuids}", "`gpus` is 0"),
        ("{nonsense}", "{nonsense} is not one of"),
    ],
)
def test_a_command_is_checked_where_it_stands(command: str, said: str) -> None:
    problems = check({}, {"command": command})
    assert len(problems) == 1 and said in problems[0]


def test_a_work_directory_on_another_host_is_out_of_reach() -> None:
    problems = check({"host": "other"}, {"command": "{step.run0}"})
    assert problems == ["`command`: {step.run0}: it ran on host other, this one runs on hpc"]


def test_a_base_directory_that_breaks_quoting_is_refused() -> None:
    odd = {"hpc": LocalHostSection(type="local", base_dir="/scratch/my data")}
    assert "base_dir of hpc" in check_run([Step("run", RUN, options())], 0, odd)[0]


def test_a_text_both_wanted_and_forbidden_is_refused() -> None:
    assert "the same text" in check({"log_must_contain": "x", "log_must_not_contain": "x"})[0]
