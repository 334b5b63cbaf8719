"""Say in an operator's words what pydantic finds wrong with a value."""

from __future__ import annotations

from typing import Any

from pydantic_core import ErrorDetails

from mqi_cli.config.problems import clipped, nearest
from mqi_cli.config.values import format_duration, parse_duration

_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_LENGTHS = {"too_short": "at least", "too_long": "at most"}
_WANTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "keys with values",
    "mapping": "keys with values",
    "model": "keys with values",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "path": "a path",
}


def sentence(error: ErrorDetails, given: Any) -> str:
    """Return what is wrong with a value that the file gives, as it stands there."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("value_error", "assertion_error") and "error" in context:
        return clipped(str(context["error"]), limit=300)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {_like(given, context[key])}, not {_shown(given)}"
    if kind == "literal_error" or kind == "enum":
        return _choice(given, str(context.get("expected", "")))
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} doesn't fit {context['pattern']}"
    for ending, words in _LENGTHS.items():
        if kind.endswith(ending) and (count := context.get("min_length", context.get("max_length"))) is not None:
            return (
                f"must have {words} {count} {'character' if kind.startswith('string') else 'item'}{'s'[: count != 1]}"
            )
    if wanted := _WANTED.get(kind.split("_")[0]):
        return _mismatch(wanted, given)
    return clipped(error["msg"][:1].lower() + error["msg"][1:], limit=300)


def _like(given: Any, bound: Any) -> str:
    """Write a bound as the value is written: of `5s`, as a duration."""
    try:
        return format_duration(bound) if isinstance(given, str) and parse_duration(given) is not None else f"{bound:g}"
    except (TypeError, ValueError):
        return str(bound)


def _mismatch(wanted: str, given: Any) -> str:
    text = f"{wanted} is wanted" if not wanted.endswith("values") else f"{wanted} are wanted"
    text += f", not {_shown(given)}"
    if wanted == "a text" and isinstance(given, int | float):
        text += "; put it in quotes"
    if wanted == "a list" and isinstance(given, str):
        text += "; write [ ] around it"
    return text


def _choice(given: Any, expected: str) -> str:
    choices = [each.strip(" '") for each in expected.replace(" or ", ",").split(",")]
    if len(choices) == 1:
        return f"can only be {choices[0]}, not {_shown(given)}"
    text = f"{_shown(given)} is not one of {', '.join(choices)}"
    near = nearest(given, choices) if isinstance(given, str) else ""
    return f"{text}; did you mean '{near}'?" if near else text


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return f"'{clipped(value, limit=40)}'"
    return "a list" if isinstance(value, list | tuple) else "keys with values" if isinstance(value, dict) else "this"
