"""The script that looks at a host: everything the curator wants to know in one round trip.

It must come back whatever hangs. A program that waits for a sick driver or a dead file server cannot even be killed,
and would hold the SSH channel open by its streams. So each program that can hang runs with its streams in files; when
its time is up it is killed and, if that does not end it, left behind. Its directory then stays as a mark, and as long
as it lives no second one is started beside it: a round every 30 seconds would pile them up by the thousand.

The answer is text: a line `@mqi <name> <exit code, hung or absent>` before what each program printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from mqi_curator.gpus import APP_QUERY, GPU_QUERY, OLD_GPU_QUERY

# base_dir is made by the first upload: until then the nearest place above it tells the space.
_DISK = """
place=$1
while [ ! -e "$place" ] && [ "$place" != / ]; do place=$(dirname "$place"); done
if [ ! -d "$place" ]; then echo "no directory"
elif [ ! -w "$place" ] || [ ! -x "$place" ]; then echo "not writable"
fi
df -Pk "$place"
"""

# $1 base_dir, $2 seconds a program may take, $3 the disk script, $4 how our cases' directories end,
# $5… the GPU program (none: no GPUs are looked at)
_SCRIPT = r"""
base=$1 most=$2 disk=$3 owner=$4; shift 4
umask 077
LC_ALL=C; export LC_ALL

echo "@mqi clock 0"; date +%s
echo "@mqi load 0"; cat /proc/loadavg 2>/dev/null
echo "@mqi cores 0"; getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null

work='' keep=''
for root in /dev/shm "${TMPDIR:-/tmp}"; do
  work=$(mktemp -d "$root/mqi-look.XXXXXX" 2>/dev/null) && break
done
[ -d "$work" ] || { echo "@mqi nowhere 1"; echo "@mqi end 0"; exit 0; }
trap '[ "$keep" ] || clear' EXIT
trap 'end_query; exit 1' HUP INT PIPE TERM

clear() { # the other half of a look that is broken off may be about to write its last file
  rm -rf "$work" 2>/dev/null || { sleep 0.3 2>/dev/null || sleep 1; rm -rf "$work"; }
}

end_query() {
  [ -f "$work/pid" ] || return
  pid=$(cat "$work/pid")
  kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
}

begun() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

hangs_since_before() {
  for old in "${work%/*}"/mqi-look.*; do
    [ -O "$old" ] || continue
    if [ ! -f "$old/hung" ]; then
      [ "$(find "$old" -prune -mmin +60 2>/dev/null)" ] && rm -rf "$old"  # its script was killed
      continue
    fi
    alive=''
    while read -r name pid start; do
      [ "$start" ] && [ "$(begun "$pid")" = "$start" ] || continue
      alive=yes
      [ "$name" = "$1" ] && return 0
    done <"$old/hung"
    [ "$alive" ] || rm -rf "$old"
  done
  return 1
}

leader=''
command -v setsid >/dev/null 2>&1 && leader=setsid

look() {
  as=$1; shift
  if hangs_since_before "$as"; then echo "@mqi $as hung"; return 1; fi
  (
    $leader "$@" >"$work/$as" 2>&1 </dev/null &
    echo $! >"$work/pid"
    wait $!
    echo $? >"$work/$as.tmp"
    mv "$work/$as.tmp" "$work/$as.code"
  ) >/dev/null 2>&1 </dev/null &
  tenths=0
  while [ ! -f "$work/$as.code" ] && [ $tenths -lt $((most * 10)) ]; do
    if sleep 0.1 2>/dev/null; then tenths=$((tenths + 1)); else sleep 1; tenths=$((tenths + 10)); fi
  done
  if [ -f "$work/$as.code" ]; then
    rm -f "$work/pid"
    echo "@mqi $as $(cat "$work/$as.code")"
    head -c 65536 "$work/$as"
    echo
    return 0
  fi
  pid=$(cat "$work/pid")
  start=$(begun "$pid")
  end_query
  sleep 1
  if [ ! -f "$work/$as.code" ]; then
    echo "$as $pid $start" >>"$work/hung"
    keep=yes
  fi
  echo "@mqi $as hung"
  return 1
}

gpus() {
  [ $# -gt 0 ] || return
  command -v "$1" >/dev/null 2>&1 || { echo "@mqi gpus absent"; return; }
  look gpus "$@" @GPU_QUERY@ || return
  if grep -q 'not a valid field' "$work/gpus"; then look old-gpus "$@" @OLD_GPU_QUERY@ || return; fi
  look apps "$@" @APP_QUERY@ || return
  # Who bears the mark of a run of this installation. What can't be looked at belongs to another user, and so to somebody
  # else, as does what another installation runs: it has no lease of ours.
  echo "@mqi ours 0"
  sed 's/.*, *//' "$work/apps" | while read -r pid; do
    case $pid in '' | *[!0-9]*) continue ;; esac
    run=$({ tr '\0' '\n' <"/proc/$pid/environ"; } 2>/dev/null | sed -n 's/^MQI_JOB=//p' | head -n 1)
    case $run in "$base"/*) run=${run#"$base"/}; run=${run%%/*} ;; *) continue ;; esac
    case $run in *-*) [ "$owner" ] && [ "${run#*-}" = "$owner" ] ;; *) [ -z "$owner" ] ;; esac && echo "$pid"
  done
}

look disk sh -c "$disk" mqi-look "$base"
gpus "$@"
echo "@mqi end 0"
"""


def look_command(
    base_dir: PurePosixPath, gpu_command: Sequence[str], *, gpu_timeout: float, owner: str = ""
) -> list[str]:
    """Return the program that looks at a host. Every value is an argument of its own; none is pasted into the script.

    `owner` is the installation's mark in its directories on hosts: only its own runs are told from foreign work.
    """
    script = _SCRIPT
    for name, query in (("@OLD_GPU_QUERY@", OLD_GPU_QUERY), ("@GPU_QUERY@", GPU_QUERY), ("@APP_QUERY@", APP_QUERY)):
        script = script.replace(name, " ".join(query))
    seconds = str(max(1, round(gpu_timeout)))
    return ["sh", "-c", script, "mqi-look", str(base_dir), seconds, _DISK, owner, *gpu_command]


def longest(gpu_timeout: float) -> float:
    """Return the seconds after which the script's answer can't come any more: four programs, all slow, and a margin."""
    return 4 * (gpu_timeout + 2) + 15
