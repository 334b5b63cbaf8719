"""Turn one mapping of the file into its model, and note everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mqi_cli.config import shape, wording
from mqi_cli.config.environment import Environment
from mqi_cli.config.find import local_path_from
from mqi_cli.config.problems import KeyPath, Problems, nearest, unknown
from mqi_cli.config.secret_file import read_secret

_M = TypeVar("_M", bound=BaseModel)


class SectionReader:
    """Reads sections of one file. `secret_files` maps the key path of each secret to the file that it came from."""

    def __init__(
        self, problems: Problems, environment: Environment, *, environ: Mapping[str, str], base: Path | None
    ) -> None:
        self.problems = problems
        self.secret_files: dict[KeyPath, Path] = {}
        self._environment = environment
        self._environ = environ
        self._base = base

    def read(self, model: type[_M], raw: Any, path: KeyPath) -> _M | None:
        """Return the section, or None when something is wrong with it; then the problems say what. `raw` None is `{}`."""
        raw = {} if raw is None else raw
        data = self._model(raw, model, path) if isinstance(raw, dict) else raw
        try:
            section = model.model_validate(data, context={"base": self._base})
        except ValidationError as error:
            for each in error.errors(include_url=False):
                self._note(each, data, path)
            if not self.problems.concerns(path):  # each was left out as a consequence of one that isn't of this path
                self.problems.add(path, "can't be read")
            return None
        return None if self._is_wrong(path) else section

    def _is_wrong(self, path: KeyPath) -> bool:
        return any(each.path[: len(path)] == path for each in self.problems.found)

    def _value(self, value: Any, annotation: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            if model := _chosen(shape.models_in(annotation), value):
                return self._model(value, model, path)
            if (inner := shape.values_of(annotation)) is not None:
                return {key: self._value(each, inner, (*path, key)) for key, each in value.items()}
        if isinstance(value, list) and (inner := shape.items_of(annotation)) is not None:
            return [self._value(each, inner, (*path, index)) for index, each in enumerate(value)]
        return value

    def _model(self, raw: dict[str, Any], model: shape.Model, path: KeyPath) -> dict[str, Any]:
        data = dict(raw)
        fields = shape.keys_of(model)
        meant = self._unknown_keys(data, model, path)
        for key in shape.secrets_of(model):
            self._secret(data, model, key, path)
        for key, field in fields.items():
            if data.get(key, ...) is None and not (field.is_required() or shape.takes_none(field.annotation)):
                del data[key]  # `limits:` with all its keys commented out
            elif key in data and not shape.is_secret(field.annotation):
                data[key] = self._value(data[key], field.annotation, (*path, key))
            elif key not in data and field.is_required() and key not in meant:
                self.problems.add((*path, key), f"missing; {field.description or 'a value is needed'}")
        return data

    def _unknown_keys(self, data: dict[str, Any], model: shape.Model, path: KeyPath) -> set[str]:
        """Note the keys that the model doesn't have; return those that were probably meant."""
        secrets = shape.secrets_of(model)
        known = {*shape.keys_of(model), *(f"{each}_file" for each in secrets)}
        meant = set()
        for key in data:
            if key not in known:
                near = nearest(key, known - set(data))
                meant |= {near, near.removesuffix("_file")}
                self.problems.add((*path, key), unknown("unknown key", key, {near} if near else known))
        return meant

    def _secret(self, data: dict[str, Any], model: shape.Model, key: str, path: KeyPath) -> None:
        here, companion = (*path, key), f"{key}_file"
        if shape.companion(model, companion) and companion in data:
            named = data.pop(companion)
            if key in data:
                self.problems.add(here, f"given here and by {companion}; keep one")
            else:
                data[key] = self._from_file(named, here, (*path, companion))
            return
        value = data.get(key)
        if value is None:
            return
        if here not in self._environment.whole:
            self.problems.add(
                here, f"a secret never stands here in clear: write {companion}: FILE (chmod 600), or ${{VARIABLE}}"
            )
        elif not value:
            self.problems.add(here, f"{self._variables(here)} is empty")

    def _from_file(self, named: Any, path: KeyPath, at: KeyPath) -> str:
        if not isinstance(named, str) or not named or "\0" in named:
            self.problems.add(at, "a path is wanted")
            return ""
        try:
            file = local_path_from(named, self._base)
            self.secret_files[path] = file
            return read_secret(file, self._environ)
        except ValueError as error:
            self.problems.add(at, str(error))
            return ""

    def _note(self, error: ErrorDetails, data: Any, path: KeyPath) -> None:
        where, given = _path_of(error["loc"], data, path)
        if error["type"] in ("missing", "extra_forbidden") or self.problems.concerns(where):
            return  # told already, with the key that was meant; or follows from what was told
        text = wording.sentence(error, given)
        if where in self._environment.used:
            text += f" (from {self._variables(where)})"
        self.problems.add(where, text)

    def _variables(self, path: KeyPath) -> str:
        return ", ".join(f"${{{name}}}" for name in self._environment.used[path])


def _chosen(models: list[shape.Model], value: dict[str, Any]) -> shape.Model | None:
    """Return the model that a mapping is meant for: the only one, or the one whose literal keys (`type: x`) agree."""
    fitting = [
        each
        for each in models
        if all(
            value.get(key) in get_args(field.annotation)
            for key, field in shape.keys_of(each).items()
            if get_origin(field.annotation) is Literal and (field.is_required() or key in value)
        )
    ]
    return models[0] if len(models) == 1 else fitting[0] if len(fitting) == 1 else None


def _path_of(location: tuple[int | str, ...], data: Any, path: KeyPath) -> tuple[KeyPath, Any]:
    """Return the key path of a pydantic error, and what stands there.

    The path is the error's location less the parts that name validators and members of unions.
    """
    for each in location:
        held: Any = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if each in held:
            data, path = data[each], (*path, each)
    return path, data
