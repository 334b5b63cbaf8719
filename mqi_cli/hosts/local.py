"""`type: local`: this machine as a host. The same contract as over SSH, so a pipeline can be tried without a server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mqi_cli.hosts.base import Completed
from mqi_cli.hosts.local_command import LocalProcess, converse
from mqi_cli.hosts.local_files import LocalFiles

if TYPE_CHECKING:
    from mqi_cli.config.model import LocalHostSection


class LocalHost:
    """This machine, under the account that runs mqi. Nothing is connected, so nothing can break."""

    def __init__(self, name: str, config: LocalHostSection, state_dir: Path) -> None:
        self.name = name
        self.config = config

    @property
    def base_dir(self) -> PurePosixPath:
        """Return the absolute base directory."""
        return PurePosixPath(os.path.abspath(Path(self.config.base_dir).expanduser()))  # noqa: PTH100 links stay as they are

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 20) -> Completed:
        """Run a program and wait for its end."""
        return converse(self.name, argv, stdin, timeout=timeout, limit=limit)

    @contextlib.contextmanager
    def start(self, argv: Sequence[str], *, bulk: bool | None = False) -> Iterator[LocalProcess]:
        """Start a program with open streams."""
        del bulk  # there is one way
        process = LocalProcess(self.name, argv)
        try:
            yield process
        finally:
            process.close()

    @contextlib.contextmanager
    def files(self, *, bulk: bool = False) -> Iterator[LocalFiles]:
        """Give the file operations."""
        del bulk
        yield LocalFiles(self.name)

    def describe(self) -> str:
        """Return `this machine`."""
        return "this machine"

    def close(self) -> None:
        """Do nothing: there is no connection."""
