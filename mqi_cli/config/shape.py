"""What a section's model looks like from outside: its keys, which of them are secrets, and which hold models in turn."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

Model = type[BaseModel]


def keys_of(model: Model) -> dict[str, FieldInfo]:
    """Return a model's fields by the key that the file uses: the alias (`from`) where the name can't be one in Python."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def names_of(model: Model) -> dict[str, str]:
    """Return the attribute's name of each key."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def secrets_of(model: Model) -> set[str]:
    """Return the keys that hold secrets; each has a companion `<key>_file`."""
    return {key for key, field in keys_of(model).items() if is_secret(field.annotation)}


def companion(model: Model, key: str) -> str:
    """Return the secret that `<secret>_file` stands for; "" when `key` is none of these."""
    secret = key.removesuffix("_file")
    return secret if secret != key and key not in keys_of(model) and secret in secrets_of(model) else ""


def is_secret(annotation: Any) -> bool:
    """Whether a value of this type is a secret."""
    return any(each is SecretStr for each in _alternatives(annotation))


def takes_none(annotation: Any) -> bool:
    """Whether `null` is a value of this type."""
    return any(each is type(None) or each is Any for each in _alternatives(annotation))


def is_text(annotation: Any) -> bool:
    """Whether a value of this type is a plain text."""
    return any(each is str for each in _alternatives(annotation))


def models_in(annotation: Any) -> list[Model]:
    """Return the models that a mapping of this type may be."""
    return [each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]


def values_of(annotation: Any) -> Any:
    """Return the type of a mapping's values; None when this type is no mapping."""
    for each in _alternatives(annotation):
        arguments = get_args(each)
        if _is_origin(each, Mapping) and len(arguments) == 2:
            return arguments[1]
    return None


def items_of(annotation: Any) -> Any:
    """Return the type of a list's items; None when this type is no list."""
    for each in _alternatives(annotation):
        if any(_is_origin(each, kind) for kind in (list, tuple, set, frozenset)) and get_args(each):
            return get_args(each)[0]
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def _is_origin(annotation: Any, kind: type) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, kind)
