"""The download by one stream: the far side lists and hashes the results, and sends their bytes one after the other.

    here                                        there (`far_program.SEND`)
    one command                            ->   lists the places that hold the results
    nothing is here yet: `all`, `hash`     ->   every file's bytes, in the order of their paths; then every file's hash
    something is here: `hash` first        ->   every file's hash; then `begin`, `rest`, `get` for what is missing
    `list`                                 ->   the listing once more: nothing was written meanwhile

The bytes come without names or headers: which file they belong to follows from the listing, every path of which was
checked. So nothing that a server sends can reach beyond the landing directory. What lies there is read back and hashed.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from mqi_cli import Entry, HostFault, Manifest, ManifestFile, StageContext, Wait, tool_dir
from mqi_sftp.arriving import ArrivingFile, SmallFiles
from mqi_sftp.far_program import SEND
from mqi_sftp.far_side import FarSide
from mqi_sftp.fetch import FetchPlan, changed_meanwhile, check_results, is_missing, plan_fetch, wait_for_room
from mqi_sftp.in_place import Occupant
from mqi_sftp.landing import Landing
from mqi_sftp.meter import Meter
from mqi_sftp.plan import RESUME_FROM, Mark, Marks, directories_of, sent_mode, whole_mtime
from mqi_sftp.read_back import LARGE, KnownHashes, ReadBack
from mqi_sftp.results import Origin, Placed
from mqi_sftp.source import CHUNK
from mqi_sftp.stream_up import BULK
from mqi_sftp.tree import Tree, joined

_NAMES = 32 * 1024  # bytes of names under way: less than a pipe holds, so neither side waits for the other


class DownStream:
    """One turn's way down, into its landing directory."""

    def __init__(
        self, ctx: StageContext, origin: Origin, landing: Landing, placed: Placed, known: KnownHashes, meter: Meter
    ) -> None:
        self._ctx = ctx
        self._origin = origin
        self._prefixes = list(origin.places)
        self._landing = landing
        self._placed = placed
        self._known = known
        self._meter = meter
        self._tree = Tree()
        self._occupant: Occupant | None = None
        self._buffer = memoryview(bytearray(CHUNK))
        self._small = SmallFiles(landing.results)

    def fetch(self) -> Manifest | Wait:
        """Fill the landing directory, or find the results in their place. Raises `Unable` and what a download raises."""
        self._meter.begin("looking at what is on the host")
        with self._far(None) as far:
            self._look(far)
            if self._meter.total < BULK or far.process.bulk:
                return self._take(far)
        with self._far(True) as far:
            self._look(far)
            return self._take(far)

    @contextmanager
    def _far(self, bulk: bool | None) -> Iterator[FarSide]:
        host = self._ctx.host
        tools = str(tool_dir(self._ctx.layout.base_dir))
        argv = ["sh", "-c", SEND, "mqi-send", tools, *(str(place) for place in self._origin.places.values())]
        more = {"doing": "sending the results", "limit": self._ctx.config.verify_timeout}
        with host.start(argv, bulk=bulk) as process, FarSide(host.name, process, self._meter, **more) as far:
            yield far

    def _look(self, far: FarSide) -> None:
        if far.greet() != "places":
            raise is_missing(self._ctx)
        if self._occupant is None:  # before the listing is held here, and once
            self._occupant = Occupant.look(self._landing.destination, self._meter)
            self._meter.begin("looking at what is on the host")
        self._list(far)
        check_results(self._ctx, self._origin, self._tree, self._landing.destination)
        self._meter.expect(files=len(self._tree.files), size=self._tree.size)

    def _list(self, far: FarSide) -> None:
        far.forget_listings()
        self._tree = joined({prefix: far.listing() for prefix in self._prefixes})

    def _manifest(self, far: FarSide) -> Manifest:
        """Have everything hashed there."""
        self._meter.begin("proving what is on the host")
        far.say("hash")
        return self._hashed(far)

    def _receive_all(self, far: FarSide, prefix: str) -> None:
        for each in self._tree.below(prefix).files:
            self._receive(far, prefix + each.path, each.size, Mark.due(each))
        self._check_sent(far)
        self._meter.begin("proving what is on the host")

    def _hashed(self, far: FarSide, *, first: Callable[[FarSide, str], None] | None = None) -> Manifest:
        tree = self._tree
        hashes: dict[str, str] = {}
        for prefix in self._prefixes:
            if first:
                first(far, prefix)
            found = far.hashes(tree.below(prefix))
            if not prefix:
                hashes = found  # there is no other
            else:
                hashes |= {prefix + path: value for path, value in found.items()}
        unreadable = len(tree.files) - len(hashes)
        if unreadable:
            raise HostFault(f"{unreadable} of {len(tree.files)} results can't be read on the host", host=far.host)
        return tree.manifest(hashes)

    def _take(self, far: FarSide) -> Manifest | Wait:
        landing = self._landing
        self._ctx.log.info("one stream from %s over %s, proven by %s and here", far.host, far.way, far.hash_tool)
        landing.claim()
        if landing.destination.is_symlink() or landing.destination.exists() or not landing.empty:
            manifest = self._manifest(far)
            marks, directories = self._forget_tree(manifest)
            if self._occupant and self._occupant.is_results(manifest.fingerprint, self._placed, self._meter):
                landing.clear()
                return manifest
            plan = plan_fetch(landing, manifest, self._meter)
            if wait := wait_for_room(landing, plan):
                return wait
            self._make(plan, manifest)
            self._take_missing(far, plan, marks)
            self._ask_no_more(far, "list")
        else:
            directories = [each for each in self._tree.entries if each.is_dir]
            manifest = self._tree.manifest({})
            plan = FetchPlan((), manifest.files, ())
            if wait := wait_for_room(landing, plan):
                return wait
            self._make(plan, manifest)
            del plan, manifest
            self._ask_no_more(far, "all\nlist")
            manifest = self._hashed(far, first=self._receive_all)
        if not far.same_listing(len(self._prefixes)):
            raise changed_meanwhile()
        landing.date_directories(directories)
        return manifest

    def _forget_tree(self, manifest: Manifest) -> tuple[Marks, list[Entry]]:
        """Keep of the listing what the manifest lacks: what is here is listed next, and memory holds one long list."""
        times = array("q", (whole_mtime(each.mtime_ns) for each in self._tree.files))
        modes = array("q", (sent_mode(each.mode) for each in self._tree.files))
        marks = Marks(manifest, times, modes)
        directories = [each for each in self._tree.entries if each.is_dir]
        self._tree = Tree()
        return marks, directories

    def _make(self, plan: FetchPlan, manifest: Manifest) -> None:
        self._meter.keep(files=len(plan.keep), size=plan.kept_bytes)
        self._landing.drop(plan.drop)
        if not plan.goes_on(self._landing):
            self._landing.forget_begun()  # it takes room
        for path in directories_of(manifest):
            (self._landing.results / path).mkdir(exist_ok=True)

    def _take_missing(self, far: FarSide, plan: FetchPlan, marks: Marks) -> None:
        for number, prefix in enumerate(self._prefixes):
            wanted = [each for each in plan.fetch if each.path.startswith(prefix)]
            begun = self._continue(far, number, prefix, wanted, marks)
            asked: list[ManifestFile] = []
            for batch in _batches(each for each in wanted if each is not begun):
                self._ask(far, number, prefix, batch)  # while what was asked before is on its way
                self._receive_batch(far, asked, marks)
                asked = batch
            self._receive_batch(far, asked, marks)

    def _receive_batch(self, far: FarSide, batch: Sequence[ManifestFile], marks: Marks) -> None:
        for each in batch:
            self._receive(far, each.path, each.size, marks[each.path])
        if batch:
            self._check_sent(far)

    def _ask_no_more(self, far: FarSide, last: str) -> None:
        """Ask the last question: the far side ends behind its answer, and one that is too short is seen at once."""
        far.say(last)
        far.end_input()

    def _check_sent(self, far: FarSide) -> None:
        """Raise `RetryLater` where files had another size than was listed: their bytes end elsewhere then."""
        if not far.says("sent"):
            raise changed_meanwhile()

    def _ask(self, far: FarSide, number: int, prefix: str, batch: Sequence[ManifestFile]) -> None:
        names = b"".join(b"./" + each.path.removeprefix(prefix).encode() + b"\0" for each in batch)
        far.say(f"get {len(names)} {number} {sum(each.size for each in batch)}", now=False)
        far.send(names, now=True)

    def _continue(
        self, far: FarSide, number: int, prefix: str, wanted: Sequence[ManifestFile], marks: Marks
    ) -> ManifestFile | None:
        """Go on in the middle of the file that an earlier turn was at, where its beginning is proven."""
        begun = self._landing.begun()
        file = next((each for each in wanted if begun and each.path == begun[0]), None)
        if begun is None or file is None:
            return None
        name = file.path.removeprefix(prefix)
        length = min(begun[1].stat().st_size, file.size)
        length -= length % RESUME_FROM
        if not length:
            return None
        self._meter.begin_file(file.path)
        digest = hashlib.sha256()
        with begun[1].open("rb") as earlier, self._landing.open_file(hashed=False) as sink:
            # copied, because an earlier owner may hold the old one open
            left = length
            while left and (data := earlier.read(min(CHUNK, left))):
                digest.update(data)
                sink.write(data)
                left -= len(data)
                self._meter.alive()
            far.say(f"begin {length} {number}\n./{name}")
            with far.patient(length):
                proven = far.answer("begun")
            if proven != digest.hexdigest():
                self._landing.forget_begun()
                return None
            self._landing.note_file(file.path)  # only now: a shorter copy must not take its origin's place
            self._meter.done += length
            far.say(f"rest {length + 1} {number} {file.size}\n./{name}")
            self._copy(far, sink, file.size - length)
            self._check_sent(far)
        self._landing.keep_file(file.path, mark=marks[file.path])
        self._landing.forget_begun()
        return file

    def _receive(self, far: FarSide, path: str, size: int, mark: Mark) -> None:
        self._meter.begin_file(path)
        if size < RESUME_FROM:
            self._receive_small(far, path, size, mark)
            return
        sha256 = ""
        with self._landing.open_file(path, hashed=False) as sink:
            if size < LARGE:
                self._copy(far, sink, size)
            else:
                with ReadBack(sink.path) as back:
                    self._copy(far, sink, size, back)
                    sha256 = back.sha256(self._meter.alive)
        self._landing.keep_file(path, mark=mark)
        self._known.add(path, self._landing.results / path, sha256, mtime=mark.mtime)

    def _receive_small(self, far: FarSide, path: str, size: int, mark: Mark) -> None:
        data = self._buffer[:size]
        got = 0
        while got < size:
            count = far.take(data[got:])
            if not count:
                raise changed_meanwhile()
            got += count
        self._small.put(path, data, mark=mark)
        self._meter.move(got)

    def _copy(self, far: FarSide, sink: ArrivingFile, size: int, back: ReadBack | None = None) -> None:
        left = size
        while left:
            count = far.take(self._buffer[: self._meter.piece(min(CHUNK, left))])
            if not count:
                raise changed_meanwhile()
            sink.write(self._buffer[:count])
            left -= count
            if back is not None:
                back.arrived(size - left)
            self._meter.move(count)


def _batches(files: Iterable[ManifestFile]) -> Iterator[list[ManifestFile]]:
    batch: list[ManifestFile] = []
    size = 0
    for each in files:
        length = len(os.fsencode(each.path)) + 3
        if batch and size + length > _NAMES:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch
