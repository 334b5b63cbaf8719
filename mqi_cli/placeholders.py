"""Placeholders of local paths in the config: `/data/results/{case_name}`. (Those of commands belong to stage `run`.)"""

from __future__ import annotations

import string
from pathlib import Path, PurePosixPath

from mqi_cli.case import CaseRef

LOCAL_PLACEHOLDERS = ("case_name", "case_key", "source", "part")


def check_local(template: str) -> list[str]:
    """Return one sentence for each thing that is wrong with a local path's placeholders."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        return [f"its braces don't match ({error}); a literal brace is written twice"]
    return [
        f"{{{name}}} is not one of {', '.join('{' + each + '}' for each in LOCAL_PLACEHOLDERS)}"
        for name in names
        if name not in LOCAL_PLACEHOLDERS
    ]


def local_path(template: str | Path, case: CaseRef, *, part: str = "") -> Path:
    """Fill a local path's placeholders.

    `{case_name}` is the case's name; from the second revision on with `.r2` and so on behind it, so that the results
    of a revision never land on those of another. Raises `ValueError` for a name that would lead out of its place.
    """
    name = PurePosixPath(case.name)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise ValueError("the case's name is not a relative path")
    shown = case.name if case.revision == 1 else f"{case.name}.r{case.revision}"
    return Path(
        str(template).format(case_name=shown, case_key=case.key, source=case.source, part=part or "_")
    ).expanduser()
