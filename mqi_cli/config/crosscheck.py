"""Checks that need more than one section: sources against each other, and against every place that mqi writes to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from mqi_cli.config import shape
from mqi_cli.config.model import NAME, SourceSection
from mqi_cli.config.problems import KeyPath, Problems, clipped, unknown
from mqi_cli.stage import Workflow

_NAME = re.compile(NAME)

Sources = Sequence[tuple[int, SourceSection]]  # with their position in the file


def check_workflow_names(raw_sources: Any, workflows: Mapping[str, Any], problems: Problems) -> None:
    """Note sources whose workflow isn't there. Looks at the file's own data, so that a source may have other faults."""
    for index, raw in enumerate(raw_sources if isinstance(raw_sources, list) else ()):
        name = raw.get("workflow") if isinstance(raw, dict) else None
        if isinstance(name, str) and name not in workflows:
            what = f"there is no workflow '{clipped(name)}'"
            problems.add(("sources", index, "workflow"), unknown(what, name, workflows))


def check_sources(sources: Sources, problems: Problems) -> None:
    """Note sources that share a name, or that lie in each other."""
    names: dict[str, int] = {}
    for index, source in sources:
        path: KeyPath = ("sources", index)
        name = source.name or source.path.name
        if not _NAME.match(name):
            problems.add(path, "its path's last part can't name it; give it a `name`")
        elif name in names:
            other = problems.place(("sources", names[name]))
            line = f" (the other in line {other.line})" if other else ""
            problems.add(path, f"two sources are called '{name}'{line}; give one of them another `name`")
        names.setdefault(name, index)
    for position, (index, source) in enumerate(sources):
        for _, other_source in sources[:position]:
            if relation := _relation(source.path, other_source.path):
                text = f"{relation} the source {_flat(other_source.path)}; a case would be taken twice"
                problems.add(("sources", index, "path"), text)


def check_places(sources: Sources, places: Sequence[tuple[KeyPath, PurePath]], problems: Problems) -> None:
    """Note every place that is written to and lies in a source, or holds one: results would be taken for cases."""
    for path, place in places:
        for _, source in sources:
            if relation := _relation(place, source.path):
                problems.add(path, f"{_flat(place)} {relation} the source {_flat(source.path)}; keep them apart")


def option_places(workflows: Mapping[str, Workflow]) -> Iterator[tuple[KeyPath, PurePath]]:
    """Yield the local paths that steps name, with their keys, up to the first placeholder."""
    for name, workflow in workflows.items():
        for index, step in enumerate(workflow.steps):
            yield from section_places(step.options, ("workflows", name, index, step.stage.name))


def section_places(section: BaseModel, path: KeyPath) -> Iterator[tuple[KeyPath, PurePath]]:
    """Yield the local paths of one section, with their keys, up to the first placeholder."""
    for key, name in shape.names_of(type(section)).items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from section_places(value, (*path, key))
        elif isinstance(value, Path) and value.is_absolute():
            before, brace, _ = str(value).partition("{")
            yield (*path, key), Path(before.rpartition("/")[0] or "/") if brace else value


def _relation(one: PurePath, other: PurePath) -> str:
    """Say how `one` lies to `other`: "is", "lies in", "holds", or "" for apart.

    By their names alone: to resolve links means to ask the file system, and a dead network share never answers.
    """
    first, second = PurePath(_flat(one)), PurePath(_flat(other))
    if first == second:
        return "is"
    if second in first.parents:
        return "lies in"
    return "holds" if first in second.parents else ""


def _flat(path: PurePath) -> str:
    return os.path.normpath(path)
