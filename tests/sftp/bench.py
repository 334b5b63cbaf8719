"""A case, a host and a context to move files with; directories compared byte by byte; hosts with one fault each."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mqi_cli import (
    CaseRef,
    Done,
    Earlier,
    Files,
    Host,
    Receiving,
    RemoteEntry,
    RemoteLayout,
    Resident,
    ResidentHost,
    Sending,
    Space,
    Stage,
    Step,
    StepOptions,
    Wait,
    Workflow,
    build_manifest,
)
from mqi_sftp.options import DownloadOptions, SftpSection, UploadOptions
from mqi_sftp.plugin import mqi_stages

KEY = "cabcdefghij"
UPLOAD, DOWNLOAD = mqi_stages()
STUDY = "1.2.826.0.1.3680043.8.498"


# what people and programs really call files, and what no shell and no format string may trip over
ODD_NAMES = {
    "with space.ptn": b"1",
    "-rf": b"2",
    "--help": b"3",
    "quote'\"`$(id);&|.txt": b"4",
    "ünïcödé 日本語 😀": b"5",
    "a" * 255: b"6",
    "{0}%s%n": b"7",
    "-": b"8",
    "~": b"9",
    "*?[x]": b"10",
    "dir with space/-x/ leading": b"11",
    "dir with space/trailing ": b"12",
    "#hash": b"13",
    ".hidden": b"14",
    "cafe\u0301": b"decomposed",
    "caf\u00e9": b"composed",
}


class RunOptions(StepOptions):
    """What these tests need of a run step."""

    host: str = "far"
    outputs: tuple[str, ...] = ()


def never(case: CaseRef, ctx: Any) -> Done:
    """Stand for a stage that these tests never call."""
    raise AssertionError("the run stage is not what is tested here")


RUN = Stage("run", never, "ssh-exec", RunOptions)


class Context:
    """A turn of a step, as a worker would give it. What the stage tells is kept."""

    def __init__(self, bench: Bench, step: Step, *, attempt: int = 1, turn: int = 1, host: Host | None = None) -> None:
        self.config = bench.section
        self.options = step.options
        self.log = logging.LoggerAdapter(logging.getLogger("mqi.stage"), {})
        self.step = step.name
        self.part = ""
        self.attempt = attempt
        self.turn = turn
        self.workflow = bench.workflow
        self.earlier: Sequence[Earlier] = [Earlier("simulate", "", bench.run_attempt)]
        self.facts: dict[str, Any] = {}
        self.gpus: Sequence[Any] = ()
        self.data_dir = bench.directory / "data"
        self.host = host or bench.host
        self.key = bench.key
        self.former: Sequence[str] = bench.former
        self.told: list[float] = []
        self.on_progress: Callable[[float], None] = lambda _done: None
        self.stop: Callable[[], bool] = lambda: False

    @property
    def layout(self) -> RemoteLayout:
        return RemoteLayout(self.host.base_dir, self.key)

    def former_layouts(self, case: CaseRef) -> Sequence[RemoteLayout]:
        return [RemoteLayout(self.host.base_dir, key) for key in self.former]

    @property
    def fence(self) -> str:
        return f"{self.attempt}-{self.turn}"

    def host_named(self, name: str) -> Host:
        return self.host

    def remember(self, **facts: Any) -> None:
        self.facts |= facts

    def progress(self, done: float, total: float, unit: str, *, detail: str = "", note: str = "") -> None:
        self.told.append(done)
        self.on_progress(done)

    def stopping(self) -> bool:
        return self.stop()


class Bench:
    """One case on its way to and from one host."""

    def __init__(self, directory: Path, host: Host) -> None:
        self.directory = directory
        self.host = host
        self.key = KEY
        self.former: Sequence[str] = ()
        self.source = directory / "source" / "case"
        self.source.mkdir(parents=True, exist_ok=True)
        self.destination = directory / "results" / "case"
        self.run_attempt = 1
        self.section = SftpSection()
        self.origin = "dose"
        self._turns = 0

    @property
    def root(self) -> Path:
        """What is the case's on the host; its files lie on this machine."""
        return Path(self.host.base_dir) / self.key

    def next_revision(self, key: str) -> None:
        """From now on the case is its next revision, which has a key and a directory of its own."""
        self.former = (self.key, *self.former)
        self.key = key

    @property
    def input(self) -> Path:
        """Where the case's files are to be on the host."""
        return self.root / "input"

    @property
    def outputs(self) -> Path:
        """Where the run's results are on the host."""
        return self.root / "work" / "simulate" / "_" / str(self.run_attempt) / self.origin

    @property
    def workflow(self) -> Workflow:
        """Upload, run, download."""
        options = {"host": "far", "from": self.origin, "to": self.destination.parent / "{case_name}"}
        return Workflow(
            "qa",
            (
                Step("upload", UPLOAD, UploadOptions(host="far")),
                Step("simulate", RUN, RunOptions()),
                Step("download", DOWNLOAD, DownloadOptions.model_validate(options)),
            ),
        )

    def case(self, *, fingerprint: str | None = None) -> CaseRef:
        """Return the case as it is accepted now."""
        if fingerprint is None:
            fingerprint = build_manifest(self.source).fingerprint
        return CaseRef(self.key, "case", 1 + len(self.former), "source", self.source, fingerprint)

    def context(self, step: str, **more: Any) -> Context:
        """Return the context of the next turn."""
        self._turns += 1
        chosen = self.workflow.step(step)
        assert chosen is not None
        return Context(self, chosen, turn=more.pop("turn", self._turns), **more)

    def upload(self, *, case: CaseRef | None = None, **more: Any) -> Done | Wait:
        """Upload in a turn of its own."""
        return UPLOAD.run(case or self.case(), self.context("upload", **more))

    def download(self, *, case: CaseRef | None = None, **more: Any) -> Done | Wait:
        """Download in a turn of its own."""
        return DOWNLOAD.run(case or self.case(fingerprint="f"), self.context("download", **more))

    def leftovers(self) -> list[str]:
        """Return the names beside the input and the results that should not stay."""
        places = (self.root, self.destination.parent)
        found = [each.name for place in places if place.is_dir() for each in place.iterdir()]
        return [
            each
            for each in found
            if each.startswith((".incoming", ".beginning", ".replaced", ".mqi")) or each.endswith("draft")
        ]


