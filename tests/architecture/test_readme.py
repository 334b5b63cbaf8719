"""What the README says is so: its config loads, its commands are there, its tables are the code's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mqi_cli import errors, hookspecs
from mqi_cli.case import CaseState
from mqi_cli.cli.main import app
from mqi_cli.config.load import load_config
from mqi_cli.plugins import load_plugins
from mqi_cli.watch import picture

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands_named(text: str) -> list[tuple[str, ...]]:
    """Return every `mqi …` in code as the words of a command; `a|b` stands for each of both."""
    found: set[tuple[str, ...]] = set()
    for word, rest in re.findall(r"(?:`|\$ |\bthen )mqi ([a-z]+)((?: [a-z\\|]+)?)", text):
        choices = [choice for choice in rest.strip().replace("\\|", "|").split("|") if choice]
        found |= {(word, choice) for choice in choices} or {(word,)}
    return sorted(found)


def rows(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def table_below(heading: str) -> list[list[str]]:
    """Return the first table whose head begins so."""
    _, found, rest = README.partition(f"\n{heading}")
    assert found, f"the README has no table that begins with {heading}"
    return rows(heading + rest.partition("\n\n")[0])


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_the_config_example_has_no_problems(tmp_path: Path) -> None:
    whole, _, broker = EXAMPLES
    secret = tmp_path / "broker.secret"
    secret.write_text("a password")
    secret.chmod(0o600)
    path = tmp_path / "mqi.yaml"
    path.write_text(whole + broker.replace("/etc/mqi/broker.secret", str(secret)))

    config = load_config(path, load_plugins())

    assert list(config.hosts) == ["hpc"]
    steps = [step.name for step in config.workflows["default_qa"].steps]
    assert steps == ["upload", "interpret", "simulate", "download", "archive"]
    assert config.broker is not None


def test_the_config_example_stands_without_the_broker_too(tmp_path: Path) -> None:
    path = tmp_path / "mqi.yaml"
    path.write_text(EXAMPLES[0])
    assert "broker" not in yaml.safe_load(EXAMPLES[0])
    assert load_config(path, load_plugins()).broker is None


def test_the_example_of_a_step_for_each_beam_fits_into_the_first(tmp_path: Path) -> None:
    config = yaml.safe_load(EXAMPLES[0])
    (step,) = yaml.safe_load(EXAMPLES[1])
    steps = config["workflows"]["default_qa"]
    config["workflows"]["default_qa"] = [step if "simulate" in str(each) else each for each in steps]
    path = tmp_path / "mqi.yaml"
    path.write_text(yaml.safe_dump(config))

    simulate = load_config(path, load_plugins()).workflows["default_qa"].step("simulate")

    assert simulate is not None and simulate.fans_out


def test_the_readme_names_commands() -> None:
    assert {("case", "why"), ("doctor",), ("transfer", "verify"), ("daemon", "undrain")} <= set(commands_named(README))


@pytest.mark.parametrize("words", commands_named(README), ids=" ".join)
def test_each_command_that_the_readme_names_has_help(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "-h"])
    assert result.exit_code == 0, result.output
    assert f"mqi {' '.join(words)}" in " ".join(result.output.split())


def test_the_hook_table_is_the_contract() -> None:
    written = [
        f"{name}({', '.join(inspect.signature(function).parameters)})"
        for name, function in vars(hookspecs).items()
        if hasattr(function, f"{hookspecs.PROJECT}_spec")
    ]
    assert [row[0].strip("`") for row in table_below("| hook | gives |")] == written


def test_the_state_table_names_every_state() -> None:
    assert [row[0] for row in table_below("| state | meaning |")] == [state.value for state in CaseState]


def test_the_exit_code_table_names_every_exit_code() -> None:
    told = {int(code) for row in table_below("| exit code |") for code in (row[0], row[2])}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_the_picture_shows_what_mqi_watch_draws(tmp_path: Path) -> None:
    def words(picture: str) -> set[str]:
        return set(
            re.findall(r">([^<>]{3,})</text>", picture)
        )  # the drawing around them differs from one Rich to the next

    target = tmp_path / "watch.svg"
    picture.main(target)
    assert words(target.read_text()) == words((ROOT / "docs" / "watch.svg").read_text()), "make picture"


@pytest.mark.soak
def test_the_first_case_goes_through_when_the_commands_are_pasted_as_they_stand(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    script = (
        block.replace("mqi watch ", "mqi watch --once ")
        + """
for each in $(seq 120); do [ "$(mqi case list --json | grep -c '"done"')" = 1 ] && break; sleep 1; done
mqi case log case-001
cmp incoming/case-001/numbers.txt results/case-001/numbers.txt; same=$?
mqi daemon stop
exit $same
"""
    )
    environment = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all steps done" in done.stdout
    assert "mqi: " not in done.stderr
