"""What the operator may write: the section `ssh_exec` and the options of a step `run`, with their checks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from mqi_cli import Duration, Section, ShellText, Size, Step, StepOptions
from mqi_ssh_exec.command import check_command, check_quoting, groups_named, steps_named, uses
from mqi_ssh_exec.extra_lines import problem_of
from mqi_ssh_exec.for_each import ForEachOption, check_for_each
from mqi_ssh_exec.progress import check_progress

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BASE_DIR = re.compile(r"[A-Za-z0-9._/~@%+=:,-]+\Z")
_WORD = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._,@-]*)?\Z")
_FOR_QUEUES = ("cpus", "memory", "partition", "account", "extra", "queue_limit")
_OURS = ("MQI_JOB", "MQI_RUNNER")  # the marks by which a run's processes are found


class SshExecSection(Section):
    """Running commands: what holds for every step `run` that does not say otherwise."""

    poll: Duration = Field(15.0, gt=0, description="How often a run is looked at; a young one more often.")
    kill_after: Duration = Field(10.0, description="Time between the request to end (SIGTERM) and the end by force.")
    log_limit: Size = Field(
        64_000_000, ge=65_536, description="A run's output beyond it is left out, from the middle of its log."
    )


def _one_line(value: str) -> str:
    if not value or "\n" in value or "\0" in value:
        raise ValueError("a text of one line is wanted")
    return value


def _word(value: str) -> str:
    if not _WORD.match(value):
        raise ValueError("not a name that a queue has; letters, digits and . _ , - @ only")
    return value


def _glob(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\0" in value or "\n" in value:
        raise ValueError("a pattern relative to the work directory is wanted, without `..`")
    if "**" in value:
        raise ValueError("`**` means nothing here; name each level, or name the directory: all files in it count")
    return value


def _variable(name: str) -> str:
    if not _VARIABLE.match(name) or name in _OURS:
        raise ValueError("not a name that a command's environment may have")
    return name


def _progress(value: str) -> str:
    if problem := check_progress(value):
        raise ValueError(problem)
    return value


def _value(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL")
    return value


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_NOT_EVERYWHERE = re.compile(r"(?:[^\\]|^)(?:\\\\)*\\([0-9A-Za-z<>`'])")


def _text_or_pattern(value: str) -> str:
    if len(value) < 3 or not value.startswith("/") or not value.endswith("/"):
        return value
    pattern = value[1:-1]
    if found := _NOT_EVERYWHERE.search(pattern):
        raise ValueError(
            f"\\{found[1]} means something else from host to host; write [0-9], [[:space:]], [[:alnum:]_] or the like"
        )
    with warnings.catch_warnings(action="ignore"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return value


Text = Annotated[str, AfterValidator(_one_line), AfterValidator(_text_or_pattern)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]


class RunOptions(StepOptions):
    """Options of a step `run`."""

    host: str = Field(description="The host that it runs on.")
    command: ShellText = Field(
        min_length=1,
        description="Shell text for /bin/sh; ends at the first line that fails. Placeholders: {input_dir}, {work_dir}, "
        "{step.NAME}, {case_key}, {gpu_ids}, {gpu_uuids}; with for_each {part}, {part_index}, {part.GROUP}. A literal brace "
        "is written twice; $NAME, ${NAME} and $$ are for the host's shell.",
    )
    for_each: ForEachOption = Field(
        None,
        description="Fans the step out into parts that run side by side: {files: PATTERN}, {output_of: STEP, lines: FILE} "
        "or a list of texts.",
    )
    gpus: int = Field(
        0,
        ge=0,
        le=64,
        description="GPUs for each run. It sees these alone (CUDA_VISIBLE_DEVICES), unless its command takes {gpu_ids}.",
    )
    time_limit: Duration | None = Field(None, ge=1, description="A run that takes longer is ended, and its case held.")
    queue_limit: Duration | None = Field(
        None, ge=1, description="A run that waits longer in its host's queue is taken out, and its case held."
    )
    stall_limit: Duration | None = Field(
        None, ge=1, description="A run whose log has not grown for so long is ended, and its case held."
    )
    cpus: int | None = Field(None, ge=1, le=4096, description="CPUs for each run; for a host with a queue (slurm).")
    memory: Size | None = Field(None, ge=1, description="Memory for each run; for a host with a queue (slurm).")
    partition: Annotated[str, AfterValidator(_word)] = Field(
        "", description="Which part of the cluster; for a host with a queue (slurm)."
    )
    account: Annotated[str, AfterValidator(_word)] = Field(
        "", description="Whom it is charged to; for a host with a queue (slurm)."
    )
    extra: tuple[Annotated[str, AfterValidator(_one_line)], ...] = Field(
        (), description="Further options for the queue's program, one each: `--constraint=a100` for sbatch."
    )
    outputs: tuple[Annotated[str, AfterValidator(_glob)], ...] = Field(
        (),
        description="Patterns below the work directory; each must match files, none of them empty. `[]` says that the run "
        "leaves nothing to keep: its host is cleared without a download.",
    )
    log_must_contain: Texts = Field(
        (),
        description="Texts that must all be in the log of a run that went well; "
        "one between slashes, /CUDA (error|failure)/, is an extended regular expression.",
    )
    log_must_not_contain: Texts = Field((), description="Likewise; none of them may be in its log.")
    progress: Annotated[str, AfterValidator(_progress)] | None = Field(
        None,
        description=r"A regular expression with two groups, done and total, that its log shows how far it is: 'batch (\d+) of (\d+)'.",
    )
    environment: dict[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_value)]] = Field(
        default_factory=dict, description="Variables for the command."
    )
    poll: Duration | None = Field(None, gt=0, description="How often a run is looked at. Default: the section's.")
    kill_after: Duration | None = Field(
        None, description="Time between the request to end and the end by force. Default: the section's."
    )
    log_limit: Size | None = Field(None, ge=65_536, description="How much output is kept. Default: the section's.")


def check_run(steps: Sequence[Step], index: int, hosts: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that is wrong with a run where it stands in its workflow."""
    options: RunOptions = steps[index].options  # type: ignore[assignment]
    found = [*check_command(options.command), *check_quoting(options.command)]
    problems = [f"`command`: {problem}" for problem in found]
    for name in steps_named(options.command):
        problems += _check_reference(name, steps[:index], options.host)
    problems += check_for_each(options.for_each, options.host, steps[:index])
    problems += _check_part(options)
    if options.gpus == 0 and uses(options.command, "gpu_ids", "gpu_uuids"):
        problems.append("`command`: it asks which GPUs it has, but `gpus` is 0")
    host = hosts.get(options.host)
    if host is not None and not _BASE_DIR.match(str(host.base_dir)):
        problems.append(
            f"`host`: base_dir of {options.host} has characters that a command can't hold safely; "
            "use letters, digits and . _ / @ % + = : , -"
        )
    if host is not None:
        problems += _check_queue(options, host)
    both = set(options.log_must_contain) & set(options.log_must_not_contain)
    if both:
        problems.append("`log_must_contain` and `log_must_not_contain` name the same text")
    return problems


