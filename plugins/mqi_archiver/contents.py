"""What goes into a case's archive: the results as they were fetched, the input as it was accepted, and who they are."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqi_cli import (
    DOWNLOAD,
    CaseRef,
    Earlier,
    GiveUp,
    Manifest,
    RetryLater,
    StageContext,
    Step,
    Unfit,
    build_manifest,
    describe_os_error,
    local_path,
)
from mqi_cli import __version__ as mqi_version

MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
FORMAT = 1


@dataclass(frozen=True)
class Tree:
    """A directory that goes into the archive below `prefix`, proven to be what `manifest` says."""

    prefix: str
    directory: Path
    manifest: Manifest


@dataclass(frozen=True)
class Contents:
    """Everything that an archive holds. `document` says what it is, `sums` is the hash of every file by member name."""

    trees: tuple[Tree, ...]
    document: bytes

    @property
    def sums(self) -> dict[str, str]:
        """Return the SHA-256 of every member but the checksum file itself."""
        found = {f"{tree.prefix}/{each.path}": each.sha256 for tree in self.trees for each in tree.manifest.files}
        return {MANIFEST: hashlib.sha256(self.document).hexdigest(), **dict(sorted(found.items()))}

    @property
    def checksums(self) -> bytes:
        """Return the checksum file: the unpacked archive proves itself by `sha256sum -c`."""
        return "".join(f"{sha256}  {name}\n" for name, sha256 in self.sums.items()).encode()

    @property
    def files(self) -> int:
        """Count the files of all trees."""
        return sum(len(tree.manifest.files) for tree in self.trees)

    @property
    def size(self) -> int:
        """Sum of the files' sizes in bytes."""
        return sum(tree.manifest.size for tree in self.trees)


def downloads_before(ctx: StageContext) -> list[str]:
    """Return the download steps that come before this one."""
    before = itertools.takewhile(lambda step: step.name != ctx.step, ctx.workflow.steps)
    return [step.name for step in before if step.stage.name == DOWNLOAD]


def downloads(ctx: StageContext) -> Iterator[tuple[Step, Earlier]]:
    """Yield each part of each download step that finished before this step."""
    names = downloads_before(ctx)
    for step in (step for step in ctx.workflow.steps if step.name in names):
        yield from ((step, each) for each in ctx.earlier if each.step == step.name)


def identity(case: CaseRef, ctx: StageContext) -> str:
    """Return a digest of what the archive is to hold, computed from what was recorded, without reading a file."""
    parts = [case.key, case.fingerprint, str(ctx.options.include_input)]
    parts += [f"{step.name}/{each.part}/{each.facts.get('fingerprint')}" for step, each in downloads(ctx)]
    parts += [f"{each.step}/{each.part}/{each.attempt}" for each in ctx.earlier]  # a rerun is another one
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def gather(case: CaseRef, ctx: StageContext, *, read: Callable[[int], None]) -> Contents:
    """Prove results and input against what was recorded of them, by reading them.

    Raises `GiveUp` for anything that is not what was fetched or accepted: it must not be filed under the case's name.
    """
    trees = [_results(case, step, each, read) for step, each in downloads(ctx)]
    if ctx.options.include_input:
        trees.append(_input(case, read))
    document = {
        "format": FORMAT,
        "mqi": mqi_version,
        "key": case.key,
        "name": case.name,
        "source": case.source,
        "revision": case.revision,
        "fingerprint": case.fingerprint,
        "workflow": ctx.workflow.name,
        "steps": _steps(ctx),
        "contents": [
            {"prefix": each.prefix, "fingerprint": each.manifest.fingerprint, "files": len(each.manifest.files),
             "bytes": each.manifest.size}
            for each in trees
        ],
    }  # fmt: skip
    return Contents(tuple(trees), json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _results(case: CaseRef, step: Step, earlier: Earlier, read: Callable[[int], None]) -> Tree:
    fetched = earlier.facts.get("fingerprint")
    again = f"fetch them again: mqi transfer download {case.key} --step {step.name}"
    if not isinstance(fetched, str) or not fetched:
        raise GiveUp(f"step {step.name} did not record what it fetched", hint=again)
    try:
        directory = local_path(step.options.to, case, part=earlier.part)  # type: ignore[attr-defined]
        manifest = build_manifest(directory, read=read)
    except (Unfit, ValueError) as error:
        raise GiveUp(f"the results of step {step.name} can't be archived: {error}", hint=again) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GiveUp(f"the results of step {step.name} are no longer where it put them", hint=again) from error
    except OSError as error:
        raise RetryLater(f"the results of step {step.name} can't be read: {describe_os_error(error)}") from error
    if manifest.fingerprint != fetched:
        raise GiveUp(
            f"the results of step {step.name} are not what it fetched: {len(manifest.files)} files", hint=again
        )
    prefix = f"results/{step.name}/{earlier.part}" if earlier.part else f"results/{step.name}"
    return Tree(prefix, directory, manifest)


def _input(case: CaseRef, read: Callable[[int], None]) -> Tree:
    hint = "to archive the results alone set include_input: false in the step; then: mqi case retry"
    try:
        manifest = build_manifest(case.directory, read=read)
    except Unfit as error:
        raise GiveUp(f"the input can't be archived: {error.reason}", hint=hint) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GiveUp("the input is no longer in its source", hint=hint) from error
    except OSError as error:
        raise RetryLater(f"the input can't be read: {describe_os_error(error)}", hint="mqi doctor") from error
    if case.fingerprint and manifest.fingerprint != case.fingerprint:
        raise GiveUp("the input in its source is not what was accepted and computed", hint=hint)
    return Tree("input", case.directory, manifest)


def _steps(ctx: StageContext) -> list[dict[str, Any]]:
    stages = {step.name: step.stage.name for step in ctx.workflow.steps}
    order = list(stages)
    done = sorted((each for each in ctx.earlier if each.step in stages), key=lambda e: (order.index(e.step), e.part))
    return [
        {"step": e.step, "stage": stages[e.step], "part": e.part, "attempt": e.attempt, "facts": dict(e.facts)}
        for e in done
    ]
