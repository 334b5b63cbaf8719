"""Where a download's results come from and go to: the finished attempt of the run step, and the place on this machine."""

from __future__ import annotations

import errno
import glob
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mqi_cli import (
    CaseRef,
    Earlier,
    Entry,
    Files,
    GiveUp,
    Host,
    Manifest,
    NoShell,
    RetryLater,
    StageContext,
    Step,
    Unfit,
    Workflow,
    describe_os_error,
    local_path,
    parse_checksums,
)
from mqi_sftp.meter import Meter
from mqi_sftp.options import DownloadOptions, is_run, origin_step
from mqi_sftp.prove import hashed
from mqi_sftp.tree import Tree, joined, walk, walk_sum

_REMEMBERED = 4


@dataclass(frozen=True)
class Origin:
    """The finished run whose results are fetched, and the directories on the host that hold them.

    Each is known by what its files' paths begin with here: nothing for a run without parts, else the part's number.
    """

    step: str
    places: Mapping[str, PurePosixPath]

    def there(self, path: str) -> PurePosixPath:
        """Return where a file lies on the host."""
        if "" in self.places:
            return self.places[""] / path
        part, _, rest = path.partition("/")
        return self.places[f"{part}/"] / rest

    def walk(
        self, files: Files, *, alive: Callable[[], None] | None = None, share: Callable[[Entry], Entry] | None = None
    ) -> Tree:
        """List all of it, with paths as they are to be here. `share` may give an entry whose path is held already."""
        return joined({prefix: walk(files, place, alive=alive, share=share) for prefix, place in self.places.items()})

    def walk_sum(self, files: Files, *, alive: Callable[[], None] | None = None) -> int:
        """List all of it again; return the `Tree.sum` of it."""
        return sum(walk_sum(files, place, prefix, alive=alive) for prefix, place in self.places.items())

    def hashes(
        self, host: Host, files: Files, tree: Tree, *, timeout: float, meter: Meter, read_back: bool
    ) -> dict[str, str] | None:
        """Return the hash of each file of such a tree; files that the account can't read are left out.

        None where no program there hashes, unless they may be read back for it.
        """
        found: dict[str, str] = {}
        for prefix, place in self.places.items():
            below = tree.below(prefix)
            each_hash = hashed(host, files if read_back else None, place, below.files, timeout=timeout, meter=meter)
            try:
                found.update((prefix + each.path, value) for each, value in each_hash if value)
            except NoShell:
                return None
        return found


def find_origin(ctx: StageContext) -> Origin:
    """Return where the results lie. Raises `GiveUp` when no attempt of the run step has finished."""
    options: DownloadOptions = ctx.options
    step = _run_step(ctx.workflow, ctx.step)
    finished = _finished(ctx.earlier, step.name, ctx.part) if step else []
    if step is None or not finished:
        named = step.name if step else options.step or "run"
        raise GiveUp(
            f"there is nothing to fetch: step {named} of this case has not finished",
            hint="mqi case show tells its steps",
        )
    several = len(finished) > 1 or (finished[0].part and not ctx.part)
    places = {}
    for each in finished:
        work = ctx.layout.work(step.name, each.part, each.attempt)
        places[f"{each.part}/" if several else ""] = work / options.origin if options.origin else work
    return Origin(step.name, places)


def runs_before(workflow: Workflow, name: str) -> list[str]:
    """Return the steps before a download that may have left results: of them it notes which attempts it has seen."""
    before = itertools.takewhile(lambda step: step.name != name, workflow.steps)
    return [step.name for step in before if is_run(step) or step.stage.job]


def _run_step(workflow: Workflow, name: str) -> Step | None:
    names = [each.name for each in workflow.steps]
    return origin_step(workflow.steps, names.index(name)) if name in names else None


def _finished(earlier: Sequence[Earlier], step: str, part: str) -> list[Earlier]:
    """Return the attempts that finished a step: this part's, where there is one, else all parts', in their order."""
    parts = {each.part: each for each in earlier if each.step == step}
    if part in parts and (part or len(parts) == 1):
        return [parts[part]]
    if len(parts) > 1:
        parts.pop("", None)  # of a step that fans out, it is the plan that listed the others
    return sorted(parts.values(), key=lambda each: (len(each.part), each.part))


