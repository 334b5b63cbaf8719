"""The config as `mqi config show` prints it: every key with its value and where that came from. Secrets are hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr

from mqi_cli.config import shape
from mqi_cli.config.loaded import Config
from mqi_cli.config.problems import KeyPath, key_text

DEFAULT = "default"
HIDDEN = "****"
# A text filled from such a variable is hidden though its key is no secret: `environment: {TOKEN: "${API_TOKEN}"}`.
_SECRET_NAME = re.compile(r"\$\{\w*(PASS|SECRET|TOKEN|KEY|CREDENTIAL)\w*\}", re.IGNORECASE)


@dataclass(frozen=True)
class Setting:
    """One value. `origin` is `file:line`, with the variables it was filled from; a secret's file; or `default`."""

    key: str
    value: Any
    origin: str

    @property
    def is_set(self) -> bool:
        """Whether there is anything to show: not a key that was left out and has no default."""
        return self.value is not None or self.origin != DEFAULT


@dataclass(frozen=True)
class _Value:
    path: KeyPath
    value: Any
    is_default: bool = True


def settings(config: Config) -> Iterator[Setting]:
    """Yield every value of a config, in the order of its sections."""
    for each in _values(config):
        hide = each.value is not None and any(_SECRET_NAME.search(text) for text in _origins_below(config, each.path))
        yield Setting(key_text(each.path), HIDDEN if hide else each.value, _origin(config, each))


def _values(config: Config) -> Iterator[_Value]:
    yield _Value(("state", "path"), str(config.state_path))
    yield _Value(("state", "key_salt"), HIDDEN if config.key_salt else None)
    if config.broker is not None:
        yield from _section(config.broker, ("broker",))
    else:
        yield _Value(("broker",), None)
    for host_name, host in config.hosts.items():
        yield from _section(host, ("hosts", host_name))
    for index, source in enumerate(config.sources):
        yield from _section(source, ("sources", index))
    for name, workflow in config.workflows.items():
        for index, step in enumerate(workflow.steps):
            yield from _section(step.options, ("workflows", name, index, step.stage.name))
    for lane, section in config.workers.items():
        yield from _section(section, ("workers", lane))
    yield from _section(config.daemon, ("daemon",))
    yield from _section(config.plugins, ("plugins",))
    for name, section in config.sections.items():
        yield from _section(section, (name,))


def _section(section: BaseModel, path: KeyPath, *, is_default: bool = False) -> Iterator[_Value]:
    """Yield the values of a section. Pydantic writes them as the file would: `30s`, not 30.0."""
    written = section.model_dump(mode="json", by_alias=True)
    fields = shape.keys_of(type(section))
    for key, name in shape.names_of(type(section)).items():
        value, field = getattr(section, name), fields[key]
        same = not field.is_required() and value == field.get_default(call_default_factory=True)
        yield from _value(value, written[key], (*path, key), is_default=is_default or same)


def _value(value: Any, written: Any, path: KeyPath, *, is_default: bool) -> Iterator[_Value]:
    if isinstance(value, BaseModel):
        yield from _section(value, path, is_default=is_default)
    elif isinstance(value, SecretStr):
        yield _Value(path, HIDDEN, is_default)
    elif isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _value(each, written[key], (*path, str(key)), is_default=is_default)
    elif isinstance(value, list | tuple) and any(isinstance(each, BaseModel | dict | SecretStr) for each in value):
        for index, each in enumerate(value):
            yield from _value(each, written[index], (*path, index), is_default=is_default)
    else:
        yield _Value(path, written, is_default)


def _origins_below(config: Config, path: KeyPath) -> Iterator[str]:
    return (origin for other, origin in config.origins.items() if other[: len(path)] == path)


def _origin(config: Config, value: _Value) -> str:
    """Return where a value came from. One that the file gives in short (`complete_when: manual`) is the short form's."""
    if value.path in config.origins:
        return config.origins[value.path]
    if not value.is_default:
        for length in range(len(value.path) - 1, 0, -1):
            if origin := config.origins.get(value.path[:length]):
                return origin
    return DEFAULT
