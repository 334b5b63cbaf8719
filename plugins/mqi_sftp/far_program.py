"""What runs on the far side of a stream: two programs for `sh`, made of what every Linux host has, and their answers.

They need GNU's find, tar, cp, mv, dd, sort and stat, and `openssl` or `sha256sum`; where one is missing they say so
and the files go one by one over SFTP instead. Names come over standard input or inside the stream, never on a command
line: it would show in the far side's process list.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from typing import TYPE_CHECKING

from mqi_cli import HostFault, HostFull, Manifest, Process, Space
from mqi_sftp.listing import Listing
from mqi_sftp.meter import Meter
from mqi_sftp.tree import Tree

if TYPE_CHECKING:
    from typing import Self

PROTOCOL = b"mqi-far 1"
LONGEST_LINE = 16 * 1024
MOST_ENTRIES = 1_000_000
_BATCH = 256 << 20
_SIGN_EVERY = 5.0  # seconds
_LOOK_EVERY = 1.0

# Which tool hashes fastest is found out once, by a race over 8 MiB, and kept beside mqi's own programs there.
# `openssl` beats coreutils threefold where the processor has instructions for SHA-256.
_COMMON = r"""
LC_ALL=C; export LC_ALL; umask 027
say() { printf '%s\n' "$*"; }
tells() { [ "$(printf 'mqi\n' | $1 2>/dev/null | cut -c 1-64)" = 34e25de9bd661993154b43f68d53d1e33a0986b95662f31a83b1aeacd90b8204 ]; }
agree() { # $1: the directory that remembers it. Sets $hash to the tool.
    hash=
    if read -r hash 2>/dev/null < "$1/hash-tool" && command -v "${hash%% *}" >/dev/null 2>&1; then
        case $hash in 'openssl dgst -sha256 -r'|'sha256sum -b') return;; esac
    fi
    able
    hash=$( { for each in 'openssl dgst -sha256 -r' 'sha256sum -b'; do
        command -v "${each%% *}" >/dev/null 2>&1 && tells "$each" &&
            { head -c 8388608 /dev/zero | $each >/dev/null 2>&1 && say "$each"; } &
    done; wait; } | head -n 1)
    [ -n "$hash" ] || { say "lacks sha256sum"; exit 0; }
    mkdir -p "$1" 2>/dev/null && say "$hash" > "$1/.hash-tool.$$" && mv -f "$1/.hash-tool.$$" "$1/hash-tool"
}
able() {
    for each in tar find xargs sort cmp stat cp mv dd head tail; do
        command -v $each >/dev/null 2>&1 || { say "lacks $each"; exit 0; }
    done
    [ "$(find / -maxdepth 0 -printf x 2>/dev/null)" = x ] || { say "lacks GNU find"; exit 0; }
    stat -f -c '%a' / >/dev/null 2>&1 || { say "lacks GNU stat"; exit 0; }
}
hashes() { find . -type f -print0 | sort -z | xargs -0 -r $hash; }
inventory() { ( cd "$1" && find . -mindepth 1 -printf '%y %m %s %T@ %p\n' && say hashes && hashes; say end ) }
"""

# $1 root of the case  $2 fence  $3 the fingerprint that the input shall have, or -  $4 where mqi keeps its programs
RECEIVE = (
    _COMMON
    + r"""
root=$1; fence=$2; wanted=$3; attempt=${2%-*}; turn=${2#*-}
say 'mqi-far 1'
agree "$4"
mkdir -p "$root" && cd "$root" || { say 'failed mkdir'; exit 0; }
say "hash $hash"
say "space $(stat -f -c '%a %S %c %d' .)"
mine=.incoming-$fence; notes=.receiving-$fence
base=; based=-1; baset=-1; old=
for each in .incoming-*-* .taken-*-* .receiving-*-* .beginning-*-* .replaced-*-*; do
    [ -e "$each" ] || continue
    pair=${each#.*-}; a=${pair%%-*}; t=${pair#*-}
    case $a$t in *[!0-9]*|'') continue;; esac
    if [ "$a" -gt "$attempt" ] || { [ "$a" -eq "$attempt" ] && [ "$t" -gt "$turn" ]; }; then
        case $each in .incoming-*) say stale; exit 0;; esac
        continue
    fi
    old="$old $each"
    case $each in .incoming-*|.taken-*)
        if [ "$a" -gt "$based" ] || { [ "$a" -eq "$based" ] && [ "$t" -ge "$baset" ]; }; then
            base=$each; based=$a; baset=$t
        fi;;
    esac