def find_destination(case: CaseRef, ctx: StageContext) -> Path:
    """Return where the results go. Raises `GiveUp` for a place inside the source, or one that can't be."""
    try:
        path = local_path(ctx.options.to, case, part=ctx.part)
    except ValueError as error:
        raise GiveUp(f"`to` of step {ctx.step} gives no usable path for this case: {error}") from error
    if not path.is_absolute():
        raise GiveUp(f"`to` of step {ctx.step} is not an absolute path", hint="mend it in the config: mqi config check")
    place = path.resolve()
    if place.is_relative_to(source_root(case).resolve()) or case.directory.resolve().is_relative_to(place):
        raise GiveUp(
            f"`to` of step {ctx.step} lies inside the source, or around it: results would be taken for input",
            hint="name another place in the config, then: mqi case retry",
        )
    return path


def source_root(case: CaseRef) -> Path:
    """Return the directory of the case's source, as far as the case tells: its own directory without its name."""
    name = PurePosixPath(case.name).parts
    parts = case.directory.parts
    if name and len(name) < len(parts) and parts[-len(name) :] == name:
        return case.directory.parents[len(name) - 1]
    return case.directory


class OwnDiskFull(Exception):
    """There is no room for notes beside mqi's state."""


@contextmanager
def _noting(what: str) -> Iterator[None]:
    """Tell an error of the disk that holds mqi's state: the results' disk would be blamed for it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OwnDiskFull from error
        raise RetryLater(
            f"mqi's own notes of what it fetched can't be {what}: {describe_os_error(error)}",
            hint="check the disk that `state.path` names",
        ) from error


class Placed:
    """Remembers which results of a case mqi put into place on this machine: only those, unchanged, may it replace."""

    def __init__(self, ctx: StageContext, case: CaseRef) -> None:
        self._place = ctx.data_dir / "placed"
        self._name = f"{case.key}.{ctx.step}.{ctx.part or '_'}"
        self._file = self._place / f"{self._name}.json"

    def fingerprints(self) -> list[str]:
        """Return the fingerprints of what was put there, oldest first."""
        try:
            with _noting("read"):
                found = json.loads(self._file.read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    def add(self, fingerprint: str) -> None:
        """Note what is about to be put there; durable when it returns. The former ones stay: the move may not happen."""
        known = [each for each in self.fingerprints() if each != fingerprint]
        written = self._file.with_suffix(".new")
        with _noting("written"):
            self._place.mkdir(parents=True, exist_ok=True, mode=0o750)
            with written.open("w") as stream:
                json.dump([*known, fingerprint][-_REMEMBERED:], stream)
                stream.flush()
                os.fsync(stream.fileno())
            written.rename(self._file)

    def keep(self, manifest: Manifest) -> None:
        """Keep every file's hash of what is to be put there, and those of what was put there last."""
        kept = self._checksums(manifest.fingerprint)
        written = kept.with_suffix(".new")
        latest = [kept, *map(self._checksums, self.fingerprints()[-1:])]
        with _noting("written"):
            self._place.mkdir(parents=True, exist_ok=True, mode=0o750)
            with written.open("wb") as stream:
                stream.writelines(manifest.checksum_lines())
            written.rename(kept)
            for each in self._place.glob(f"{glob.escape(self._name)}.*.sha256"):
                if each not in latest:
                    each.unlink(missing_ok=True)

    def checksums(self, fingerprint: str) -> dict[str, str]:
        """Return every file's hash of what was put there with that fingerprint; empty where that is not kept."""
        try:
            return parse_checksums(self._checksums(fingerprint).read_bytes())
        except (OSError, Unfit):
            return {}

    def _checksums(self, fingerprint: str) -> Path:
        return self._place / f"{self._name}.{fingerprint[:16]}.sha256"
