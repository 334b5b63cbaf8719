"""What the scanner keeps in mind of a case between two rounds, so that a case at rest costs a few `stat` calls a round."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

from mqi_cli import CaseSeen, Unfit, survey
from mqi_cli import snapshot as snapshot_of
from mqi_scanner.gate import Judgement, Look, unfit_look
from mqi_scanner.proof import Proof


@dataclass
class Memory:
    """One case. Times are readings of `Clock.elapsed`."""

    looked_at: float = float("-inf")
    due: float = float("-inf")  # when every file is to be looked at again, whatever the directories say
    snapshot: str = ""
    directories: dict[str, int] = field(default_factory=dict)  # relative path -> mtime_ns, "" for the case itself
    judgement: Judgement | None = None
    at_rest: bool = False
    proof: Proof | None = None
    proven: CaseSeen | None = None  # what the last finished proof said
    refused: Judgement | None = None  # what the gate said to the last finished proof, where that was no
    said: CaseSeen | None = None  # the last report

    def learn(self, look: Look, directories: dict[str, int]) -> None:
        """Take a new look in; what was proven of another snapshot is forgotten."""
        if look.snapshot != self.snapshot:
            self.proof = self.proven = self.refused = None
        self.snapshot = look.snapshot
        self.directories = directories


def look_at(directory: Path) -> tuple[Look, dict[str, int]]:
    """Look at every file of a case and at its directories' times. Raises `OSError` where there is nothing to look at."""
    # The case's own time is taken first: what is written during the survey shows as a change at the next round.
    own = directory.stat(follow_symlinks=False).st_mtime_ns
    try:
        entries = survey(directory)
    except Unfit as unfit:
        return unfit_look(unfit.reason, unfit.entries), {"": own}
    directories = {each.path: each.mtime_ns for each in entries if each.is_dir}
    return Look(tuple(entries), snapshot_of(entries)), {"": own, **directories}


def directories_unchanged(directory: Path, directories: dict[str, int]) -> bool:
    """Whether no directory of a case has got, lost or renamed an entry. Sees no file that is rewritten in place."""
    try:
        return all(
            (directory / path).stat(follow_symlinks=False).st_mtime_ns == mtime for path, mtime in directories.items()
        )
    except FileNotFoundError:
        return False


def spread(name: str, seconds: float) -> float:
    """Return between half and all of `seconds`, always the same for a name: cases met together part ways."""
    return seconds * (0.5 + zlib.crc32(name.encode("utf-8", "surrogateescape")) / 2**33)
