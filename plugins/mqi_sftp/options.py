"""What the operator may write: the section `sftp` and the options of steps `upload` and `download`, with their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mqi_cli import Duration, LocalPath, Section, Step, StepOptions, check_local

MOST_VERIFY_TIMEOUT = 900.0  # seconds; a turn gives no sign of life meanwhile


class SftpSection(Section):
    """Moving files."""

    verify_timeout: Duration = Field(
        300.0,
        gt=0,
        le=MOST_VERIFY_TIMEOUT,
        description="How long a host may take to hash one batch of files (256 MiB, or one larger file).",
    )


def _below_work_directory(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\0" in value or "\n" in value:
        raise ValueError("a path relative to the run's work directory is wanted, without `..`")
    return "" if str(path) == "." else str(path)


class UploadOptions(StepOptions):
    """Options of step `upload`."""

    host: str = Field(description="The host that the case's files go to.")


class DownloadOptions(StepOptions):
    """Options of step `download`."""

    host: str = Field(description="The host that the results come from; that of the run step.")
    origin: Annotated[str, AfterValidator(_below_work_directory)] = Field(
        "", alias="from", description="What to fetch, relative to the run's work directory. Default: all of it."
    )
    to: LocalPath = Field(description="Where the results go; {case_name} or {case_key} keeps cases apart.")
    step: str = Field("", description="The run step whose results are fetched. Default: the latest before this one.")


def is_run(step: Step) -> bool:
    """Whether a step leaves results in a work directory: stage `run`, or a stage that lets one declare `outputs`."""
    return step.stage.name == "run" or "outputs" in type(step.options).model_fields


def origin_step(steps: Sequence[Step], index: int) -> Step | None:
    """Return the step whose results the download at `index` fetches; None where there is none before it."""
    options: DownloadOptions = steps[index].options  # type: ignore[assignment]
    earlier = steps[:index]
    if options.step:
        return next((each for each in earlier if each.name == options.step), None)
    return next((each for each in reversed(earlier) if is_run(each)), None)


def check_download(steps: Sequence[Step], index: int, hosts: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that is wrong with a download where it stands in its workflow."""
    del hosts
    options: DownloadOptions = steps[index].options  # type: ignore[assignment]
    problems = [f"`to`: {problem}" for problem in check_local(str(options.to))]
    if not problems and not any(name in str(options.to) for name in ("{case_name}", "{case_key}")):
        problems.append("`to` needs {case_name} or {case_key}, else all cases' results go to one place")
    origin = origin_step(steps, index)
    if origin is None and options.step:
        problems.append(f"`step`: no step before it is named {options.step}")
    elif origin is None:
        problems.append("there is no run step before it whose results it could fetch")
    elif origin.host != options.host:
        problems.append(
            f"step {origin.name} runs on host {origin.host or '(none)'}, but it fetches from {options.host}"
        )
    return problems
