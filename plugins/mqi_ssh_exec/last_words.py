"""What a failed run wrote last, made fit to be kept with its case: bounded, one line each, without paths and numbers of patients.

These lines travel in a message and lie in the state database, so whatever may be a name is left out of them: the case's
own, everything that looks like a path or a file's name, and long numbers. The whole log stays on the host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mqi_cli import HostError
from mqi_ssh_exec.job import Job
from mqi_ssh_exec.job_status import JobStatus
from mqi_ssh_exec.log_lines import LineReader

LINES = 6
LONGEST = 200  # characters of a line
_BYTES = 4096
_HIDDEN = "…"
_PATH = re.compile(r"[^\s\"'=,;()\[\]{}<>|]*/[^\s\"',;()\[\]{}<>|]*")
_FILE = re.compile(r"\b[\w^~-]+(?:\.[\w^~-]+)*\.(?!\d+\b)[A-Za-z]\w{0,7}\b")
_NUMBER = re.compile(r"\d[\d._-]{5,}\d")
_PIECE = re.compile(r"[^\W_]{3,}")


def without_names(line: str, name: str) -> str:
    """Return a line of a log without what may be a name. `name` is the case's own."""
    line = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line[: 4 * LONGEST].expandtabs())
    for part in sorted({name, *_PIECE.findall(name)} - {""}, key=len, reverse=True):
        line = re.sub(re.escape(part), _HIDDEN, line, flags=re.IGNORECASE)
    for pattern in (_PATH, _FILE, _NUMBER):
        line = pattern.sub(_HIDDEN, line)
    line = " ".join(line.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def last_words(job: Job, status: JobStatus, name: str) -> str:
    """Return the last lines that a run wrote; "" where there are none, or its host does not answer just now.

    Of one that wrote nothing and went through a queue, what that and its runner had to say.
    """
    start = max(0, status.log_bytes - _BYTES)
    try:
        if status.log_bytes:
            data = job.log(start, size=_BYTES).data
        else:
            data = job.margin()[-_BYTES:] if status.sent else b""
    except (HostError, OSError):
        return ""  # why it failed is told all the same
    reader = LineReader()
    lines = [*reader.feed(data), *reader.end()]
    return in_words(lines[1:] if start and len(lines) > 1 else lines, name)


def in_words(lines: Sequence[str], name: str) -> str:
    """Return the last of these lines that say something."""
    said = [each for each in (without_names(line, name) for line in lines) if each]
    return "\n".join(said[-LINES:])
