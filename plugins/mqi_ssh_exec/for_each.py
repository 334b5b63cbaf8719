"""What a step fans out over, as the operator writes it: files of the case, lines of an earlier step's output, or a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mqi_cli import MAX_PARTS, Section, Step

MOST_TEXT = 4096  # characters of one part's text; it becomes an argument of a command


def _below(value: str) -> str:
    path = PurePosixPath(value)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(ord(each) < 32 for each in value):
        raise ValueError("a relative path is wanted, without `..`")
    if "**" in value:
        raise ValueError("`**` means nothing here; name each level")
    return str(path)


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _text(value: str) -> str:
    if problem := problem_of(value):
        raise ValueError(problem)
    return value


def problem_of(text: str) -> str:
    """Say why a text can't stand for a part; empty when it can."""
    if not text.strip():
        return "an empty text"
    if len(text) > MOST_TEXT:
        return f"a text of more than {MOST_TEXT} characters"
    if any((ord(each) < 32 and each != "\t") or ord(each) == 127 for each in text):
        return "a text with control characters"
    return ""


class ForEach(Section):
    """What a step fans out over: one of `files`, `output_of` with `lines`, and `items` (also written as a plain list)."""

    files: Annotated[str, AfterValidator(_below)] | None = Field(
        None, description="A pattern below the case's input: one part for each file or directory that it matches."
    )
    output_of: str | None = Field(None, description="An earlier run step, which wrote the file that `lines` names.")
    lines: Annotated[str, AfterValidator(_below)] | None = Field(
        None,
        description="A file in that step's work directory: one part for each line that is not empty; "
        "no two may be equal.",
    )
    items: tuple[Annotated[str, AfterValidator(_text)], ...] | None = Field(None, description="One part for each text.")
    pattern: Annotated[str, AfterValidator(_expression)] | None = Field(
        None,
        description="A regular expression that a whole path, line or text must match to become a part. "
        "Its groups are the placeholders {part.1}, {part.2}, … and {part.NAME}.",
    )
    most: int = Field(100, ge=1, le=MAX_PARTS, description="With more parts than these the case is held instead.")

    @model_validator(mode="after")
    def _check(self) -> ForEach:
        given = [self.files is not None, self.output_of is not None or self.lines is not None, self.items is not None]
        if sum(given) != 1 or (self.output_of is None) != (self.lines is None):
            raise ValueError(
                "name exactly one: {files: '*/PlanInfo.txt'}, {output_of: STEP, lines: FILE}, or a list of texts"
            )
        if self.items is not None and not self.items:
            raise ValueError("the list is empty: the step would have no part")
        if self.items is not None and len(set(self.items)) < len(self.items):
            raise ValueError("a text stands twice in the list")
        if self.items is not None and len(self.items) > self.most:
            raise ValueError(f"the list has {len(self.items)} texts, and `most` is {self.most}")
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the pattern's groups: their numbers, and the names of those that have one."""
        if self.pattern is None:
            return ()
        expression = re.compile(self.pattern)
        return (*(str(number + 1) for number in range(expression.groups)), *expression.groupindex)


def _listed(value: Any) -> Any:
    return {"items": value} if isinstance(value, list | tuple) else value


ForEachOption = Annotated[ForEach | None, BeforeValidator(_listed, json_schema_input_type=ForEach | list[str] | None)]


def check_for_each(option: ForEach | None, host: str, earlier: Sequence[Step]) -> list[str]:
    """Return one sentence for each thing that is wrong with it where its step stands in the workflow."""
    if option is None or option.output_of is None:
        return []
    name = option.output_of
    step = next((each for each in earlier if each.name == name), None)
    if step is None:
        names = ", ".join(each.name for each in earlier if each.stage.name == "run") or "none"
        return [f"`for_each`: no step before this one is named {name} (run steps before it: {names})"]
    if step.stage.name != "run":
        return [f"`for_each`: a step {step.stage.name} has no work directory whose lines could be read"]
    if step.host != host:
        return [f"`for_each`: step {name} runs on host {step.host}, this one on {host}"]
    if step.fans_out:
        return [f"`for_each`: step {name} fans out itself; its parts have no one file of lines"]
    return []
