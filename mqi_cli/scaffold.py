"""Write a new plugin to begin from: a distribution of its own with a stage, a command, a check and a test."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mqi_cli import __version__
from mqi_cli.contract import NAME, NAME_RULE
from mqi_cli.errors import UsageError, describe_os_error

_PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "mqi-@name@"
version = "0.1.0"
description = "What @name@ does for mqi, in one sentence."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["mqi-cli>=@version@"]

[project.optional-dependencies]
test = ["pytest>=8"]

# mqi finds the plugin by this entry: its name, and the module that holds the hooks.
[project.entry-points."mqi.plugins"]
@name@ = "@module@.plugin"

[tool.hatch.build.targets.wheel]
packages = ["@module@"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--import-mode=importlib"
"""

_README = """\
# mqi-@name@

A plugin for `mqi`. It brings the stage `@name@` and the command `mqi @name@ count`.

    pip install -e '.[test]'
    mqi plugin test .         # does it keep the contract?
    mqi plugin list           # is it there?
    pytest                    # does it do what it should?

In a workflow of `mqi.yaml`:

    - @name@: {at_least: 10}

Switch it off with `plugins: {disable: [@name@]}` in `mqi.yaml`, or with `MQI_DISABLE_PLUGINS=@name@`.
"""

_PLUGIN = '''\
"""What this plugin offers to mqi. The hooks are called at each start, so they import what they need inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqi_cli import hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import Check, CheckContext, ConfigSection, Stage


@hookimpl
def mqi_config() -> ConfigSection:
    """Give the section `@section@:` of mqi.yaml."""
    from mqi_cli import ConfigSection
    from @module@.stage import @class@Section

    return ConfigSection("@section@", @class@Section)


@hookimpl
def mqi_stages() -> Sequence[Stage]:
    """Give the stage `@name@`."""
    from @module@.stage import STAGE

    return [STAGE]


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    """Add `mqi @name@`."""
    from @module@.commands import app as commands

    app.add_typer(commands, name="@name@")


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at what this plugin needs, for `mqi doctor`."""
    from mqi_cli import Check, Verdict

    if not ctx.sources:
        return [Check("@name@ sources", Verdict.WARN, "there is no source", "add one to mqi.yaml")]
    return [Check("@name@ sources", Verdict.OK, f"{len(ctx.sources)} sources")]
'''

_STAGE = '''\
"""The stage `@name@`: counts a case's files, and holds the case when there are too few."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mqi_cli import CaseRef, Done, GiveUp, RetryLater, Section, Stage, StageContext, StepOptions, Wait, describe_os_error


class @class@Section(Section):
    """Settings of @name@. Every key has a default: the section may be left out."""

    suffix: str = Field("", description="Only files whose name ends like this are counted.")


class @class@Options(StepOptions):
    """Options of step `@name@`."""

    at_least: int = Field(1, ge=0, description="A case with fewer files is held.")


def count_files(directory: Path, suffix: str) -> int:
    """Count the files below a directory. Raises `OSError`."""
    return sum(1 for each in directory.rglob("*") if each.is_file() and each.name.endswith(suffix))


def run(case: CaseRef, ctx: StageContext) -> Done | Wait:
    """Count a case's files. May be called again at any time, so it changes nothing.

    Done(facts) ends the step; Wait(seconds, note) asks to be called again; RetryLater says that the machinery failed,
    GiveUp that the case needs a person. No message names a case or a file: both may hold a patient's name.
    """
    try:
        files = count_files(case.directory, ctx.config.suffix)
    except OSError as error:
        raise RetryLater(f"the input can't be read: {describe_os_error(error)}") from error
    ctx.progress(files, files, "files")
    if files < ctx.options.at_least:
        raise GiveUp(f"{files} files, {ctx.options.at_least} are wanted", hint="complete the case, then: mqi case retry")
    return Done({"files": files})


STAGE = Stage("@name@", run, lane="@name@", options=@class@Options, summary="counts a case's files")
'''

_COMMANDS = '''\
"""`mqi @name@`: the plugin's own commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Count files, as the stage @name@ does.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `count` a command of its own while there is only one."""


@app.command()
def count(
    directory: Annotated[Path, typer.Argument(help="The directory to count in.")],
    suffix: Annotated[str, typer.Option(help="Only files whose name ends like this.")] = "",
) -> None:
    """Count the files below a directory."""
    from @module@.stage import count_files

    typer.echo(f"{count_files(directory, suffix)} files")
'''

_TEST = '''\
"""The stage `@name@`, run on directories of the test's own. `stage_kit` comes from mqi's pytest kit."""

from __future__ import annotations

import pytest

from mqi_cli import Done, GiveUp
from @module@.stage import STAGE, @class@Section


def test_the_files_of_a_case_are_counted(stage_kit):
    case = stage_kit.case(files={"a.dat": b"1", "b/c.dat": b"2", "b/d.txt": b"3"})

    end, ctx = stage_kit.run(STAGE, case, config=@class@Section(suffix=".dat"))

    assert end == Done({"files": 2})
    assert ctx.told == [(2, 2, "files")]


def test_a_case_with_too_few_files_is_held(stage_kit):
    case = stage_kit.case(files={"a.dat": b"1"})

    with pytest.raises(GiveUp, match="1 files, 2 are wanted"):
        stage_kit.run(STAGE, case, config=@class@Section(), at_least=2)
'''


def write_plugin(name: str, directory: Path, *, taken: Collection[str]) -> list[Path]:
    """Write a new plugin into a directory that isn't there yet or is empty; return its files.

    Raises `UsageError` for a name that can't be used or is `taken`, and for a directory that holds something.
    """
    if not NAME.match(name):
        raise UsageError(f"'{name}' can't name a plugin: {NAME_RULE}")
    if name in taken or name == "cli":
        raise UsageError(f"there is a plugin, stage or command '{name}' already", hint="mqi plugin list; mqi -h")
    words = [each for each in name.replace("-", "_").split("_") if each]
    texts = {"name": name, "module": "mqi_" + "_".join(words), "class": "".join(each.capitalize() for each in words)}
    texts |= {"section": name, "version": __version__}
    files = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"{texts['module']}/__init__.py": f'"""The plugin {name} of mqi."""\n',
        f"{texts['module']}/plugin.py": _PLUGIN,
        f"{texts['module']}/stage.py": _STAGE,
        f"{texts['module']}/commands.py": _COMMANDS,
        "tests/test_stage.py": _TEST,
    }
    try:
        if directory.exists() and any(directory.iterdir()):
            raise UsageError(f"{directory} holds something already", hint="give another directory")
        for path, text in files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_fill(text, texts), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{directory} can't be written: {describe_os_error(error)}") from error
    return [directory / each for each in files]


def _fill(text: str, texts: dict[str, str]) -> str:
    for key, value in texts.items():
        text = text.replace(f"@{key}@", value)
    return text
