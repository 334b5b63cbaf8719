"""What runs on the far side of a stream: two programs for `sh`, made of what every Linux host has, and their answers.

They need GNU's find, tar, cp, mv, dd, sort and stat, and `openssl` or `sha256sum`; where one is missing they say so
and the files go one by one over SFTP instead. Names come over standard input or inside the stream, never on a command
line: it would show in the far side's process list.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mqi_cli import Entry, HostError, HostFault, HostFull, Manifest, Process, Space
from mqi_sftp.meter import Meter
from mqi_sftp.tree import Tree

PROTOCOL = b"mqi-far 1"
LONGEST_LINE = 16 * 1024
MOST_ENTRIES = 1_000_000
_BATCH = 256 << 20
_SIGN_EVERY = 5.0  # seconds

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
able; agree "$4"
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
            read -r pid 2>/dev/null < "$each/pid" && grep -qs mqi-receive "/proc/$pid/cmdline" && kill -9 -- "-$pid"
        done
        rm -rf -- .receiving-*-* ".taken-$fence"; mv -T "$base" ".taken-$fence" && base=.taken-$fence;;
    esac
    say base; inventory "$base"
elif [ -d input ]; then
    base=input; say base; inventory input
else
    say fresh
fi
read -r answer || exit 0
[ "$answer" = good ] && { rm -rf -- $old; exit 0; }
[ "$answer" = go ] || exit 0
mkdir "$mine" && mkdir "$notes" && echo $$ > "$notes/pid" || { say 'failed mkdir'; exit 0; }
while read -r answer size more; do
    case $answer in keep|stream) ;; *) IFS= read -r path || exit 0;; esac
    case $answer in
    keep) # the files that are right already: linked from what an earlier turn left, copied from an input in use
        head -c "$size" > "$notes/keep" || exit 0
        link=--link; [ "$base" = input ] && link=--reflink=auto
        ( cd "$base" && xargs -0 -r cp -p $link --parents -t "../$mine" < "../$notes/keep" ) || say 'failed keep';;
    begin) # the proven beginning of a file: copied, because an earlier owner may hold the old one open
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
( cd "$mine" && { find . -mindepth 1 ! -type f -printf '%y %p\n'; hashes; } | sort > "../$notes/found" )
if ! cmp -s "$notes/found" "$notes/expected"; then
    say "differs $(comm -13 "$notes/found" "$notes/expected" | wc -l) $(comm -23 "$notes/found" "$notes/expected" | wc -l)"
    # what was taken over meanwhile has come to life again under its old name
    [ -e "$notes/pid" ] || rm -rf -- "$mine" "$notes"
    exit 0
fi
sync -f "$mine" 2>/dev/null || sync
mv -f "$notes/input.sha256" .input.sha256 && mv -f "$notes/input.json" .input.json || { say 'failed mv'; exit 0; }
if [ -e input ]; then
    mv -T input ".replaced-$fence" && mv -T "$mine" input || { say 'failed mv'; exit 0; }
else
    mv -T "$mine" input || { say 'failed mv'; exit 0; }
fi
say "done $($hash < "$notes/found" | cut -c 1-64)"
rm -rf -- $old ".replaced-$fence" ".taken-$fence" "$notes"
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
        self._limit = limit  # seconds to hash 256 MiB
        self.hash_tool = ""
        self.space = Space(0, 0, None)

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
        if not line.endswith(b"\n"):
            raise self.failure()
        return line[:-1]

    def lines(self) -> Iterator[bytes]:
        """Read line after line."""
        while True:
            yield self.line()

    def say(self, text: str, *, now: bool = True) -> None:
        """Send one line."""
        self.process.stdin.write(text.encode("utf-8", "surrogateescape") + b"\n")
        if now:
            self.process.stdin.flush()

    def answer(self, word: str) -> str:
        """Read a line that begins with that word, and return the rest."""
        line = self.line()
        if not line.startswith(word.encode() + b" "):
            raise self.failure()
        return line[len(word) + 1 :].decode("ascii", "replace")

    @contextmanager
    def patient(self, size: int) -> Iterator[None]:
        """Show life while the far side hashes `size` bytes and says nothing; end it where it takes far too long."""
        ended = threading.Event()
        reason: list[Exception] = []
        until = time.monotonic() + self._limit * (1 + size / _BATCH)

        def look() -> None:
            while not ended.wait(_SIGN_EVERY):
                try:
                    self._meter.alive()
                    if time.monotonic() > until:
                        raise HostFault(f"host {self.host}: it takes too long to prove its files", host=self.host)
                except Exception as error:  # noqa: BLE001  raised below, in the thread whose turn it is
                    reason.append(error)
                    self.process.close()
                    return

        watch = threading.Thread(target=look, name=f"patience-{self.host}", daemon=True)
        watch.start()
        try:
            yield
        except (HostError, ValueError, OSError) as error:
            if reason:
                raise reason[0] from error
            raise
        finally:
            ended.set()
            watch.join()

    def inventory(self) -> tuple[Tree, dict[str, str]]:
        """Read what a directory holds, and the hash of each file."""
        entries: list[Entry] = []
        odd: Counter[str] = Counter()
        for count, line in enumerate(self.lines()):
            if line == b"hashes":
                break
            if line == b"end" or count > MOST_ENTRIES:
                raise HostFault(f"host {self.host}: a directory can't be listed", host=self.host)
            entry = parse_entry(line)
            if entry is None:
                odd["special files, links or odd names"] += 1
            else:
                entries.append(entry)
        hashes: dict[str, str] = {}
        for line in self.lines():
            if line == b"end":
                break
            path = line[66:].removeprefix(b"./").decode("utf-8", "surrogateescape")
            hashes[path] = line[:64].decode("ascii", "replace")
            if len(hashes) > len(entries):
                raise HostFault(f"host {self.host}: more hashes than files", host=self.host)
            if not len(hashes) % 256:
                self._meter.alive()
        entries.sort(key=lambda each: each.path)
        return Tree(tuple(entries), odd), hashes

    def expected(self, manifest: Manifest, directories: tuple[str, ...]) -> bytes:
        """Return what the far side's own listing must be, byte by byte, to prove a manifest."""
        lines = [
            f"{each.sha256} *./".encode() + each.path.encode("utf-8", "surrogateescape") + b"\n"
            for each in manifest.files
        ]
        lines += [b"d ./" + path.encode("utf-8", "surrogateescape") + b"\n" for path in directories]
        return b"".join(sorted(lines))

    def failure(self) -> HostFault | HostFull:
        """Return the exception for a program that ended early, by what it said on standard error."""
        done = self.process.wait(30.0)
        return read_errors(self.host, done.stderr)


def parse_entry(line: bytes) -> Entry | None:
    """Read one entry of an inventory; None for what is neither file nor directory, or not to be understood. Pure."""
    try:
        kind, mode, size, mtime, path = line.split(b" ", 4)
        if kind not in (b"f", b"d") or not path.startswith(b"./") or b"/../" in path or path.endswith(b"/.."):
            return None
        return Entry(
            path[2:].decode("utf-8"), int(size), int(mtime.partition(b".")[0]) * 10**9, 0, int(mode, 8), kind == b"d"
        )
    except ValueError:
        return None


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
