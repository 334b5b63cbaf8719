"""The kinds of value that the config adds to YAML's own: durations, sizes, local paths, secrets, a shell's text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, SecretStr, ValidationInfo, WithJsonSchema

from mqi_cli.config.find import local_path_from


@dataclass(frozen=True)
class AsWritten:
    """Marks a value in which `${NAME}` and `$$` mean nothing to us."""


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\Z")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LEAST_RATE = 1000
_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)\Z")
_DAY = 24 * 60
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B\Z")
_SIZE_UNITS = {
    None: 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def parse_duration(value: object) -> float:
    """Return seconds from `30s`, `10m`, `2h`, `1.5d` or 0. Raises `ValueError` that shows how it is written."""
    if isinstance(value, str) and (found := _DURATION.match(value.strip())):
        return float(found[1]) * _DURATION_UNITS[found[2]]
    if value == 0 or (isinstance(value, float) and not isinstance(value, bool)):
        return float(value)  # floats come from defaults in code; YAML authors write a unit
    raise ValueError("a duration is a number with a unit: 500ms, 30s, 10m, 2h, 7d, 4w")


def format_duration(seconds: float) -> str:
    """Return the shortest exact spelling of a duration, as the config writes it."""
    for unit in ("w", "d", "h", "m", "s"):
        size = _DURATION_UNITS[unit]
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0"


def parse_size(value: object) -> int:
    """Return bytes from `500MB`, `2GiB` or a whole number of bytes. Raises `ValueError` that shows how it is written."""
    if isinstance(value, str) and (found := _SIZE.match(value.strip())):
        return int(float(found[1]) * _SIZE_UNITS[found[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a size is a number with a unit: 800kB, 500MB, 2GiB")


def parse_rate(value: object) -> int:
    """Return bytes a second from `50MB/s` or a whole number. Raises `ValueError` that shows how it is written."""
    try:
        rate = parse_size(value.strip().removesuffix("/s") if isinstance(value, str) else value)
    except ValueError:
        rate = 0
    if rate < _LEAST_RATE or (isinstance(value, str) and not value.strip().endswith("/s")):
        raise ValueError("a rate is a size each second, at least 1kB/s: 800kB/s, 50MB/s")
    return rate


def parse_time_of_day(value: object) -> int:
    """Return minutes since midnight from `07:00` or `19:30`. Raises `ValueError` that shows how it is written."""
    if isinstance(value, str) and (found := _TIME_OF_DAY.match(value.strip())):
        value = int(found[1]) * 60 + int(found[2])
    # YAML 1.1 reads 19:30 without quotes as a number to the base of sixty: just these minutes
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _DAY:
        return value
    raise ValueError("a time of day is written 07:00 or 19:30")


def _parse_path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("a path is wanted")
    return local_path_from(value, (info.context or {}).get("base"))


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d|w)$", "examples": ["30s", "10m", "2h"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["500MB", "2GiB"]}),
]
Rate = Annotated[
    int,
    BeforeValidator(parse_rate),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1000}, {"type": "string"}], "examples": ["50MB/s"]}),
]
TimeOfDay = Annotated[
    int,
    BeforeValidator(parse_time_of_day),
    WithJsonSchema({"type": "string", "pattern": r"^([01]?\d|2[0-4]):[0-5]\d$", "examples": ["07:00", "19:30"]}),
]
# Relative paths are taken from the config file's directory, which the loader passes in as the context's `base`.
LocalPath = Annotated[Path, BeforeValidator(_parse_path), WithJsonSchema({"type": "string", "format": "path"})]
# Filled from `${ENV}` or from the file that the companion key `<key>_file` names. Shown as asterisks everywhere.
Secret = SecretStr

ShellText = Annotated[str, AsWritten()]  # its `$NAME`, `${NAME}` and `$$` are for the shell that reads it
