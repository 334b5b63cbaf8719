"""What runs on the far side of a stream: two programs for `sh`, made of what every Linux host has.

They need GNU's find, tar, cp, mv, dd, sort and stat, and `openssl` or `sha256sum`; where one is missing they say so
and the files go one by one over SFTP instead. Names come over standard input or inside the stream, never on a command
line: it would show in the far side's process list.
"""

from __future__ import annotations

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
    case $(tar --version 2>/dev/null) in *GNU*) ;; *) say "lacks GNU tar"; exit 0;; esac
}
hashes() { find . -type f -print0 | sort -z | xargs -0 -r $hash; }
inventory() { ( cd "$1" && find . -mindepth 1 -printf '%y %m %s %T@ %p\n' && say hashes && hashes; say end ) }
"""

# $1 root of the case  $2 fence  $3 the fingerprint that the input shall have  $4 where mqi keeps its programs
# $5... the inputs of earlier revisions, the newest first; the first that is there is copied from
RECEIVE = (
    _COMMON
    + r"""
root=$1; fence=$2; wanted=$3; attempt=${2%-*}; turn=${2#*-}
say 'mqi-far 1'
agree "$4"
mkdir -p "$root" && cd "$root" || { say 'failed mkdir'; exit 0; }
home=$(pwd); former=
shift 4
for each; do [ -d "$each" ] && { former=$each; break; }; done
say "hash $hash"
room() { say "space $(stat -f -c '%a %S %c %d' .)"; }
mine=.incoming-$fence; notes=.receiving-$fence; taken=.taken-$fence
look() { # for what turns left, up to this one
    old=
    for each in .incoming-*-* .taken-*-* .receiving-*-* .beginning-*-* .replaced-*-*; do
        [ -e "$each" ] || continue
        pair=${each#.*-}; a=${pair%%-*}; t=${pair#*-}
        case $a$t in *[!0-9]*|'') continue;; esac
        if [ "$a" -gt "$attempt" ] || { [ "$a" -eq "$attempt" ] && [ "$t" -gt "$turn" ]; }; then
            case $each in .incoming-*) say stale; exit 0;; esac
            continue
        fi
        old="$old $each"
    done
}
ours() { # whether it is a program of this kind at work on this case: its number may be another's by now
    case $({ tr '\0' '\n' < "/proc/$1/cmdline"; } 2>/dev/null) in *"
mqi-receive
$root
"*) return 0;; esac
    return 1
}
remove() { # a program may have closed directories of it; false where something stays
    [ $# -gt 0 ] || return 0
    rm -rf -- "$@" 2>/dev/null && return
    find "$@" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
    rm -rf -- "$@"
}
add() { # what $1 holds and $2 lacks, then $1 is gone
    cp -aln "$1/." "$2/" 2>/dev/null || cp -an --reflink=auto "$1/." "$2/" 2>/dev/null
    remove "$1"
}
take() { # all that turns left becomes one directory, and every path that an earlier owner knows leads nowhere
    look; brought=
    for each in $old; do
        case $each in .incoming-*|.taken-*) brought="$brought $each"; continue;; esac
        read -r pid 2>/dev/null < "$each/pid" && ours "$pid" && kill -9 "-$pid" 2>/dev/null
        remove "$each"
    done
    # The newest first, and what a turn brought before what it took over: no file of that is shorter.
    set -- $(printf '%s\n' $brought | sort -t - -k 2,2nr -k 3,3nr -k 1,1)
    [ $# -gt 0 ] || return
    if [ "$1" != "$taken" ]; then
        [ ! -d "$taken" ] || add "$taken" "$1"
        mv -T "$1" "$taken" || { say 'failed mv'; exit 0; }
    fi
    shift
    for each; do [ "$each" = "$taken" ] || add "$each" "$taken"; done
}
look; told=
# else it is on its way out, or a program left directories that can't be read: then it is of no use
usable() { [ -d "$1" ] && find "$1" >/dev/null 2>&1; }
if grep -qs "\"fingerprint\": \"$wanted\"" .input.json && usable input; then
    room; say input; inventory input
    told=1
elif [ -n "$old" ] || [ -d input ] || [ -n "$former" ]; then
    room; say found
else
    room; say fresh
fi
read -r answer || exit 0
[ "$answer" = good ] && { remove $old; exit 0; }
if [ "$answer" = take ]; then
    take; room
    [ -d "$taken" ] && { say taken; inventory "$taken"; }
    [ -z "$told" ] && usable input && { say input; inventory input; }
    [ -d input ] || for former; do
        usable "$former" && { say former; inventory "$former"; break; }
    done
    say all
    read -r answer || exit 0
fi
[ "$answer" = go ] || exit 0
mkdir "$mine" "$notes" "$notes/kept" && echo $$ > "$notes/pid" || { say 'failed mkdir'; exit 0; }
from() { case $1 in input) base=input;; former) base=$former;; *) base=$taken;; esac; }
lost=
while read -r answer size more; do
    case $answer in keep|kept|drop|stream) ;; *) IFS= read -r path || exit 0;; esac
    case $answer in
    drop) remove "$taken";;
    # What is there is copied, never taken over as it is: an earlier owner, or a program, may hold it open and write.
    # It appears whole or not at all: a later turn prefers what is here to what it was copied from.
    keep)
        head -c "$size" > "$notes/keep" || exit 0
        from "$more"
        # it makes directories with the modes that they have: into one that a program closed nothing more could come
        ( cd "$base" && [ -z "$(find . -type d ! -perm -700 -print -quit)" ] &&
            xargs -0 -r cp -p --reflink=auto --parents -t "$home/$notes/kept" < "$home/$notes/keep" ) || lost=1;;
    kept) # what can't be copied is no obstacle: all of it is sent then
        [ -z "$lost" ] || { rm -rf -- "$notes/kept" && mkdir "$notes/kept"; } || { say 'failed mkdir'; exit 0; }
        mv -T "$notes/kept" "$mine" || { say 'failed mv'; exit 0; }
        [ -z "$size" ] || say "kept${lost:+ nothing}";;
    begin)
        from "$more"; mkdir -p "$mine/${path%/*}"
        head -c "$size" > "$notes/begun" < "$base/$path" # empty where that can't be read any more
        say "begun $($hash < "$notes/begun" | cut -c 1-64)"
        mv "$notes/begun" "$mine/$path" || { say 'failed mv'; exit 0; };;
    append) dd bs=1M iflag=fullblock,count_bytes oflag=append conv=notrunc count="$size" of="$mine/$path" status=none ||
        { say 'failed dd'; exit 0; };; # else what follows would be read as commands
    finish) touch -d "@$size" "$mine/$path" && chmod "$more" "$mine/$path";;
    forget) rm -f "$mine/$path";;
    stream) break;;
    esac
done
[ "$answer" = stream ] || exit 0
remove "$taken"
tar -x -o -b 256 -f - || { say "failed tar"; exit 0; }
[ -e "$notes/.input.json" ] || { say 'failed cut'; exit 0; }
say proving
flush() { if [ "$more" -le 16 ]; then find "$mine" -print0 | xargs -0 sync -d; else sync -f "$mine"; fi; }
# an older `sync` flushes only everything; one that can do better and failed has met a failing disk
{ flush || { ! sync -d / 2>/dev/null && sync; }; } & flushing=$!
hashed() { # the files that are named on standard input; several programs at once, each for so many files
    # appended, since a number comes again where many programs were started
    [ "$size" -gt 0 ] || { xargs -0 -r $hash; return; }
    xargs -0 -r -P 4 -n "$size" sh -c "$hash"' "$@" >> "../$0/hashed.$$"' "$notes"
    cat "../$notes"/hashed.* | sort -k 2
}
others() { find . -mindepth 1 ! -type f \( -type d -empty -printf 'd %P\0' -o ! -type d -printf 'x %P\0' \) | sort -z; }
# what the fingerprint is made of: size, hash and path of each file in the order of paths, then the empty directories
listing() {
    find . -type f -printf '%s %p\n' | sort -k 2 > "../$notes/sizes"
    cut -d ' ' -f 2- "../$notes/sizes" | tr '\n' '\0' | hashed > "../$notes/.input.sha256"
    cut -d ' ' -f 1 "../$notes/sizes" | paste -d ' ' - "../$notes/.input.sha256" |
        sed 's/^\([0-9]*\) \([0-9a-f]\{64\}\) [*]\.\//f \1 \2 /' | tr '\n' '\0'
    others
}
sum=$( ( cd "$mine" && listing ) | $hash ); sum=${sum%% *}
if [ "$sum" != "$wanted" ]; then
    say differs; cat "$notes/.input.sha256"; say end
    # what was taken over meanwhile has come to life again under its old name
    [ -e "$notes/pid" ] || rm -rf -- "$mine" "$notes"
    exit 0
fi
wait "$flushing" || { say 'failed sync'; exit 0; }
sync -d "$notes/.input.sha256" "$notes/.input.json" || sync
mv -f "$notes/.input.sha256" "$notes/.input.json" . || { say 'failed mv'; exit 0; }
if [ -e input ]; then
    mv -T input ".replaced-$fence" || { say 'failed mv'; exit 0; }
    # what was taken over meanwhile leads nowhere, and what is there was published by who took it
    mv -T "$mine" input || { mv -T ".replaced-$fence" input; say 'failed mv'; exit 0; }
else
    mv -T "$mine" input || { say 'failed mv'; exit 0; }
fi
sync -d . || sync
say "done $sum"
remove $old ".replaced-$fence" "$notes" || say stays
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
exec 3>&1
whole() { [ "$1" = "$total" ] || exit 0; say sent; } # else the other side would wait for bytes that never come
while read -r answer size number total; do
    case $answer in
    all) # hashed while it travels: `sort` holds the hashes until the bytes are sent, as no pipe could for many files
        for place; do
            cd "$place" && { hashes | sort; say end; } | { find . -type f -print0 | sort -z | xargs -0 -r cat; say sent; cat; }
        done;;
    hash) for place; do cd "$place" && hashes; say end; done;;
    begin) IFS= read -r path; at "$number"; say "begun $(head -c "$size" < "$path" | $hash | cut -c 1-64)";;
    rest) IFS= read -r path; at "$number"; tail -c "+$size" < "$path"; whole "$(stat -c %s "$path")";;
    get)
        at "$number"; sum=0
        for each in $(head -c "$size" | xargs -0 -r sh -c 'cat "$@" >&3; stat -c %s "$@"' mqi); do sum=$((sum + each)); done
        whole $sum;;
    list) list "$@";;
    esac
done
"""
)
