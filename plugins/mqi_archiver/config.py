"""The archiver's section of the config and the options of its stage, with the checks that need no disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from mqi_cli import Duration, LocalPath, Section, Step, StepOptions, check_local, fetching, is_for_effect

Compression = Literal["none", "gzip", "xz"]


class BackupSection(Section):
    """Copies of the state database."""

    directory: LocalPath = Field(description="Where the copies go; best on another disk.")
    every: Duration = Field(86400.0, gt=0, description="How old the newest copy may become.")
    keep: int = Field(14, ge=1, description="Copies that are kept.")


class ArchiverSection(Section):
    """Archives, how long they are kept, and copies of the state database."""

    directory: LocalPath | None = Field(None, description="Where archives go when a step doesn't say `to`.")
    interval: Duration = Field(3600.0, gt=0, description="How often retention and backup look whether they are due.")
    retention: Duration | None = Field(
        None, gt=0, description="Archives older than this are removed. Left out: none ever is."
    )
    backup: BackupSection | None = Field(None, description="Left out: no copies of the state database are made.")


class ArchiveOptions(StepOptions):
    """Options of step `archive`."""

    to: LocalPath | None = Field(
        None,
        description="The directory of archives, or with {case_name} or {case_key} the archive's path without ending. "
        "Default: the section's `directory`.",
    )
    compression: Compression = Field("gzip", description="none, gzip or xz (smallest, by far the slowest).")
    include_input: bool = Field(True, description="Whether the case's input goes in beside the results.")
    clear_host: bool = Field(True, description="Whether the case is removed from its hosts once its archive is proven.")


def check_archive(steps: Sequence[Step], index: int, hosts: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that is wrong with an archive step where it stands in its workflow."""
    del hosts
    options: ArchiveOptions = steps[index].options  # type: ignore[assignment]
    problems = [f"`to`: {problem}" for problem in check_local(str(options.to or ""))]
    if not options.clear_host:
        return problems
    problems += [
        f"step {later.name} comes after it and works on host {later.host}, which it clears: "
        "put archive last, or set clear_host: false"
        for later in steps[index + 1 :]
        if later.host
    ]
    earlier = steps[:index]
    runs = [step.name for place, step in enumerate(earlier) if step.stage.job and not is_for_effect(earlier, place)]
    if runs and not any(step.stage.name == "download" for step in earlier):
        problems.append(
            f"it would clear away what step {runs[-1]} computed, and nothing fetches that before: "
            "add a download step, or set clear_host: false"
        )
        return problems
    problems += [
        f"it would clear away the outputs of step {step.name}, and no download step before it fetches them: "
        "add one, or set clear_host: false"
        for place, step in enumerate(earlier)
        if step.host and getattr(step.options, "outputs", None) and not fetching(earlier, place)
    ]
    return problems