done
if [ "$wanted" != - ] && [ -d input ] && grep -qs "\"fingerprint\": \"$wanted\"" .input.json; then
    say input; inventory input
    base=input
elif [ -n "$base" ]; then
    case $base in .incoming-*) # from here on every path that an earlier owner knows leads nowhere
        for each in .receiving-*-*; do
            read -r pid 2>/dev/null < "$each/pid" && grep -qs mqi-receive "/proc/$pid/cmdline" && kill -9 "-$pid" 2>/dev/null
        done
        rm -rf -- .receiving-*-* ".taken-$fence"; mv -T "$base" ".taken-$fence" && base=.taken-$fence;;
    esac
    say base; inventory "$base"
elif [ -d input ]; then
    base=input; say old; inventory input
else
    say fresh
fi
read -r answer || exit 0
[ "$answer" = good ] && { rm -rf -- $old; exit 0; }
[ "$answer" = go ] || exit 0
mkdir "$mine" "$notes" && echo $$ > "$notes/pid" || { say 'failed mkdir'; exit 0; }
while read -r answer size more; do
    case $answer in keep|drop|stream) ;; *) IFS= read -r path || exit 0;; esac
    case $answer in
    drop) case $base in .taken-*) rm -rf -- "$base";; esac;;
    # What is there is copied, never taken over as it is: an earlier owner, or a program, may hold it open and write.
    keep)
        head -c "$size" > "$notes/keep" || exit 0
        ( cd "$base" && xargs -0 -r cp -p --reflink=auto --parents -t "../$mine" < "../$notes/keep" );;
    begin)
        mkdir -p "$mine/${path%/*}"
        head -c "$size" < "$base/$path" > "$mine/$path"
        say "begun $($hash < "$mine/$path" | cut -c 1-64)";;
    append) dd bs=1M iflag=fullblock,count_bytes oflag=append conv=notrunc count="$size" of="$mine/$path" 2>/dev/null;;
    finish) touch -d "@$size" "$mine/$path" && chmod "$more" "$mine/$path";;
    forget) rm -f "$mine/$path";;
    stream) break;;
    esac
done
[ "$answer" = stream ] || exit 0
case $base in .taken-*) rm -rf -- "$base";; esac
tar -x -o -b 256 -f - || { say "failed tar"; exit 0; }
[ -e "$notes/expected" ] || { say 'failed cut'; exit 0; }
say proving
flush() { if [ "$(wc -l < "$notes/expected")" -le 16 ]; then find "$mine" -print0 | xargs -0 sync -d; else sync -f "$mine"; fi; }
# an older `sync` flushes only everything; one that can do better and failed has met a failing disk
{ flush || { ! sync -d / 2>/dev/null && sync; }; } & flushing=$!
( cd "$mine" && { find . -mindepth 1 ! -type f -printf '%y %p\n'; find . -type f -print0 | xargs -0 -r $hash; } | sort > "../$notes/found" )
if ! cmp -s "$notes/found" "$notes/expected"; then
    say "differs $(comm -13 "$notes/found" "$notes/expected" | wc -l) $(comm -23 "$notes/found" "$notes/expected" | wc -l)"
    # what was taken over meanwhile has come to life again under its old name
    [ -e "$notes/pid" ] || rm -rf -- "$mine" "$notes"
    exit 0
fi
wait "$flushing" || { say 'failed sync'; exit 0; }
sed -n 's/^\([0-9a-f]\{64\}\) [*]/\1  /p' "$notes/expected" > .input.sha256 && mv -f "$notes/input.json" .input.json || { say 'failed mv'; exit 0; }
if [ -e input ]; then
    mv -T input ".replaced-$fence" && mv -T "$mine" input || { say 'failed mv'; exit 0; }
else
    mv -T "$mine" input || { say 'failed mv'; exit 0; }
fi
sync -d . || sync
sum=$($hash < "$notes/found"); say "done ${sum%% *}"
rm -rf -- $old ".replaced-$fence" ".taken-$fence" "$notes"
"""
)

# $1 where mqi keeps its programs  $2... the directories that hold the results
SEND = (
    _COMMON
    + r"""
say 'mqi-far 1'
agree "$1"; shift
say "hash $hash"
list() {
    for place; do
        cd "$place" && { find . -mindepth 1 -printf '%y %m %s %T@ %p\n' || say broken; } | sort && say hashes || exit 0
    done
}
count=0
for place; do
    [ -d "$place" ] && ! [ -L "$place" ] || { say missing; exit 0; }
    eval "place$count=\$place"; count=$((count + 1))
done
at() { eval "cd \"\$place$1\"" || exit 0; }
say places; list "$@"
while read -r answer size number; do
    case $answer in
    all) # hashed while it travels: `sort` holds the hashes until the bytes are sent, as no pipe could for many files
        for place; do
            cd "$place" && { hashes | sort; say end; } | { find . -type f -print0 | sort -z | xargs -0 -r cat; cat; }
        done;;
    hash) for place; do cd "$place" && hashes; say end; done;;
    begin) IFS= read -r path; at "$number"; say "begun $(head -c "$size" < "$path" | $hash | cut -c 1-64)";;
    rest) IFS= read -r path; at "$number"; tail -c "+$size" < "$path";;
    get) at "$number"; head -c "$size" | xargs -0 -r cat;;
    list) list "$@";;
    esac
done
"""
)


class Unable(Exception):
    """The far side lacks what a stream needs: the files go one by one."""


class FarSide:
    """One program on the far side, spoken with line by line."""

    def __init__(self, host: str, process: Process, meter: Meter, *, limit: float) -> None:
        self.host = host
        self.process = process
        self._meter = meter
        self._limit = self._patience = limit  # seconds of silence; as long as hashing 256 MiB may take
        self._heard_at = time.monotonic()
        self._reason: Exception | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name=f"far-side-{host}", daemon=True)
        self.hash_tool = ""
        self.listed = b""  # hashes over the listings that were read
        self.space = Space(0, 0, None)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._watch.join()
        if self._reason is not None and error is not None:
            raise self._reason from error

    def greet(self) -> str:
        """Read what the host can, and return the first word of the state that it reports. Raises `Unable`."""
        if self.line() != PROTOCOL:
            raise Unable("it answers otherwise than a shell does")
        for line in self.lines():
            word, _, rest = line.partition(b" ")
            if word == b"lacks":
                raise Unable(rest.decode("ascii", "replace"))
            if word == b"hash":
                self.hash_tool = rest.decode("ascii", "replace")
            elif word == b"space":
                blocks, unit, inodes, free = (int(each) for each in rest.split())
                self.space = Space(blocks * unit, 0, free if inodes else None)
            elif word == b"failed":
                raise self.failure()
            else:
                return word.decode("ascii", "replace")
        raise AssertionError("`lines` has no end of its own")

    def line(self) -> bytes:
        """Read one line without its end. Raises `HostFault` where the program ended instead."""
        line = self.process.stdout.readline(LONGEST_LINE)
        self._heard()
        if not line.endswith(b"\n"):
            raise self.failure()
        return line[:-1]

    def lines(self) -> Iterator[bytes]:
        """Read line after line."""
        while True:
            yield self.line()

    def say(self, text: str, *, now: bool = True) -> None:
        """Send one line."""
        self.send(text.encode("utf-8", "surrogateescape") + b"\n", now=now)

    def send(self, data: bytes, *, now: bool = False) -> None:
        """Send bytes."""
        self.process.stdin.write(data)
        if now:
            self.process.stdin.flush()
        self._heard()

    def take(self, buffer: memoryview) -> int:
        """Fill a buffer and return the bytes; fewer than it takes only where the program ended."""
        count: int = self.process.stdout.readinto(buffer)  # type: ignore[attr-defined]  # a buffered stream has it
        self._heard()
        return count

    def answer(self, word: str) -> str:
        """Read a line that begins with that word, and return the rest."""
        line = self.line()
        if not line.startswith(word.encode() + b" "):
            raise self.failure()
        return line[len(word) + 1 :].decode("ascii", "replace")

    @contextmanager
    def patient(self, size: int) -> Iterator[None]:
        """Wait longer while the far side hashes `size` bytes and says nothing."""
        self._heard()
        self._patience = self._limit * (1 + size / _BATCH)
        try:
            yield
        finally:
            self._heard()
            self._patience = self._limit

    def inventory(self) -> tuple[Tree, dict[str, str]]:
        """Read what a directory holds, and the hash of each file."""
        tree = self.listing()
        return tree, self.hashes(tree)

    def listing(self) -> Tree:
        """Read what a directory holds. Raises `HostFault` where that has no end."""
        found, digest = Listing(), hashlib.sha256()
        for line in self.lines():
            if line == b"hashes":
                self.listed += digest.digest()
                return found.tree()
            digest.update(line + b"\n")
            if line == b"end" or found.count >= MOST_ENTRIES:
                break
            found.add(line)
            if not found.count % 1024:
                self._meter.alive()
        raise HostFault(f"host {self.host}: a directory can't be listed, or holds too much", host=self.host)

    def same_listing(self, count: int) -> bool:
        """Read so many listings once more; True when they are what they were."""
        listed = b""
        for _ in range(count):
            digest = hashlib.sha256()
            for line in self.lines():
                if line == b"hashes":
                    break
                digest.update(line + b"\n")
            listed += digest.digest()
        return listed == self.listed

    def hashes(self, tree: Tree) -> dict[str, str]:
        """Read the hash of each file of a tree."""
        hashes: dict[str, str] = {}
        with self.patient(tree.size):
            for line in self.lines():
                if line == b"end":
                    break
                path = line[66:].removeprefix(b"./").decode("utf-8", "surrogateescape")
                hashes[path] = line[:64].decode("ascii", "replace")
                if len(hashes) > len(tree.entries):
                    raise HostFault(f"host {self.host}: more hashes than files", host=self.host)
        return hashes

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        """Show life while the far side is at work, and end it where it is silent for far too long."""
        signed = time.monotonic()
        while not self._ended.wait(min(_LOOK_EVERY, self._limit / 4)):
            now = time.monotonic()
            try:
                if now - self._heard_at > self._patience:
                    raise HostFault(
                        f"host {self.host}: the far side of the stream says nothing any more", host=self.host
                    )
                if now - max(signed, self._heard_at) > _SIGN_EVERY:
                    signed = now
                    self._meter.alive()
            except Exception as error:  # noqa: BLE001  raised in the thread whose turn it is
                self._reason = error
                self.process.close()
                return

    def failure(self) -> HostFault | HostFull:
        """Return the exception for a program that ended early, by what it said on standard error."""
        done = self.process.wait(30.0)
        return read_errors(self.host, done.stderr)


def expected_lines(manifest: Manifest, directories: Sequence[str]) -> Iterator[bytes]:
    """Give, line by line, what the far side's own listing must be to prove a manifest. Sorted as bytes. Pure."""
    files = sorted(manifest.files, key=lambda each: (each.sha256, each.path))
    return merge(
        (f"{each.sha256} *./{each.path}\n".encode("utf-8", "surrogateescape") for each in files),
        (f"d ./{path}\n".encode("utf-8", "surrogateescape") for path in sorted(directories)),
    )


_FULL = (b"No space left", b"Disk quota exceeded", b"quota exceeded")
_REASONS = (
    (b"Permission denied", "permission denied"),
    (b"Read-only file system", "its file system is read-only"),
    (b"Input/output error", "its disk reports an error"),
    (b"Cannot allocate memory", "it is out of memory"),
    (b"Unexpected EOF", "the stream ended too early"),
)


def read_errors(host: str, text: bytes) -> HostFault | HostFull:
    """Say what the programs' own words on standard error mean, without the names in them. Pure."""
    if any(each in text for each in _FULL):
        quota = "its quota is used up" if b"uota" in text else "no space left"
        return HostFull(f"host {host}: writing the stream failed: {quota}", host=host, hint="make room on the host")
    reason = next((meaning for said, meaning in _REASONS if said in text), "it gives no reason that is known")
    return HostFault(f"host {host}: receiving the stream failed: {reason}", host=host)