def fill(directory: Path, files: dict[str, bytes], *, empty: Sequence[str] = ()) -> None:
    """Write files, and directories that stay empty."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in empty:
        (directory / name).mkdir(parents=True)


def sample_case(seed: int = 1, *, scale: int = 1) -> dict[str, bytes]:
    """Return a case as a treatment machine writes it, 223 files, with small spot logs. `scale` makes them larger."""
    chance = random.Random(seed)
    files = {f"{STUDY}/RP.{STUDY}.1.dcm": chance.randbytes(9000)}
    for field in range(3):
        name = f"{STUDY}/2025042401440{field}00"
        files[f"{name}/PlanInfo.txt"] = b"PATIENT_ID,55061194\nBEAM_NUMBER,2\n"
        files[f"{name}/PlanRange.txt"] = b"1,2,3\n" * 36
        for layer in range(36):
            stem = f"{name}/{layer + 1:02d}_{20250424014403 + layer}_001_{field + 1}_{layer}"
            files[f"{stem}.ptn"] = chance.randbytes(16 * chance.randrange(20, 300) * scale)
            files[f"{stem}.mgn"] = chance.randbytes(chance.randrange(1000, 3000))
    return files


def contents(directory: Path) -> dict[str, bytes | None]:
    """Return every file's bytes, and None for each directory."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
    }


