"""Where a case lies on a host. Every path is made of the case's key and of names from the config, never of case names.

    <base_dir>/<key>-<owner>/input                            the input, complete or absent
    <base_dir>/<key>-<owner>/work/<step>/<part or "_">/<n>    the work directory of attempt n, empty at the start
    <base_dir>/.mqi/                                          what mqi itself keeps there (the run helper)

`owner` is the installation's mark, drawn with its state database: two installations that look at the same source derive
the same keys, and neither may work in, take over or clear away what the other has made. A state database that had cases
before there were marks has none, and its directories are called by the key alone.

A plugin that needs a place of its own takes `<layout.root>/.<something>`.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from mqi_cli.case import KEY_PATTERN

OWNER_PATTERN = re.compile(r"(?:[0-9a-f]{6})?\Z")


@dataclass(frozen=True)
class RemoteLayout:
    """The places of one case on one host."""

    base_dir: PurePosixPath
    key: str
    owner: str = ""

    @property
    def root(self) -> PurePosixPath:
        """The directory that holds everything of this case on the host."""
        return self.base_dir / (f"{self.key}-{self.owner}" if self.owner else self.key)

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


def key_of(name: str, owner: str) -> str | None:
    """Return the key of the case whose directory has this name; None for one that is no case's, or another installation's."""
    key, _, mark = name.partition("-")
    ours = KEY_PATTERN.match(key) and name == RemoteLayout(PurePosixPath(), key, owner).root.name
    return key if ours and mark == owner else None


def tool_dir(base_dir: PurePosixPath) -> PurePosixPath:
    """Return where mqi keeps its own programs on a host."""
    return base_dir / ".mqi"


def may_be_one(one: str, other: str) -> bool:
    """Whether two hosts' base directories, as the config writes them, may be one; nobody here knows what `~` is there.

    Two hosts of the config may lead to one file system: the one with a queue and the one without.
    """
    home, absolute = sorted(
        (PurePosixPath(posixpath.normpath(each)) for each in (one, other)), key=PurePosixPath.is_absolute
    )
    if home.is_absolute() == absolute.is_absolute():
        return str(home).lstrip("/") == str(absolute).lstrip("/")  # two slashes at the front stay two
    below = home.parts[1:]
    return not below or absolute.parts[-len(below) :] == below