def _check_part(options: RunOptions) -> list[str]:
    """Return what is wrong with the placeholders that tell parts apart."""
    named = groups_named(options.command)
    if options.for_each is None:
        if named or uses(options.command, "part", "part_index"):
            return ["`command`: it asks for its part, but the step has no `for_each`"]
        return []
    groups = options.for_each.groups
    known = f"it has: {', '.join(groups)}" if groups else "`for_each` has no `pattern` with groups"
    problems = [
        f"`command`: {{part.{name}}} is no group of the pattern; {known}" for name in named if name not in groups
    ]
    if not named and not uses(options.command, "part", "part_index"):
        problems.append(
            "`command`: all parts would do the same; tell them apart by {part}, {part_index} or {part.GROUP}"
        )
    return problems


def _check_queue(options: RunOptions, host: Any) -> list[str]:
    if host.leases_gpus:
        set_ = [key for key in _FOR_QUEUES if getattr(options, key)]
        return [f"`{key}`: host {options.host} has no queue that could see to it (`scheduler: slurm`)" for key in set_]
    if refused := [problem for line in options.extra if (problem := problem_of(line))]:
        return [f"`extra`: {problem}" for problem in refused]
    if uses(options.command, "gpu_ids", "gpu_uuids"):
        return [f"`command`: the queue of {options.host} picks the GPUs; the run finds them in $CUDA_VISIBLE_DEVICES"]
    return []


def _check_reference(name: str, earlier: Sequence[Step], host: str) -> list[str]:
    placeholder = f"`command`: {{step.{name}}}"
    step = next((each for each in earlier if each.name == name), None)
    if step is None:
        names = ", ".join(each.name for each in earlier if each.stage.name == "run") or "none"
        return [f"{placeholder}: no step before this one has that name (run steps before it: {names})"]
    if step.stage.name != "run":
        return [f"{placeholder}: a step {step.stage.name} has no work directory"]
    if step.host != host:
        return [f"{placeholder}: it ran on host {step.host}, this one runs on {host}"]
    return []
