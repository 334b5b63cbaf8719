"""Where a case lies on a host. Every path is made of the case's key and of names from the config, never of case names.

    <base_dir>/<key>/input                            the input, complete or absent
    <base_dir>/<key>/work/<step>/<part or "_">/<n>    the work directory of attempt n, empty at the start
    <base_dir>/.mqi/                                  what mqi itself keeps there (the run helper)

A plugin that needs a place of its own takes `<base_dir>/<key>/.<something>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class RemoteLayout:
    """The places of one case on one host."""

    base_dir: PurePosixPath
    key: str

    @property
    def root(self) -> PurePosixPath:
        """The directory that holds everything of this case on the host."""
        return self.base_dir / self.key

    @property
    def input(self) -> PurePosixPath:
        """Where the case's files are, once the upload has proven them."""
        return self.root / "input"

    def part(self, step: str, part: str) -> PurePosixPath:
        """Return the directory that holds the attempts of one part."""
        return self.root / "work" / step / (part or "_")

    def work(self, step: str, part: str, attempt: int) -> PurePosixPath:
        """Return the work directory of one attempt."""
        return self.part(step, part) / str(attempt)


def tool_dir(base_dir: PurePosixPath) -> PurePosixPath:
    """Return where mqi keeps its own programs on a host."""
    return base_dir / ".mqi"
