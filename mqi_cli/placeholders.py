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
    of a revision never land on those of another. A case outside every source has its whole path for a name: of that
    the last part stands here, with the key behind it, for two such cases may end alike. Raises `ValueError` for a name
    that would lead out of its place.
    """
    name = PurePosixPath(case.name)
    if ".." in name.parts or not name.name:
        raise ValueError("the case's name is not a path below a source")
    shown = f"{name.name}.{case.key}" if name.is_absolute() else case.name
    if case.revision > 1:
        shown = f"{shown}.r{case.revision}"
    return Path(
        str(template).format(case_name=shown, case_key=case.key, source=case.source, part=part or "_")
    ).expanduser()
