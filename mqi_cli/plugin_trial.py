"""Try a plugin against the contract, installed or not: one finding for each thing that was looked at."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import typer

from mqi_cli.discovery import GROUP, discover
from mqi_cli.errors import PluginError, UsageError, describe_os_error
from mqi_cli.plugins import Plugins, load_plugins


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what mends it."""

    ok: bool
    text: str
    mend: str = ""


def try_plugin(target: str, *, taken: Collection[str] = ()) -> list[Finding]:
    """Load the plugin of a module or a directory among the installed ones, and look at all that it offers.

    `taken` are the commands that `mqi` itself has. Raises `UsageError` when there is nothing to load.
    """
    directory = Path(target)
    points = _points_of(directory) if directory.is_dir() else [importlib.metadata.EntryPoint(target, target, GROUP)]
    findings: list[Finding] = []
    for point in points:
        findings += _try(point, taken)
    return findings


def _points_of(directory: Path) -> list[importlib.metadata.EntryPoint]:
    """Read the plugins that a project declares, and make its packages importable."""
    try:
        project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{directory}/pyproject.toml: {describe_os_error(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{directory}/pyproject.toml is not TOML: {error}") from error
    declared = project.get("project", {}).get("entry-points", {}).get(GROUP, {})
    if not declared:
        raise UsageError(
            f"{directory}/pyproject.toml names no plugin", hint=f'add [project.entry-points."{GROUP}"] NAME = "MODULE"'
        )
    for root in (directory / "src", directory):
        if root.is_dir():
            sys.path.insert(0, str(root.absolute()))
    return [importlib.metadata.EntryPoint(name, module, GROUP) for name, module in declared.items()]


def _try(point: importlib.metadata.EntryPoint, taken: Collection[str]) -> Iterator[Finding]:
    name = point.name
    others = [other for info, other in discover() if info.name != name and info.module != point.value]
    try:
        plugins = load_plugins(entry_points=[*others, point])
        info = next(each for each in plugins.found if each.name == name)
        if info.state == "ok":
            plugins.add_commands(typer.Typer(), taken=taken)
            brings = plugins.brings(name)
    except PluginError as error:
        yield Finding(False, error.message, error.hint)
        return
    if info.state != "ok":
        yield Finding(False, f"{name}: {info.problem}", "MQI_DEBUG=1 mqi plugin test … shows the traceback")
        return
    yield Finding(True, f"{name}: {info.module} loads")
    if info.hooks:
        yield Finding(True, f"{name}: hooks {', '.join(info.hooks)}")
    else:
        yield Finding(
            False, f"{name}: no function of {info.module} is marked @hookimpl", "from mqi_cli import hookimpl"
        )
    for kind, names in sorted(brings.items()):
        yield Finding(True, f"{name}: {kind} {', '.join(names)}")
    for section_name in brings.get("section", ()):
        yield from _try_section(plugins, name, section_name)
    for stage in brings.get("stage", ()):
        yield from _try_model(plugins.stages[stage].options, f"{name}: the options of stage {stage}")
    yield from _imports(point.value, name)


def _try_section(plugins: Plugins, name: str, section: str) -> Iterator[Finding]:
    model = plugins.sections[section].model
    try:
        model()
    except pydantic.ValidationError as error:
        keys = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        yield Finding(False, f"{name}: section {section} can't be left out", f"give a default to {keys}")
    yield from _try_model(model, f"{name}: section {section}")


def _try_model(model: type[pydantic.BaseModel], what: str) -> Iterator[Finding]:
    try:
        model.model_json_schema()
    except pydantic.errors.PydanticInvalidForJsonSchema as error:
        yield Finding(False, f"{what}: no JSON Schema can be made of it: {error.message}", "use the types of mqi_cli")
        return
    bare = [name for name, field in model.model_fields.items() if not field.description]
    if bare:
        yield Finding(False, f"{what}: without a description: {', '.join(bare)}", 'Field(…, description="…")')
    else:
        yield Finding(True, f"{what}: every key is described")


def _imports(module: str, name: str) -> Iterator[Finding]:
    """Look for imports of the core's inside, which may change with any version."""
    found: dict[str, str] = {}
    for file in _files(module):
        for node in ast.walk(ast.parse(file.read_bytes())):
            for imported in _imported(node):
                if imported.startswith("mqi_cli.") and imported != "mqi_cli.testing":
                    found.setdefault(imported, f"{file.name}:{getattr(node, 'lineno', 0)}")
    for imported, where in found.items():
        yield Finding(False, f"{name}: {where} imports {imported}", "import it from mqi_cli itself, or do without")
    if not found:
        yield Finding(True, f"{name}: imports nothing of mqi but its face")


def _files(module: str) -> list[Path]:
    package = importlib.util.find_spec(module.partition(":")[0].partition(".")[0])
    if package is None or package.origin is None:
        return []
    origin = Path(package.origin)
    return sorted(origin.parent.rglob("*.py")) if package.submodule_search_locations else [origin]


def _imported(node: Any) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []
