"""The quick way for a few small files: takes a case, or gives results, in one request and one answer.

Runs on the host under Python 3.6 or later, as a resident program. It keeps the rules of `far_program`: files arrive in
`.incoming-<fence>`, are read back from the disk and compared before they become `input`, and what an earlier turn left
is never touched. Wherever anything is there already, or anything fails, it leaves all to the stream: nothing was done.
"""

import hashlib
import json
import os
import shutil
import stat

LEFT = (b".incoming-", b".taken-", b".receiving-", b".beginning-", b".replaced-")  # what turns leave
SPARE = 1.05  # room to ask for beyond the plain sum
DEFERRED = b"deferred"


class Unusual(Exception):
    """Not for this way."""


def answer(request: bytes) -> bytes:
    """Do what the first line asks for. The answer is `deferred` where nothing was done."""
    head, _, body = request.partition(b"\n")
    order = json.loads(head.decode())
    try:
        if order["verb"] == "give":
            return give([to_bytes(each) for each in order["places"]], order["most_files"], order["most_bytes"])
        Arrival(order).take(memoryview(body))
    except (Unusual, OSError):
        return DEFERRED
    return b"done"


def to_bytes(text: str) -> bytes:
    """Return the bytes that a text stood for."""
    return text.encode("utf-8", "surrogateescape")


class Arrival:
    """A case that arrives: `files` and `directories` of the order are relative, parents first."""

    def __init__(self, order: dict) -> None:
        self.root = to_bytes(order["root"])
        self.fence = to_bytes(order["fence"])
        self.files = [(to_bytes(path), size, mtime, mode) for path, size, mtime, mode in order["files"]]
        self.directories = [(to_bytes(path), mtime) for path, mtime in order["directories"]]
        self.wanted = order["wanted"]  # the fingerprint
        self.record = to_bytes(order["record"])
        self.mine = self.root + b"/.incoming-" + self.fence
        self.notes = self.root + b"/.receiving-" + self.fence

    def take(self, body: memoryview) -> None:
        """Write the files, prove what lies there, and make it the input. Raises `Unusual`, `OSError`; then nothing is left."""
        os.umask(0o027)
        os.makedirs(self.root, exist_ok=True)
        if any(each == b"input" or each.startswith(LEFT) for each in os.listdir(self.root)):
            raise Unusual
        state = os.statvfs(self.root)
        if state.f_bavail * state.f_frsize < len(body) * SPARE or (
            state.f_files and state.f_favail < len(self.files) * 2
        ):
            raise Unusual
        os.mkdir(self.mine, 0o750)
        try:
            os.mkdir(self.notes, 0o750)
            self.write_all(body)
            found, sums = self.look()
            if found != self.wanted:
                raise Unusual
            self.publish(sums)
        except BaseException:
            shutil.rmtree(self.mine, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(self.notes, ignore_errors=True)

    def write_all(self, body: memoryview) -> None:
        """Write everything, each file on the disk before it has its mode and time: those of a whole one."""
        for path, _ in self.directories:
            os.mkdir(self.mine + b"/" + path, 0o750)
        for path, size, mtime, mode in self.files:
            write(self.mine + b"/" + path, body[:size], mode, mtime)
            body = body[size:]
        for path, mtime in reversed(self.directories):
            os.utime(self.mine + b"/" + path, (mtime, mtime))
            sync_directory(self.mine + b"/" + path)
        sync_directory(self.mine)

    def look(self) -> tuple:
        """Return the fingerprint of what lies there, as `far_program` makes it, and the list for `sha256sum -c`."""
        files, others = [], []
        for folder, directories, names in os.walk(self.mine):
            below = folder[len(self.mine) + 1 :] + b"/" if folder != self.mine else b""
            for each in directories + names:
                info = os.lstat(folder + b"/" + each)
                if stat.S_ISREG(info.st_mode):
                    files.append((below + each, info.st_size, hash_of(folder + b"/" + each).encode()))
                elif not stat.S_ISDIR(info.st_mode):
                    others.append(b"x " + below + each + b"\0")
                elif not os.listdir(folder + b"/" + each):
                    others.append(b"d " + below + each + b"\0")
        lines = [b"f %d %s %s\0" % (size, sha256, path) for path, size, sha256 in sorted(files)] + sorted(others)
        sums = b"".join(b"%s *./%s\n" % (sha256, path) for path, _, sha256 in sorted(files))
        return hashlib.sha256(b"".join(lines)).hexdigest(), sums

    def publish(self, sums: bytes) -> None:
        """Make it the input in one step. A later turn that has taken it over meanwhile took these paths away too."""
        for name, text in ((b".input.sha256", sums), (b".input.json", self.record)):
            write(self.notes + b"/" + name, memoryview(text), 0o640, 0)
            os.rename(self.notes + b"/" + name, self.root + b"/" + name)
        os.rename(self.mine, self.root + b"/input")
        sync_directory(self.root)


def write(path: bytes, data: memoryview, mode: int, mtime: int) -> None:
    """Write a new file."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        while data:
            data = data[os.write(number, data) :]
        os.fdatasync(number)
        os.fchmod(number, mode)
        os.utime(number, (mtime, mtime))
    finally:
        os.close(number)


def sync_directory(path: bytes) -> None:
    """Bring a directory's entries to the disk."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read(path: bytes) -> bytes:
    """Return a file, not followed when it is a link."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        return stream.read()


def hash_of(path: bytes) -> str:
    """Return the hash of a file as it lies there."""
    return hashlib.sha256(read(path)).hexdigest()


def give(places: list, most_files: int, most_bytes: int) -> bytes:
    """Return, for each place, how its listing is and its files' hashes; then all their bytes."""
    heads, bodies = [], []
    for place in places:
        info = os.lstat(place)
        if not stat.S_ISDIR(info.st_mode):
            raise Unusual
        lines, paths = look(place, most_files, most_bytes)
        pieces = [read(place + b"/" + each) for each in paths]
        hashes = [hash_of(place + b"/" + each) for each in paths]
        if look(place, most_files, most_bytes) != (lines, paths):
            raise Unusual  # it changed meanwhile
        most_files, most_bytes = most_files - len(lines), most_bytes - sum(map(len, pieces))
        if most_bytes < 0:
            raise Unusual
        heads.append({"lines": [each.decode("utf-8", "surrogateescape") for each in lines], "hashes": hashes})
        bodies += pieces
    return json.dumps(heads).encode() + b"\n" + b"".join(bodies)


def look(place: bytes, most_files: int, most_bytes: int) -> tuple:
    """List a directory as GNU find's `-printf '%y %m %s %T@ %p'` does; return the lines, and the files' paths."""
    lines, paths = [], []
    pending = [b""]
    while pending:
        below = pending.pop()
        for name in os.listdir(place + b"/" + below):
            path = below + name
            info = os.lstat(place + b"/" + path)
            mode = info.st_mode
            kind = b"f" if stat.S_ISREG(mode) else b"d" if stat.S_ISDIR(mode) else b""
            if not kind or b"\n" in name:
                raise Unusual
            lines.append(
                (
                    path,
                    b"%s %o %d %d.%09d ./%s"
                    % (
                        kind,
                        stat.S_IMODE(mode),
                        info.st_size,
                        info.st_mtime_ns // 10**9,
                        info.st_mtime_ns % 10**9,
                        path,
                    ),
                )
            )
            if kind == b"d":
                pending.append(path + b"/")
            else:
                paths.append(path)
                most_bytes -= info.st_size
            if len(lines) > most_files or most_bytes < 0:
                raise Unusual
    return [line for _, line in sorted(lines)], sorted(paths)
