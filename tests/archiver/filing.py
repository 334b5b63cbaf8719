"""A case that was computed and fetched, ready to be archived, with a context that remembers like the core."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from mqi_archiver.config import ArchiveOptions, ArchiverSection
from mqi_archiver.plugin import mqi_stages
from mqi_cli import (
    CaseRef,
    Done,
    Earlier,
    Host,
    LocalPath,
    RemoteLayout,
    Stage,
    StageContext,
    Step,
    StepOptions,
    Wait,
    Workflow,
    build_manifest,
)
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost

KEY = "cabcdefghij"


class WithHost(StepOptions):
    """Options of steps that work on a host."""

    host: str
    to: LocalPath | None = None
    outputs: tuple[str, ...] = Field(())


def _never(case: CaseRef, ctx: StageContext) -> Done | Wait:
    raise AssertionError("only the archive step is run here")


def other_stage(name: str, *, job: bool = False) -> Stage:
    """Return a stage that is only looked at."""
    return Stage(name, _never, lane=name, options=WithHost, job=job)


@dataclass
class Turn:
    """A `StageContext` of the archive step."""

    config: Any
    options: Any
    workflow: Workflow
    earlier: list[Earlier]
    data_dir: Path
    hosts: dict[str, Host]
    step: str = "archive"
    part: str = ""
    attempt: int = 1
    turn: int = 1
    owner: str = ""
    gpus: tuple[()] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    stop_after: float = float("inf")  # bytes of progress until the worker is asked to end
    moved: float = 0.0
    is_recent: bool = True
    log: Any = field(default_factory=lambda: logging.LoggerAdapter(logging.getLogger("test"), {}))

    @property
    def host(self) -> Host:
        raise AssertionError("the archive step has no host of its own")

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        return ()

    @property
    def layout(self) -> RemoteLayout:
        raise AssertionError("the archive step has no host of its own")

    @property
    def fence(self) -> str:
        return f"{self.attempt}-{self.turn}"

    def host_named(self, name: str) -> Host:
        return self.hosts[name]

    def remember(self, **facts: Any) -> None:
        self.facts = {**self.facts, **facts}

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        self.moved += 1

    def stopping(self) -> bool:
        return self.moved >= self.stop_after


class Filing:
    """One case: input in a source, results where the download put them, a directory on a host, and the archive's place."""

    def __init__(self, base: Path, *, name: str = "patient-7/study", key: str = KEY) -> None:
        self.base = base
        self.source = base / "incoming"
        self.input = self.source / name
        self.archives = base / "archives"
        self.results = base / "results" / name
        write(self.input / "RP.dcm", b"plan")
        write(self.input / "field" / "01.ptn", bytes(range(256)) * 40)
        write(self.input / "field" / "empty", b"")
        write(self.results / "dose.raw", b"dose" * 1000)
        write(self.results / "sub" / "log.txt", b"fine\n")
        (self.results / "nothing").mkdir(exist_ok=True)
        self.case = CaseRef(key, name, 1, "incoming", self.input, build_manifest(self.input).fingerprint)
        self.far = base / "far"
        write(self.far / key / "work" / "simulate" / "_" / "1" / "dose.raw", b"dose" * 1000)
        write(self.far / "cother22222" / "input" / "a", b"another case")
        self.options: dict[str, Any] = {"to": self.archives}
        self.hosts: dict[str, Host] = {
            "hpc": LocalHost("hpc", LocalHostSection(type="local", base_dir=str(self.far)), base)
        }
        self.ctx = self.turn()

    def workflow(self) -> Workflow:
        """Return upload, run, download, archive."""
        (stage,) = mqi_stages()
        to = self.base / "results" / "{case_name}"
        return Workflow(
            "qa",
            (
                Step("upload", other_stage("upload"), WithHost(host="hpc")),
                Step("simulate", other_stage("run", job=True), WithHost(host="hpc")),
                Step("download", other_stage("download"), WithHost(host="hpc", to=to)),
                Step("archive", stage, ArchiveOptions(**self.options)),
            ),
        )

    def turn(self, **fields: Any) -> Turn:
        """Return a context for a fresh turn; what earlier ones remembered stays."""
        workflow = self.workflow()
        former: Turn | None = getattr(self, "ctx", None)
        fingerprint = build_manifest(self.results).fingerprint
        self.ctx = Turn(
            ArchiverSection(),
            workflow.steps[-1].options,
            workflow,
            [
                Earlier("upload", "", 1, {"fingerprint": self.case.fingerprint}),
                Earlier("simulate", "", 2, {}),
                Earlier("download", "", 1, {"fingerprint": fingerprint}),
            ],
            self.base / "data",
            self.hosts,
            facts=dict(former.facts) if former else {},
            turn=former.turn + 1 if former else 1,
        )
        for key, value in fields.items():
            setattr(self.ctx, key, value)
        return self.ctx

    def run(self, **fields: Any) -> Done | Wait:
        """Do one turn of the archive step."""
        ctx: StageContext = self.turn(**fields)
        return ctx.workflow.steps[-1].stage.run(self.case, ctx)

    def done(self, **fields: Any) -> dict[str, Any]:
        """Do one turn, which must finish, and return its facts."""
        ended = self.run(**fields)
        assert isinstance(ended, Done), ended
        return dict(ended.facts)

    def revise(self, **fields: Any) -> None:
        """Change the case."""
        self.case = replace(self.case, **fields)

    def files(self) -> list[str]:
        """Return every file below the archives' root but the mark."""
        found = (path for path in self.archives.rglob("*") if path.is_file() and path.name != ".mqi-archive")
        return sorted(path.relative_to(self.archives).as_posix() for path in found)

    @property
    def archive(self) -> Path:
        """The archive's path."""
        return self.archives / f"{self.case.name}.tar.gz"


class HostThatIsAway:
    """A host that can't be reached when its files are asked for."""

    name = "hpc"
    base_dir = PurePosixPath("/far")

    def __init__(self, error: Exception) -> None:
        self._error = error

    def files(self) -> Any:
        raise self._error


def write(path: Path, data: bytes) -> Path:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def content(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def stamps(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what shows that a directory was touched."""
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_size) for path in paths}


Spoil = Callable[[Path], None]
