"""What a step's `extra` lines may not ask of sbatch: other than one job, or a job where nobody looks for it. Pure.

Sources: sbatch's own reading of `#SBATCH` lines (`src/sbatch/opt.c` of Slurm 17 to 23) and the manual of getopt_long.
"""

from __future__ import annotations

import re

# Options by which sbatch makes no job, several, one elsewhere than `squeue`, `sacct` and `scancel` look, one that begins
# anew by itself, or does not answer before the job has ended.
_REFUSED = (
    *("array", "clusters", "cluster-constraint", "requeue", "wait", "wrap"),
    *("autocomplete", "help", "test-only", "usage", "version"),
)
_SHORT = {"a": "array", "M": "clusters", "W": "wait", "h": "help", "V": "version"}
_FLAGS = "HIklOQRsuvXZ"  # short options that may stand before others in one word, in some version
_WORD = re.compile(rf"-[{_FLAGS}]*([{''.join(_SHORT)}])")
_SEVERAL = re.compile("hetjob|packjob", re.IGNORECASE)  # sbatch looks for these anywhere, also in a quoted text
_BLANKS = " \t\v\f\r"
_QUOTES = "\"'"


def problem_of(line: str) -> str:
    """Say what is wrong with a line; empty when nothing is."""
    if found := _SEVERAL.search(line):
        return f"{found[0]} in `{line}`: a run is one job"
    words, whole = words_of(line)
    if not whole:
        return f"`{line}`: a quotation mark is not closed"
    for word in words:
        if name := _refused(word):
            said = word.partition("=")[0]
            also = "" if said == f"--{name}" else f" ({said})"
            return f"--{name}{also} in `{line}`: a run is one job of the host's own cluster, begun once"
    return ""


def _refused(word: str) -> str:
    """Return the name of the option that a word asks for; empty for one that may stand there."""
    if not word.startswith("--"):
        found = _WORD.match(word)
        return _SHORT[found[1]] if found else ""
    said = word[2:].partition("=")[0]
    # A long option may be shortened as far as it can be told from others; sbatch refuses what it can't tell.
    return next((name for name in _REFUSED if said and name.startswith(said)), "")


def words_of(line: str) -> tuple[list[str], bool]:
    """Return the words of a line as sbatch parts it, and whether its quotations are closed. What follows a # is a comment."""
    words: list[str] = []
    quote, escaped, open_ = "", False, False
    for each in line:
        if not (escaped or quote) and (each in _BLANKS or each == "#"):
            open_ = False
            if each == "#":
                break
            continue
        if not open_:
            words.append("")
            open_ = True
        if escaped or each not in f"\\{quote or _QUOTES}":
            words[-1] += each
            escaped = False
        elif each == "\\":
            escaped = True
        else:
            quote = "" if quote else each
    return words, not quote
