"""Writes the first config: the file, and the directory that it watches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mqi_cli.errors import UsageError, describe_os_error

if TYPE_CHECKING:
    from mqi_cli.plugins import Plugins


def write_first_config(plugins: Plugins, file: Path, *, source: str, force: bool) -> Path:
    """Write a config that works as it is, and return the directory that it watches, made when it is not there.

    Raises `UsageError` when the file is there and `force` isn't given, or when it can't be written.
    """
    from mqi_cli.config.sample import RESULTS, sample_config

    directory = file.absolute().parent
    watched = directory / Path(source).expanduser()
    text = sample_config(plugins, directory, source=source)
    if not force and file.exists():  # before anything is made
        raise UsageError(f"{file} is there already", hint="give another path, or --force")
    try:
        watched.mkdir(parents=True, exist_ok=True)
        (directory / RESULTS).mkdir(exist_ok=True)  # a place for results that is not there counts as not mounted
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"{file} can't be written: {describe_os_error(error)}") from error
    return watched
