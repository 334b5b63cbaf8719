"""The upload by one stream: the far side lists what it has, takes the rest as one tar stream, proves and publishes it.

    here                                        there (`far_program.RECEIVE`)
    one command                            ->   what it can, its free space, whether anything is there
    where something is: `take`             ->   what earlier turns left and what the input holds, hashed
    keep, begin, append; then the stream   ->   `.incoming-<fence>/`, and `.receiving-<fence>/` for the notes
    the last member: a note                ->   hashes what lies on its disk, makes the fingerprint of it, compares it
                                                with the accepted one; flushes, renames
                                           <-   `done` and that fingerprint, compared once more here

One connection, one command and four or five round trips, whatever the number of files. What is proven is that the far side holds
what was accepted: so the bytes are not hashed here once more while they go out, only where the two differ, to tell why.
The note comes last, so a stream that broke off can't be taken for whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from mqi_cli import (
    CaseRef,
    Entry,
    HostError,
    HostFault,
    HostFull,
    Manifest,
    ManifestFile,
    RetryLater,
    StageContext,
    empty_directories,
    hash_file,
    tool_dir,
)
from mqi_sftp import tar_stream
from mqi_sftp.far_program import RECEIVE
from mqi_sftp.far_side import FarSide
from mqi_sftp.held import Held
from mqi_sftp.meter import Meter, Stopping
from mqi_sftp.plan import DIRECTORY_MODE, RESUME_FROM, SPARE, Fence, Mark, Proven, compare, whole_mtime
from mqi_sftp.room import check_room
from mqi_sftp.source import (
    CHUNK,
    WatchedSource,
    check_accepted,
    check_at_rest,
    reading,
    source_error,
    survey_source,
)
from mqi_sftp.tree import Tree

BULK = 4 << 20  # bytes from which on a connection of its own pays
# the places that files are copied from: what earlier turns left, an input that is to be replaced, an earlier revision's
TAKEN, INPUT, FORMER = "taken", "input", "former"
DATED_FROM = 256 << 10  # bytes from which on a file is not sent for its time alone: to set it takes two processes there
_NOTE_MODE = 0o640
_AT_ONCE = 12 << 20  # bytes that the far side hashes in one of several programs at once: worth its start
_MOST_AT_ONCE = 1000
_LAST_WORDS = 10.0  # seconds
_MOST_WORDS = 100  # lines


class Differs(Exception):
    """What lies there is not what was sent. The next round sends again what is wrong."""


@dataclass(frozen=True)
class Share:
    """Which files the far side has already, and how much of others it may have, and where."""

    whole: Mapping[str, str]  # each with the place that it is copied from
    dated: tuple[Entry, ...]  # those of them whose time or mode is another one now
    begun: tuple[tuple[Entry, int, str], ...]


class UpStream:
    """One turn's way up. `hashes` holds what is known of the source's files."""

    def __init__(self, case: CaseRef, ctx: StageContext, fence: Fence, meter: Meter) -> None:
        self._case = case
        self._ctx = ctx
        self._fence = fence
        self._meter = meter
        self._hashes: dict[str, str] = {}
        self._wanted = ""
        self._there: tuple[Tree, dict[str, str]] | None = None  # the input that is there, and the hash of each file

    def upload(self) -> Proven:
        """Bring the case there, or find it there. Raises `Unable`, `Differs`, and what an upload raises."""
        wanted = self._case.fingerprint
        entries = None if wanted else survey_source(self._case, self._meter)
        if entries is not None:
            wanted = self._manifest(entries).fingerprint
        self._wanted = wanted
        with self._far(bulk=None) as far:
            state = far.greet()
            if state == INPUT and (there := self._proven(far)):
                self._ctx.log.info("all of it is on %s, proven by %s over %s", far.host, far.hash_tool, far.way)
                return there
            # only now: a case that is there needs its source no more
            entries = entries or survey_source(self._case, self._meter)
            if far.process.bulk or self._meter.total < BULK:
                return self._bring(far, state, entries)
        self._there = None
        with self._far(bulk=True) as far:
            return self._bring(far, far.greet(), entries)

    def _proven(self, far: FarSide) -> Proven | None:
        """Return what the input that is there holds when it is the wanted one; proven, not believed."""
        self._meter.begin("proving what is there")
        self._there = tree, hashes = far.inventory()
        there = tree.manifest(hashes)
        if there.fingerprint == self._wanted and not tree.unfit:
            far.say("good")
            return Proven.of(there)
        self._ctx.log.warning("the input on %s is not what was put there; it is sent again", far.host)
        return None

    def _bring(self, far: FarSide, state: str, entries: list[Entry]) -> Proven:
        places = self._places(far, state, entries)
        count, size = len(entries), sum(each.size for each in entries if not each.is_dir)
        dropped, space = False, far.space
        if TAKEN in places and space.free_bytes < size * SPARE:
            # too little room for what earlier turns left beside its copy: begin anew in its place
            dropped = True
            space = replace(space, free_bytes=space.free_bytes + places.pop(TAKEN).bytes)
        check_room(far.host, space, size=size, count=count)
        share = self._share(entries, places)
        del places
        return self._send(far, entries, share, dropped=dropped)

    def _places(self, far: FarSide, state: str, entries: list[Entry]) -> dict[str, Held]:
        """Take over what earlier turns left, and read what that and the input hold: what is nearest to the case first."""
        there = None
        if self._there:
            there = Held(entries)
            there.take(*self._there)
            self._there = None
        elif state == INPUT:
            there = far.held(entries)
        places: dict[str, Held] = {}
        if state in (INPUT, "found"):
            far.say("take")
            with far.patient(self._meter.total):  # where links can't be made it is copied
                while (state := far.state()) in (TAKEN, INPUT, FORMER) and state not in places:
                    places[state] = far.held(entries)
            if there:
                places[INPUT] = there
        if state == "stale":
            raise RetryLater("a later turn of this step is at work on the host")
        if state not in ("fresh", "all"):
            raise far.nonsense()
        return places

    @contextmanager
    def _far(self, *, bulk: bool | None) -> Iterator[FarSide]:
        layout, host = self._ctx.layout, self._ctx.host
        place = str(tool_dir(layout.base_dir))
        former = [str(each.input) for each in self._ctx.former_layouts(self._case)]
        argv = ["sh", "-c", RECEIVE, "mqi-receive", str(layout.root), str(self._fence), self._wanted, place, *former]
        more = {"doing": "receiving the stream", "limit": self._ctx.config.verify_timeout}
        with host.start(argv, bulk=bulk) as process, FarSide(host.name, process, self._meter, **more) as far:
            yield far

    def _manifest(self, entries: list[Entry]) -> Manifest:
        for each in entries:
            if not each.is_dir and each.path not in self._hashes:
                self._hash(each)
        files = tuple(
            ManifestFile(each.path, each.size, self._hashes[each.path]) for each in entries if not each.is_dir
        )
        return Manifest(files, empty_directories(entries))

    def _hash(self, entry: Entry, *, keep: bool = True) -> str:
        if known := self._hashes.get(entry.path):
            return known
        try:
            sha256 = hash_file(self._case.directory / entry.path, read=self._meter.alive)
        except OSError as error:
            raise source_error(error) from error
        if keep:
            self._hashes[entry.path] = sha256
        return sha256

    def _share(self, entries: list[Entry], places: Mapping[str, Held]) -> Share:
        """Compare with what is there. What has the right size is hashed here too, then kept if it is equal."""
        whole: dict[str, str] = {}
        dated: list[Entry] = []
        begun: dict[str, tuple[Entry, int, str]] = {}
        for place, held in places.items():
            for at, each in enumerate(entries):
                size = held.size_of(at)
                if size < 0 or each.path in whole:
                    continue
                same = size == each.size and (held.is_as_due(at) or size >= DATED_FROM)
                if same and (known := held.sha256(at)) and known == self._hash(each, keep=False):
                    whole[each.path] = place
                    if not held.is_as_due(at):
                        dated.append(each)
                elif RESUME_FROM <= size < each.size:
                    begun.setdefault(each.path, (each, size - size % RESUME_FROM, place))
        return Share(whole, tuple(dated), tuple(each for path, each in begun.items() if path not in whole))

    def _send(self, far: FarSide, entries: list[Entry], share: Share, *, dropped: bool) -> Proven:
        files = [each for each in entries if not each.is_dir]
        proven = Proven(len(files), sum(each.size for each in files), self._wanted)
        self._ctx.log.info(
            "one stream to %s over %s, proven there by %s; of %d files %d are there, %d begun",
            *(far.host, far.way, far.hash_tool, proven.files, len(share.whole), len(share.begun)),
        )
        try:
            far.say("go")
            if dropped:
                far.say("drop", now=False)
            sent = self._keep(far, entries, share)
            for each, length, place in share.begun:
                if self._append(far, each, length, place):
                    sent.add(each.path)
            far.say(f"stream {_at_once(proven)} {len(entries)}", now=False)
            del files
            self._stream(far, [each for each in entries if each.path not in sent])
            check_at_rest(self._case, entries)
            far.send(self._note(proven) + tar_stream.END)
            far.end_input()
        except HostFault as fault:
            raise far.failure() from fault
        except Stopping:
            with contextlib.suppress(HostError):
                far.process.wait(_LAST_WORDS)  # what is under way still arrives, and need not be sent again
            raise
        self._meter.begin("proving")
        self._await_end(far, entries)
        return proven

    def _keep(self, far: FarSide, entries: list[Entry], share: Share) -> set[str]:
        """Have copied there what is there already, and return the paths; none where that can't be done."""
        if not share.whole:
            far.say("kept", now=False)
            return set()
        size = sum(each.size for each in entries if each.path in share.whole)
        with far.patient(size):
            for place in sorted(set(share.whole.values())):
                length = sum(len(each) for each in _names(share, place))
                far.say(f"keep {length} {place}", now=False)
                for name in _names(share, place):
                    far.send(name)
            far.say("kept 1")
            said = far.line()
        if said == b"kept nothing":
            self._ctx.log.warning("what is on %s already can't be copied there; it is sent again", far.host)
            return set()
        if said != b"kept":
            raise far.failure()
        self._meter.keep(files=len(share.whole), size=size)
        for each in share.dated:
            self._date(far, each)
        return set(share.whole)

    def _append(self, far: FarSide, entry: Entry, length: int, place: str) -> bool:
        """Have a file's beginning proven there and send the rest; False when it is not a beginning of this file."""
        self._meter.begin_file(entry.path)
        far.say(f"begin {length} {place}\n./{entry.path}")
        with WatchedSource(self._case.directory / entry.path) as source:
            source.skip(length, alive=self._meter.alive)
            with far.patient(length):
                begun = far.answer("begun")
            if begun != source.digest.hexdigest():
                far.say(f"forget -\n./{entry.path}")
                return False
            self._meter.done += length
            far.say(f"append {entry.size - length}\n./{entry.path}", now=False)
            self._copy(far, source, entry.size - length)
        self._date(far, entry)
        return True

    def _date(self, far: FarSide, entry: Entry) -> None:
        mark = Mark.due(entry)
        far.say(f"finish {mark.mtime} {mark.mode:o}\n./{entry.path}", now=False)

    def _stream(self, far: FarSide, entries: list[Entry]) -> None:
        prefix = f".incoming-{self._fence}/".encode()
        for each in entries:
            name = prefix + _raw(each.path)
            if each.is_dir:
                mtime = whole_mtime(each.mtime_ns)
                far.send(tar_stream.directory_header(name, mode=DIRECTORY_MODE, mtime=mtime))
                continue
            self._meter.begin_file(each.path)
            with reading(self._case.directory / each.path) as source:
                mark = Mark.due(each)
                far.send(tar_stream.file_header(name, size=each.size, mode=mark.mode, mtime=mark.mtime))
                self._copy(far, source, each.size)
            far.send(tar_stream.padding(each.size))

    def _copy(self, far: FarSide, source: IO[bytes], size: int) -> None:
        left = size
        while left:
            count = far.pass_on(source, self._meter.piece(min(CHUNK, left)))
            if not count:
                raise RetryLater("the source is not at rest: a file became shorter while it was sent")
            left -= count
            self._meter.move(count)

    def _note(self, proven: Proven) -> bytes:
        text = json.dumps({"fingerprint": proven.fingerprint, "files": proven.files, "bytes": proven.size}) + "\n"
        name = f".receiving-{self._fence}/.input.json".encode()
        header = tar_stream.file_header(name, size=len(text), mode=_NOTE_MODE, mtime=0)
        return header + text.encode() + tar_stream.padding(len(text))

    def _await_end(self, far: FarSide, entries: list[Entry]) -> None:
        with far.patient(self._meter.total):
            for line in far.lines(_MOST_WORDS):
                word, _, rest = line.partition(b" ")
                if word == b"differs":
                    raise self._difference(far, entries, far.named_hashes(len(entries)))
                if word == b"failed":
                    raise far.failure()
                if word == b"done":
                    if rest != self._wanted.encode():
                        raise HostFault(f"host {far.host}: it proved something else than was sent", host=far.host)
                    break
        with contextlib.suppress(HostError, TimeoutError):
            if b"stays" in far.process.wait(60.0).stdout.split():  # it removes what earlier turns left
                self._ctx.log.warning(
                    "something of a former input, or of an earlier turn, can't be removed on %s: it stays in %s",
                    *(far.host, self._ctx.layout.root),
                )

    def _difference(self, far: FarSide, entries: list[Entry], there: dict[str, str]) -> Exception:
        """Tell a source that is not what was accepted, a full disk, and bytes that did not arrive as they were."""
        self._meter.begin("reading the source")
        manifest = self._manifest(entries)
        check_at_rest(self._case, entries)
        check_accepted(self._case, manifest)
        if isinstance(full := far.failure(), HostFull):
            return full
        sizes = {each.path: each.size for each in manifest.files}
        found = tuple(ManifestFile(path, sizes.get(path, 0), there[path]) for path in sorted(there))
        return Differs(f"of {len(sizes)} files: {compare(manifest, replace(manifest, files=found))}")


def _at_once(proven: Proven) -> int:
    """Say how many files each of several programs is to hash on the far side; 0 where one does it as well. Pure."""
    if proven.size <= 2 * _AT_ONCE:
        return 0
    return max(1, min(_MOST_AT_ONCE, _AT_ONCE * proven.files // proven.size))


def _names(share: Share, place: str) -> Iterator[bytes]:
    """Give the names of the files that are copied from a place, each as it is sent."""
    return (b"./" + _raw(path) + b"\0" for path, where in share.whole.items() if where == place)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
