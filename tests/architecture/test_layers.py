"""The house's rules that no type checker knows: who may import whom, read from the source of every module.

An import inside a function counts as any other; one under `TYPE_CHECKING` never runs and doesn't count.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mqi_cli

ROOT = Path(__file__).parents[2]
SOURCES = {"mqi_cli": ROOT, **{path.name: path.parent for path in sorted((ROOT / "plugins").glob("mqi_*"))}}

# From the ground up: a module imports from its own layer and from those above it in this table, and within a layer there
# are no circles. `config.*` means the package and all in it that no layer names. A new module is given its place here.
LAYERS = {
    "ground": "errors clock crash_points quantity printable retry restarts signals sqlite lock invocation notify child forked machine "
    "hosts.streams",
    "words": "case manifest earlier message layout placeholders",
    "borders": "hosts.base scheduler broker.base broker.doorbell",
    "what plugins give": "stage step_digest fetched patrol check hookspecs sources testing",
    "config": "config.*",
    "hosts and brokers": "hosts.* broker.*",
    "plugins": "discovery contract plugins plugin_trial scaffold",
    "store": "store.*",
    "logs": "logs logfile logbook",
    "conductor": "condition standing obstacles dispatch moves conductor claims acts intake clockwork host_pool",
    "worker": "turn worker patrolling conductor_process",
    "daemon": "crew launch daemon announce supervised supervisor daemon_process processes unit",
    "views": "further_workers core_checks doctor watch.* demo.*",
    "command line": "cli.* __main__",
}

# Two halves of one thing, split for their length; the import stands in a function, where the second half is begun.
CIRCLES = {
    ("store.database", "store.backup"): "a migration makes a backup before it begins",
}

# Each library's errors become ours in the one package that imports it.
OWNERS = {"paramiko": "mqi_cli.hosts", "pika": "mqi_cli.broker.amqp", "peewee": "mqi_cli.store"}

# What a plugin may import beside the face and the standard library. typing_extensions comes with pydantic.
FOR_PLUGINS = frozenset({"mqi_cli", "pydantic", "typer", "rich", "yaml", "typing_extensions"})


def modules_of(package: str) -> dict[str, Path]:
    """Return each module of a package by its dotted name."""
    root = SOURCES[package]
    found = sorted((root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in found}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each import that runs, as module and name (empty for `import module`)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from imports_of(ast.Module([other], []))
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)
        yield from imports_of(node)


CORE = {name.removeprefix("mqi_cli."): path for name, path in modules_of("mqi_cli").items() if name != "mqi_cli"}


def core_imports(path: Path) -> set[str]:
    """Return the core's modules that a file imports, without the leading `mqi_cli.`."""
    found = set()
    for module, name in imports_of(ast.parse(path.read_text())):
        if module == "mqi_cli" or module.startswith("mqi_cli."):
            inner = module.removeprefix("mqi_cli").lstrip(".")
            whole = f"{inner}.{name}".lstrip(".")
            found.add(whole if whole in CORE else inner)
    return found - {""}  # the face itself: its version


IMPORTS = {module: core_imports(path) - {module} for module, path in CORE.items()}


def layer_of(module: str) -> str | None:
    """Return the layer that names a module, or else its package."""
    for pattern in (module, f"{module}.*", f"{module.rpartition('.')[0]}.*", f"{module.partition('.')[0]}.*"):
        for layer, names in LAYERS.items():
            if pattern in names.split():
                return layer
    return None


def test_every_module_of_the_core_has_its_layer() -> None:
    assert [module for module in CORE if layer_of(module) is None] == []
    named = [name for names in LAYERS.values() for name in names.split()]
    assert [name for name in named if name.removesuffix(".*") not in CORE] == [], "layers name modules that are gone"
    assert len(named) == len(set(named))


def test_imports_run_downwards_only() -> None:
    order = list(LAYERS)
    upwards = [
        f"{module} ({layer_of(module)}) imports {other} ({layer_of(other)})"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if order.index(str(layer_of(other))) > order.index(str(layer_of(module)))
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    for module, other in CIRCLES:
        assert other in IMPORTS[module], f"{module} no longer imports {other}: take the exception away"
    graph = {
        module: {other for other in others if (module, other) not in CIRCLES} for module, others in IMPORTS.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_the_one_package_that_translates_its_errors(library: str) -> None:
    owner = OWNERS[library]
    found = {
        name
        for package in SOURCES
        for name, path in modules_of(package).items()
        for module, _ in imports_of(ast.parse(path.read_text()))
        if module.partition(".")[0] == library
    }
    assert found, f"nothing imports {library}"
    assert [name for name in sorted(found) if name != owner and not name.startswith(f"{owner}.")] == []


@pytest.mark.parametrize("plugin", [package for package in SOURCES if package != "mqi_cli"])
def test_a_plugin_imports_only_the_face_and_what_everybody_has(plugin: str) -> None:
    allowed = FOR_PLUGINS | sys.stdlib_module_names | {plugin}
    foreign = []
    for name, path in modules_of(plugin).items():
        for module, _ in imports_of(ast.parse(path.read_text())):
            if module.partition(".")[0] not in allowed or module.startswith("mqi_cli."):
                foreign.append(f"{name} imports {module}")
    assert foreign == []


@pytest.mark.parametrize("plugin", [package for package in SOURCES if package != "mqi_cli"])
def test_a_plugin_takes_only_names_that_the_face_offers(plugin: str) -> None:
    offered = {*mqi_cli._FACE, "__version__"}
    unknown = [
        f"{name} imports {taken}"
        for name, path in modules_of(plugin).items()
        for module, taken in imports_of(ast.parse(path.read_text()))
        if module == "mqi_cli" and taken not in offered
    ]
    assert unknown == []


@pytest.mark.parametrize("name", mqi_cli._FACE)
def test_every_name_of_the_face_leads_somewhere(name: str) -> None:
    owner = importlib.import_module(f"mqi_cli.{mqi_cli._FACE[name]}")
    assert getattr(mqi_cli, name) is getattr(owner, name)


def test_type_checkers_see_the_same_face() -> None:
    tree = ast.parse((ROOT / "mqi_cli" / "__init__.py").read_text())
    seen = {
        alias.asname or alias.name: str(node.module).removeprefix("mqi_cli.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mqi_cli.")
        for alias in node.names
    }
    assert seen == mqi_cli._FACE
