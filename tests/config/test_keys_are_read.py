"""No key of the config is dead: what an operator may write, some code reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mqi_cli
from mqi_cli.config import shape
from mqi_cli.config.model import CoreSections
from mqi_cli.plugins import load_plugins
from mqi_cli.stage import StepOptions

ROOT = Path(mqi_cli.__file__).parent.parent


def nested(model):
    """Yield a model and all that its keys hold."""
    yield model
    for field in shape.keys_of(model).values():
        for annotation in (field.annotation, shape.items_of(field.annotation), shape.values_of(field.annotation)):
            for inner in shape.models_in(annotation):
                yield from nested(inner)


def keys():
    plugins = load_plugins(environ={})
    own = {each.name for each in plugins.found if each.distribution == "mqi-cli"}
    models = [CoreSections, *(each.model for each in plugins.host_types.values())]
    models += [each.model for name, each in plugins.sections.items() if plugins.owner_of("section", name) in own]
    models += [each.options for name, each in plugins.stages.items() if plugins.owner_of("stage", name) in own]
    found = {}
    for model in models:
        for each in nested(model):
            for attribute in each.model_fields:
                defined = next(
                    base for base in reversed(each.__mro__) if attribute in getattr(base, "model_fields", {})
                )
                found[f"{defined.__name__}.{attribute}"] = (defined, attribute)
    return found


KEYS = keys()


def reads(tree):
    """Yield the attributes that a module reads, by `x.name` or by `getattr(x, "name")`; a model's own body counts not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from (each.value for each in node.args[1:2] if isinstance(each, ast.Constant))


@pytest.fixture(scope="module")
def read_in():
    """Return the files that read each attribute."""
    found = {}
    for folder in ("mqi_cli", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for attribute in reads(ast.parse(file.read_bytes())):
                found.setdefault(attribute, set()).add(file)
    return found


@pytest.mark.parametrize("key", sorted(KEYS))
def test_some_code_reads(read_in, key):
    model, attribute = KEYS[key]
    own = {
        Path(ROOT, *model.__module__.split(".")).with_suffix(".py"),
        Path(ROOT, "plugins", *model.__module__.split(".")).with_suffix(".py"),
    }
    if model is StepOptions:
        own = set()  # `Step`, beside it, is what reads it for everybody

    assert read_in.get(attribute, set()) - own, f"{key} is read by no code; drop it or use it"
