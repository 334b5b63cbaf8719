"""A secret in a file of its own: read whole, refused when anyone but its owner may read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mqi_cli.errors import describe_os_error

MAX_BYTES = 64 * 1024


def read_secret(file: Path, environ: Mapping[str, str]) -> str:
    """Return a secret file's text without its last newline. Raises `ValueError` that says what to do.

    A file below `$CREDENTIALS_DIRECTORY` may look readable by its group: systemd lets the service in by an access
    list, whose mask shows up in the group's bits.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not stop us for good
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{file} is not a regular file")
            if mode & 0o077 and not _is_credential(file, environ):
                raise ValueError(f"others may read {file} (mode {stat.S_IMODE(mode):o}): chmod 600 {file}")
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file}: {describe_os_error(error)}") from error
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{file} is larger than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not text in UTF-8") from None  # the error's own text would show bytes of it
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{file} is empty")
    return text


def _is_credential(file: Path, environ: Mapping[str, str]) -> bool:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    return bool(directory) and file.parent == Path(directory)
