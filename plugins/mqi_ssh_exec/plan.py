"""The parts of a step that fans out: listing them once, keeping the list on the host, finding one part's text there.

The texts may be names of the case's files, which no message, log or remote path may carry. So a part goes by its number
everywhere, and the list lies beside the case's input, which has those names anyway. It is named by its own hash: what
a worker writes that was given up long ago never changes a list that is in use.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mqi_cli import CaseRef, Done, Files, GiveUp, StageContext
from mqi_ssh_exec.for_each import ForEach, problem_of
from mqi_ssh_exec.work import work_of

_DIRECTORY = ".parts"
_DIGEST = re.compile(r"[0-9a-f]{32}\Z")
_MOST_LINES = 4 << 20  # bytes of a file of lines
_MOST_LIST = 16 << 20  # bytes of a list


@dataclass(frozen=True)
class Part:
    """What one part stands for: its text, and the text of each group of the pattern."""

    text: str
    groups: dict[str, str] = field(default_factory=dict)


def plan(case: CaseRef, ctx: StageContext) -> Done:
    """List the step's parts and keep the list on the host. Asked again, it lists them again."""
    del case  # what it needs lies on the host
    option: ForEach | None = ctx.options.for_each
    if option is None:
        raise changed(ctx)
    with ctx.host.files() as files:
        numbered = list(_texts(option, ctx, files))
        texts = [text for _, text in numbered]
        parts = select(texts, option)
        problem = _problem(parts, len(texts), option) or _repeated(numbered, parts)
        if problem:
            raise GiveUp(problem, hint=f"mend it, or `for_each` in the config; then: mqi case rerun {ctx.layout.key}")
        data = encode(parts, nonce=secrets.token_hex(16))
        digest = hashlib.sha256(data).hexdigest()[:32]
        path = _path(ctx, digest)
        files.make_directory(path.parent, mode=0o700, parents=True, exist_ok=True)
        files.write_bytes(path, data, mode=0o600)
    return Done({"parts": len(parts), "plan": digest, "passed_over": len(texts) - len(parts)})


def changed(ctx: StageContext) -> GiveUp:
    """Say that the config fans the step out now and did not when it began, or the other way round."""
    return GiveUp(
        f"`for_each` of step {ctx.step} was changed since the case came to it", hint=f"mqi case rerun {ctx.layout.key}"
    )


def _texts(option: ForEach, ctx: StageContext, files: Files) -> Iterator[tuple[int, str]]:
    """Yield what there is to fan out over, each with its number: of a line, that is its number in the file."""
    if option.items is not None:
        yield from enumerate(option.items, 1)
    elif option.files is not None:
        if files.stat(ctx.layout.input) is None:
            raise GiveUp(
                "the case's input is not on the host",
                hint=f"a step upload must come before; then: mqi case rerun {ctx.layout.key}",
            )
        yield from enumerate(sorted(matches(files, ctx.layout.input, PurePosixPath(option.files).parts)), 1)
    else:
        yield from _lines(option, ctx, files)


def _lines(option: ForEach, ctx: StageContext, files: Files) -> list[tuple[int, str]]:
    path = work_of(ctx, str(option.output_of)) / str(option.lines)
    there = files.stat(path)
    if there is None or not there.is_file:
        raise GiveUp(
            f"step {option.output_of} left no file where `lines` of step {ctx.step} points",
            hint="declare it in that step's `outputs`, so that it fails by itself",
        )
    if there.size > _MOST_LINES:
        raise GiveUp(f"the file of `lines` has {there.size} bytes; the limit is {_MOST_LINES}")
    text = files.read_bytes(path, limit=_MOST_LINES).decode("utf-8-sig", "surrogateescape")
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def matches(files: Files, directory: PurePosixPath, pattern: Sequence[str], base: str = "") -> Iterator[str]:
    """Yield the paths below a directory that match a pattern, level by level. A wildcard matches no leading dot."""
    for entry in files.listing(directory):
        if not fnmatch.fnmatchcase(entry.name, pattern[0]) or (entry.name.startswith(".") and pattern[0][0] != "."):
            continue
        if len(pattern) == 1:
            yield base + entry.name
        elif entry.is_dir:
            yield from matches(files, directory / entry.name, pattern[1:], f"{base}{entry.name}/")