def flip_a_byte(path: Path, *, at: int = 0) -> None:
    """Damage a file on the disk without changing its size or its times."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class FilesThrough:
    """Passes every operation on. Faults are subclasses that change one."""

    def __init__(self, inner: Files) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def list_many(
        self, paths: Sequence[PurePosixPath], **more: Any
    ) -> Iterator[tuple[PurePosixPath, list[RemoteEntry]]]:
        for path in paths:
            yield path, list(self.listing(path))

    def write_many(self, place: PurePosixPath, files: Iterable[Sending], **more: Any) -> Iterator[Sending]:
        for each in files:
            with each.source() as source:
                self.write(each.path, source, mode=each.open_mode, **more)
            self.set_times(each.path, mtime=each.mtime, mode=each.mode)
            yield each

    def read_many(self, files: Iterable[Receiving], **more: Any) -> Iterator[Receiving]:
        for each in files:
            with each.sink() as sink:
                self.read(each.path, sink, size=each.size, **more)
            yield each


class HostThrough:
    """Passes every operation on, the files' through `FilesThrough` or a subclass of it.

    `far` rewrites the program that a stream's far side runs: a fault over there, in a shell's words. `quick` does that
    to the one that stays loaded there; without it the host keeps none.
    """

    def __init__(
        self,
        inner: Host,
        files: Callable[[Files], Any] = FilesThrough,
        *,
        far: Callable[[str], str] = lambda program: program,
        quick: Callable[[str], str] | None = None,
    ) -> None:
        self.inner = inner
        self._quick = quick
        self._files = files
        self._far = far

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ask(self, program: Resident, request: bytes, **more: Any) -> bytes | None:
        if self._quick is None or not isinstance(self.inner, ResidentHost):
            return None
        changed = self._quick(program.text.decode())
        return self.inner.ask(Resident(program.name, changed.encode()), request, **more | {"cold": True})

    @contextlib.contextmanager
    def files(self, **more: Any) -> Iterator[Any]:
        with self.inner.files(**more) as files:
            yield self._files(files)

    @contextlib.contextmanager
    def start(self, argv: Sequence[str], **more: Any) -> Iterator[Any]:
        program = [argv[0], argv[1], self._far(argv[2]), *argv[3:]]
        with self.inner.start(program, **more) as process:
            yield process


class DamagesWhatArrived:
    """The same disk, at the far end of a stream: a byte changes after it was written, before it is proven."""

    def __init__(self, name: str, times: list[int]) -> None:
        self.name = name
        self.times = times

    def __call__(self, program: str) -> str:
        assert "\nsay proving\n" in program
        if not self.times:
            return program
        flip = f"""f=$(find "$mine" -name {self.name}); m=$(stat -c %Y "$f"); printf X |
            dd of="$f" bs=1 seek={self.times.pop()} conv=notrunc 2>/dev/null; touch -d "@$m" "$f" """
        return program.replace("\nsay proving\n", f"\n{flip}\nsay proving\n")


def damages_what_is_sent(program: str) -> str:
    """Make a way home on which bytes are changed."""
    assert "| xargs -0 -r cat; say sent; cat; }" in program
    return program.replace("| xargs -0 -r cat; say", "| xargs -0 -r cat | tr '\\001\\002' '\\002\\003'; say")


def tells_no_room(program: str) -> str:
    """Make a far side that can't say beforehand how much room is left."""
    assert "$(stat -f -c '%a %S %c %d' .)" in program
    return program.replace("$(stat -f -c '%a %S %c %d' .)", "999999999 4096 0 0")


def has_little_room(program: str) -> str:
    """Make a far side with little left."""
    return program.replace("$(stat -f -c '%a %S %c %d' .)", "1 1000 0 0")


class DamagesWhatIsWritten(FilesThrough):
    """A disk that gets a byte of one file wrong, once for each item of `times`."""

    def __init__(self, inner: Files, name: str, times: list[int]) -> None:
        super().__init__(inner)
        self.name = name
        self.times = times

    def set_times(self, path: PurePosixPath, **more: Any) -> None:
        self.inner.set_times(path, **more)
        if path.name == self.name and self.times:
            flip_a_byte(Path(path), at=self.times.pop())


class HasLittleRoom(FilesThrough):
    """A file system with little left."""

    def space(self, path: PurePosixPath) -> Space | None:
        return Space(free_bytes=1000, total_bytes=10**9, free_inodes=None)


class GrowsWhileRead(FilesThrough):
    """A program on the host that still writes its results while they are fetched."""

    def __init__(self, inner: Files, target: Path) -> None:
        super().__init__(inner)
        self.target = target

    def read(self, path: PurePosixPath, sink: IO[bytes], **more: Any) -> int:
        with self.target.open("ab") as stream:
            stream.write(b"more")
        return self.inner.read(path, sink, **more)


class DamagesWhatIsRead(FilesThrough):
    """A way home on which one byte of each file is changed."""

    def read(self, path: PurePosixPath, sink: IO[bytes], **more: Any) -> int:
        whole = io.BytesIO()
        size = self.inner.read(path, whole, **more)
        data = bytearray(whole.getvalue())
        if data:
            data[-1] ^= 1
        sink.write(bytes(data))
        return size


def peak_of(act: Callable[[], object]) -> int:
    """Return the most bytes that were held while something was done."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def remove(directory: Path) -> None:
    """Remove a directory and all below it."""
    shutil.rmtree(directory)
