"""Which values of a config stay as they are written: text for a host's shell, whose `$` is that shell's, not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from mqi_cli.config import shape
from mqi_cli.config.problems import KeyPath
from mqi_cli.config.values import AsWritten
from mqi_cli.config.workflows import Offer


def as_written(data: Mapping[str, Any], offer: Offer) -> frozenset[KeyPath]:
    """Return where such values stand, by what the plugins' models say of their keys."""
    return frozenset(_found(data, offer))


def _found(data: Mapping[str, Any], offer: Offer) -> Iterator[KeyPath]:
    for name, section in offer.sections.items():
        yield from _in_model(section.model, data.get(name), (name,))
    for name, host in _items(data.get("hosts")):
        kind = host.get("type") if isinstance(host, dict) else None
        if isinstance(kind, str) and kind in offer.host_types:
            yield from _in_model(offer.host_types[kind].model, host, ("hosts", name))
    for name, steps in _items(data.get("workflows")):
        for index, step in enumerate(steps if isinstance(steps, list) else ()):
            for stage, options in _items(step):
                if stage in offer.stages:
                    yield from _in_model(offer.stages[stage].options, options, ("workflows", name, index, stage))


def _in_model(model: shape.Model, raw: Any, path: KeyPath) -> Iterator[KeyPath]:
    fields = shape.keys_of(model)
    for key, value in _items(raw):
        field = fields.get(key)
        if field is not None and _is_marked(field):
            yield (*path, key)
        elif field is not None:
            yield from _in_value(field.annotation, value, (*path, key))


def _in_value(annotation: Any, raw: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Look into a value that is a model, or a list or mapping of such."""
    if isinstance(raw, list) and (items := shape.items_of(annotation)) is not None:
        for index, item in enumerate(raw):
            yield from _in_value(items, item, (*path, index))
    elif isinstance(raw, dict):
        for inner in shape.models_in(annotation):
            yield from _in_model(inner, raw, path)
        if (values := shape.values_of(annotation)) is not None:
            for key, value in raw.items():
                yield from _in_value(values, value, (*path, key))


def _is_marked(field: FieldInfo) -> bool:
    return any(isinstance(each, AsWritten) for each in (*field.metadata, *_metadata_in(field.annotation)))


def _metadata_in(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for each in get_args(annotation):
        yield from _metadata_in(each)


def _items(raw: Any) -> Iterator[tuple[Any, Any]]:
    return iter(raw.items()) if isinstance(raw, dict) else iter(())