def select(texts: Sequence[str], option: ForEach) -> list[Part]:
    """Return the parts that texts make: those that the pattern matches, with its groups."""
    if option.pattern is None:
        return [Part(text) for text in texts]
    parts, expression = [], re.compile(option.pattern)
    for text in texts:
        if found := expression.fullmatch(text):
            numbered = {str(number): value or "" for number, value in enumerate(found.groups(), 1)}
            parts.append(Part(text, numbered | {name: value or "" for name, value in found.groupdict().items()}))
    return parts


def _problem(parts: Sequence[Part], looked_at: int, option: ForEach) -> str:
    """Say by counts alone why a list can't be worked on: the texts may be names."""
    what = "lines" if option.lines is not None else "files" if option.files is not None else "texts"
    if not parts:
        less = f"; `pattern` fits none of {looked_at} {what}" if looked_at else f": there are no such {what}"
        return f"`for_each` gives no part{less}"
    if len(parts) > option.most:
        return f"`for_each` gives {len(parts)} parts, and `most` is {option.most}"
    faults = [problem for part in parts if (problem := problem_of(part.text))]
    return f"{len(faults)} of {len(parts)} {what} can't stand for a part: {faults[0]}" if faults else ""


def _repeated(numbered: Sequence[tuple[int, str]], parts: Sequence[Part]) -> str:
    """Say by numbers alone which lines are equal: a list in the config may not name a text twice either."""
    wanted = {part.text for part in parts}
    first: dict[str, int] = {}
    pairs = [
        (first[text], number)
        for number, text in numbered
        if text in wanted and first.setdefault(text, number) != number
    ]
    if not pairs:
        return ""
    more = f", and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return f"lines {pairs[0][0]} and {pairs[0][1]}{more} are the same: each part is to be another one"


def encode(parts: Sequence[Part], *, nonce: str) -> bytes:
    """Write a list of parts. The nonce keeps its hash, which messages carry, from telling what stands in it."""
    return json.dumps({"nonce": nonce, "parts": [[part.text, part.groups] for part in parts]}).encode()


def decode(data: bytes) -> list[Part]:
    """Read a list of parts. Raises `ValueError` for anything else."""
    try:
        return [
            Part(str(text), {str(key): str(value) for key, value in groups.items()})
            for text, groups in json.loads(data)["parts"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a list of parts") from error


def part_of(ctx: StageContext) -> Part:
    """Return what the context's part stands for. Raises `GiveUp` when the list is gone or is not what was listed."""
    parts = parts_of(ctx)
    try:
        return parts[int(ctx.part) - 1]
    except (ValueError, IndexError):
        raise _gone(ctx) from None


def as_argument(part: Part, option: ForEach | None) -> str:
    """Return what a command gets for a part: a path that begins with a dash in a form that no program takes for an option."""
    is_path = option is not None and option.files is not None
    return f"./{part.text}" if is_path and part.text.startswith("-") else part.text


def parts_of(ctx: StageContext) -> list[Part]:
    """Return what the parts of the context's step stand for. Raises `GiveUp` as `part_of` does."""
    planned = next((each for each in ctx.earlier if each.step == ctx.step and not each.part), None)
    digest = str(planned.facts.get("plan", "")) if planned else ""
    if not _DIGEST.match(digest):
        raise _gone(ctx)
    try:
        with ctx.host.files() as files:
            data = files.read_bytes(_path(ctx, digest), limit=_MOST_LIST)
        if hashlib.sha256(data).hexdigest()[:32] != digest:
            raise _gone(ctx)
        return decode(data)
    except (FileNotFoundError, ValueError):
        raise _gone(ctx) from None


def _gone(ctx: StageContext) -> GiveUp:
    return GiveUp(
        f"the list of the parts of step {ctx.step} is not on {ctx.host.name} any more, or was changed there",
        hint=f"mqi case rerun {ctx.layout.key}",
    )


def _path(ctx: StageContext, digest: str) -> PurePosixPath:
    return ctx.layout.root / _DIRECTORY / f"{ctx.step}-{digest}.json"
