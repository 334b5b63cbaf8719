"""The config as a JSON Schema (draft 2020-12) for editors: the core's sections, and what the installed plugins bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mqi_cli.config import shape
from mqi_cli.config.model import (
    NAME,
    BrokerSection,
    CoreSections,
    DaemonSection,
    LaneSection,
    PluginsSection,
    SourceSection,
    StateSection,
)
from mqi_cli.config.workflows import Offer

_SECTIONS: dict[str, type[BaseModel]] = {
    "state": StateSection,
    "broker": BrokerSection,
    "daemon": DaemonSection,
    "plugins": PluginsSection,
}
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", "description": "From the environment."}


def json_schema(offer: Offer) -> dict[str, Any]:
    """Return the schema of a whole config file."""
    hosts = {name: each.model for name, each in offer.host_types.items()}
    stages = {name: each.options for name, each in offer.stages.items()}
    sections = _SECTIONS | {name: each.model for name, each in offer.sections.items()}
    models = list(dict.fromkeys([*sections.values(), SourceSection, LaneSection, *hosts.values(), *stages.values()]))
    references, whole = models_json_schema([(each, "validation") for each in models], by_alias=True)
    definitions = whole.get("$defs", {})
    for definition in definitions.values():
        _mend(definition)

    def named(model: type[BaseModel]) -> dict[str, Any]:
        return dict(references[(model, "validation")])

    properties: dict[str, Any] = {name: _or_nothing(named(model)) for name, model in sections.items()}
    properties["hosts"] = _by_name({"oneOf": [_typed(name, named(model)) for name, model in hosts.items()]})
    properties["sources"] = _or_nothing({"type": "array", "items": named(SourceSection)})
    properties["workflows"] = _by_name(_steps({name: named(model) for name, model in stages.items()}, stages))
    properties["workers"] = {"type": "object", "additionalProperties": _or_nothing(named(LaneSection))}
    for name, field in CoreSections.model_fields.items():
        properties[name]["description"] = field.description
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mqi.yaml",
        "type": ["object", "null"],
        "properties": {name: properties[name] for name in [*CoreSections.model_fields, *offer.sections]},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a key stand without a value, as it does when all below it is commented out."""
    return {"anyOf": [schema, {"type": "null"}]}


def _by_name(schema: dict[str, Any]) -> dict[str, Any]:
    names = {"pattern": NAME}
    return _or_nothing({"type": "object", "propertyNames": names, "additionalProperties": schema})


def _typed(name: str, reference: dict[str, Any]) -> dict[str, Any]:
    return {"allOf": [{"properties": {"type": {"const": name}}, "required": ["type"]}, reference]}


def _steps(references: dict[str, dict[str, Any]], stages: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the schema of a workflow: bare words where a stage needs no option, else one key that is the stage."""
    bare = [
        name for name, each in stages.items() if not any(field.is_required() for field in shape.keys_of(each).values())
    ]
    step = {
        "type": "object",
        "properties": {name: _or_nothing(reference) for name, reference in references.items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": bare}, step]}}


def _mend(definition: dict[str, Any]) -> None:
    """Add to a model's schema what the loader adds to the model: `<secret>_file`, `${VARIABLE}`, keys without a value."""
    properties: dict[str, Any] = definition.get("properties", {})
    required: list[str] = definition.get("required", [])
    for key, schema in list(properties.items()):
        if _is_secret(schema):
            described = schema.get("description", "")
            properties[key] = {**_VARIABLE, "description": described}
            properties[f"{key}_file"] = {
                "type": "string",
                "format": "path",
                "description": f"File with it. {described}",
            }
            if key in required:
                required.remove(key)
                definition.setdefault("allOf", []).append(
                    {"anyOf": [{"required": [key]}, {"required": [f"{key}_file"]}]}
                )
        elif key in required:
            properties[key] = _from_environment(schema)
        else:
            properties[key] = _or_nothing(_from_environment(schema))
            for kept in ("description", "default"):
                if kept in schema:
                    properties[key][kept] = schema[kept]


def _is_secret(schema: dict[str, Any]) -> bool:
    return schema.get("format") == "password" or any(_is_secret(each) for each in schema.get("anyOf", []))


def _from_environment(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a value that isn't any text come from the environment."""
    if schema.get("type") in ("integer", "number", "boolean") or "pattern" in schema or "enum" in schema:
        return {"anyOf": [schema, _VARIABLE]}
    return schema
