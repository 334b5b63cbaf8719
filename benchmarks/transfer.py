"""Moves cases of four shapes up and down, at round trips of 0 and 20 ms, beside the tools that people use by hand.

    python benchmarks/transfer.py                       all of it, about 40 minutes
    python benchmarks/transfer.py --set small --rtt 20 --peer mqi --peer tar --way up --repeat 1

One real OpenSSH server on loopback; the round trip is made by a proxy in a process of its own. Every time is the best
of `--repeat`, but what takes longer than `LONG` is done once. Ours holds the connection, the proof of every byte at the
far end (up) or here (down), the flush to the disk there and the move into place; the others prove nothing (but for
rclone) and flush nothing. Ours runs in a fresh process each time, whose start is not in the time: a worker pays it
once. Its peak of memory is printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import queue
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from mqi_cli.hosts.sshd import OpenSSHServer  # noqa: E402

SETS = {
    "case": "223 files, 44 MB",
    "slices": "300 x 0.5 MB",
    "small": "2,000 x 8 KB",
    "large": "1 x 1 GiB",
    "mixed": "1 x 256 MiB and 1,000 x 1 KB",
    "deep": "400 files 40 levels deep",
    "many": "100,000 x 100 B",
    "named": "100,000 x 100 B, names as DICOM has them",
}
JUDGED = ("case", "slices", "small", "large")
PEERS = ("mqi", "sftp", "scp", "lftp", "rclone", "tar")
LIMIT = 400.0  # seconds; who takes longer is ended and counted with it
LONG = 20.0  # seconds after which a peer is not asked again


def make_set(name: str, place: Path) -> None:
    """Write one set of files."""
    chance = random.Random(name)
    sizes: list[tuple[str, int]]
    if name == "case":
        sizes = [("plan.dcm", 9000)]
        for field in range(3):
            for layer in range(37):
                sizes.append((f"f{field}/{layer:02d}_20250424_001_{field}.ptn", chance.randrange(200_000, 590_000)))
                sizes.append((f"f{field}/{layer:02d}_20250424_001_{field}.mgn", chance.randrange(1000, 6000)))
    elif name == "slices":
        sizes = [(f"slice{number:03d}.dcm", 500_000) for number in range(300)]
    elif name == "small":
        sizes = [(f"d{number % 10}/n{number:04d}.txt", 8000) for number in range(2000)]
    elif name == "large":
        sizes = [("large.raw", 1 << 30)]
    elif name == "mixed":
        sizes = [("large.raw", 1 << 28), *((f"tiny/{number:04d}", 1000) for number in range(1000))]
    elif name == "deep":
        sizes = [("/".join(f"l{level}" for level in range(40)) + f"/f{number}", 2000) for number in range(400)]
    elif name == "named":
        uid = "1.2.826.0.1.3680043.8.498.20250424014403"
        names = ((f"{number % 100:02d}", f"{number:05d}") for number in range(100_000))
        sizes = [(f"{uid}/{uid}.{series}/CT.{uid}.{series}.4711.{number}.dcm", 100) for series, number in names]
    else:
        sizes = [(f"d{number % 100:02d}/n{number:05d}", 100) for number in range(100_000)]
    for path, size in sizes:
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            while size:
                size -= stream.write(chance.randbytes(min(size, 1 << 24)))


@dataclass(frozen=True)
class Place:
    """Where a run finds things."""

    work: Path
    source: Path
    port: int
    server: OpenSSHServer
    known_hosts: Path

    @property
    def options(self) -> list[str]:
        """The options that every OpenSSH program takes."""
        return [
            *("-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-i", str(self.server.key_file)),
        ]


def command_of(peer: str, way: str, place: Path, at: Place) -> str:
    """Return the shell line with which a peer copies the source to `place`, or `place` here."""
    login = f"{at.server.user}@127.0.0.1"
    here, there = at.source, place
    if way == "down":
        here, there = place, at.source
    options = shlex.join(at.options)
    ssh = f"ssh {options} -p {at.port} {login}"
    if peer == "sftp":
        batch = f"put -r {here} {there}" if way == "up" else f"get -r {there} {here}"
        return f"echo {shlex.quote(batch)} | sftp -q {options} -P {at.port} -b - {login}"
    if peer == "scp":
        pair = f"{here} {login}:{there}" if way == "up" else f"{login}:{there} {here}"
        return f"scp -q -r {options} -P {at.port} {pair}"
    if peer == "tar":
        if way == "up":
            return f"tar -C {here} -cf - . | {ssh} {shlex.quote(f'mkdir {there} && tar -C {there} -xf -')}"
        return f"mkdir {here} && {ssh} {shlex.quote(f'tar -C {there} -cf - .')} | tar -C {here} -xf -"
    if peer == "lftp":
        verb = f"mirror -R -P4 {here} {there}" if way == "up" else f"mirror -P4 {there} {here}"
        program = f"set sftp:connect-program 'ssh -a -x {options}'; open -p {at.port} -u {at.server.user}, sftp://127.0.0.1; {verb}"
        return f"lftp -c {shlex.quote(program)}"
    remote = (
        f":sftp,host=127.0.0.1,port={at.port},user={at.server.user},key_file={at.server.key_file},"
        f"known_hosts_file={at.known_hosts},shell_type=unix:"
    )
    pair = f"{here} '{remote}{there}'" if way == "up" else f"'{remote}{there}' {here}"
    return f"rclone copy --config /dev/null --sftp-disable-concurrent-reads=false {pair}"


OURS = """
import json, sys, time
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from mqi_cli.config.model import SshHostSection
from mqi_cli.hosts.ssh import SshHost
from sftp.bench import DOWNLOAD, UPLOAD, Bench
section, work, way, fingerprint, source, destination, turn, warm, revision = sys.argv[2:11]
host = SshHost("far", SshHostSection(**json.loads(section)), Path(work))
bench = Bench(Path(work), host)
bench.source = Path(source)
bench.destination = Path(destination)
bench.origin = ""
if revision:
    bench.next_revision(revision)
import mqi_sftp.upload, mqi_sftp.download  # a worker has loaded them
if warm:
    host.run(["true"])
began = time.perf_counter()
case = bench.case(fingerprint=fingerprint)
ctx = bench.context("upload" if way == "up" else "download", turn=int(turn))
ctx.progress = lambda done, total, unit, *, detail="", note="": None
done = (UPLOAD if way == "up" else DOWNLOAD).run(case, ctx)
seconds = time.perf_counter() - began
host.close()
# not by getrusage: its peak is at least that of the process which started this one
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) / 1024
moved = done.facts["sent_bytes" if way == "up" else "fetched_bytes"]
print(json.dumps({"seconds": seconds, "peak": peak, "moved": moved}))
"""


def run_ours(
    way: str,
    at: Place,
    base: Path,
    fingerprint: str,
    destination: Path,
    *,
    turn: int = 1,
    warm: bool = False,
    revision: str = "",
) -> dict[str, float]:
    """Upload or download in a process of its own; with `warm` it has its connection before the time begins.

    With `revision`, a key, the case is its next revision: of the one before the host may hold the input.
    """
    section = at.server.host_section(port=at.port, known_hosts=at.known_hosts, base_dir=str(base))
    text = section.model_dump_json()
    work = at.work / "mqi"
    work.mkdir(exist_ok=True)
    arguments = [str(ROOT / "tests"), text, str(work), way, fingerprint, str(at.source), str(destination)]
    arguments += [str(turn), "warm" if warm else "", revision]
    done = subprocess.run([sys.executable, "-c", OURS, *arguments], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"ours failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment(at: Place) -> dict[str, str]:
    """Return what the peers see of the environment."""
    return {"PATH": os.environ["PATH"], "HOME": str(at.work)}


def measure(peer: str, way: str, at: Place, fingerprint: str, repeat: int) -> tuple[float, float]:
    """Return the best time in seconds, and for ours the peak of memory in MiB."""
    best, peak = math.inf, 0.0
    for turn in range(repeat):
        target = at.work / f"{peer}-{way}-{turn}"
        settle()
        if peer == "mqi":
            base = at.work / "base"  # the same every time: what is agreed with a host is agreed once
            base.mkdir(exist_ok=True)
            from sftp.bench import KEY

            if way == "down":
                target /= "case"  # the case's name, which the step's `to` ends with
                results = base / KEY / "work" / "simulate" / "_" / "1"
                results.parent.mkdir(parents=True)
                subprocess.run(["cp", "-al", at.source, results], check=True)
                settle()
            found = run_ours(way, at, base, fingerprint, target)
            if way == "up":
                target = base / KEY / "input"
            best, peak = min(best, found["seconds"]), max(peak, found["peak"])
            check_equal(at.source, target)
            put_away(base / KEY, at.work)
        else:
            line = command_of(peer, way, target, at)
            began = time.perf_counter()
            try:
                done = subprocess.run(
                    ["sh", "-c", line], capture_output=True, text=True, timeout=LIMIT, env=environment(at)
                )
            except subprocess.TimeoutExpired:
                return LIMIT, 0.0
            best = min(best, time.perf_counter() - began)
            if done.returncode:
                raise SystemExit(f"{peer} {way} failed: {done.stderr[-800:]}")
            check_equal(at.source, target)
        put_away(target.parent if target.name == "case" else target, at.work)
        if best > LONG and peer != "mqi":
            break
    return best, peak


def put_away(target: Path, work: Path) -> None:
    """Take a copy out of the way; one of many files is removed at the end only.

    An ext4 without a journal makes files ten times as slowly for minutes after many were removed: whoever comes next
    would pay for the one before.
    """
    if not target.exists():
        return
    if sum(each.stat().st_size for each in target.rglob("*")) > 1 << 29:
        shutil.rmtree(target)
        return
    done = work / "done"
    done.mkdir(exist_ok=True)
    target.rename(done / f"{len(list(done.iterdir()))}")


def agree(work: Path, server: OpenSSHServer) -> None:
    """Make ours known to the host, as it is from the first case on: which tool hashes fastest there."""
    from mqi_cli.manifest import build_manifest

    (work / "first").mkdir()
    (work / "first" / "file").write_bytes(b"1")
    at = Place(work, work / "first", server.port, server, server.known_hosts)
    measure("mqi", "up", at, build_manifest(at.source).fingerprint, 1)


def settle() -> None:
    """Let the disk come to rest, so that one run does not pay for the one before."""
    os.sync()
    time.sleep(0.2)


def check_equal(one: Path, other: Path) -> None:
    """Stop where something did not arrive."""
    found = subprocess.run(["diff", "-rq", one, other], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"not the same: {found.stdout[:500]}")


PROXY = """
import sys
sys.path[:0] = [sys.argv[1]]
import transfer
transfer.serve_delayed(int(sys.argv[2]), float(sys.argv[3]))
"""


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Run a proxy that holds every byte back for so long, each way; give its port."""
    arguments = [sys.executable, "-c", PROXY, str(Path(__file__).parent), str(port), str(seconds)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


def serve_delayed(target: int, seconds: float) -> None:
    """Serve as such a proxy until this process is ended: two threads each way, large pieces."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", target))
        for link in (near, far):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((near, far), (far, near)):
            line: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=4096)
            threading.Thread(target=_take, args=(source, line, seconds), daemon=True).start()
            threading.Thread(target=_give, args=(sink, line), daemon=True).start()


def _take(source: socket.socket, line: queue.Queue[tuple[float, bytes]], seconds: float) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(1 << 18)
        except OSError:
            data = b""
        line.put((time.monotonic() + seconds, data))


def _give(sink: socket.socket, line: queue.Queue[tuple[float, bytes]]) -> None:
    while True:
        due, data = line.get()
        if (wait := due - time.monotonic()) > 0:
            time.sleep(wait)
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:
            return


def geometric(values: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(math.log(each) for each in values) / len(values))


def main() -> None:
    """Measure what was asked for, and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=list(SETS), help="default: the four that are judged")
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--rtt", action="append", type=int, help="milliseconds; default: 0 and 20")
    parser.add_argument("--way", action="append", choices=("up", "down"))
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    peers = [each for each in chosen.peer or PEERS if each == "mqi" or shutil.which(each)]
    from mqi_cli.manifest import build_manifest

    with (
        tempfile.TemporaryDirectory(prefix="mqi-bench-") as directory,
        OpenSSHServer(Path(directory) / "sshd") as server,
    ):
        work = Path(directory)
        for name in chosen.set or JUDGED:
            make_set(name, work / "sets" / name)
        agree(work, server)
        for rtt in chosen.rtt or (0, 20):
            with contextlib.ExitStack() as stack:
                port = server.port if not rtt else stack.enter_context(delayed(server.port, rtt / 2000))
                known = work / f"known-{rtt}"
                kind, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
                known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
                for way in chosen.way or ("up", "down"):
                    rows: dict[str, dict[str, float]] = {}
                    for name in chosen.set or JUDGED:
                        at = Place(work, work / "sets" / name, port, server, known)
                        fingerprint = build_manifest(at.source).fingerprint
                        rows[name] = {}
                        for peer in peers:
                            rows[name][peer], peak = measure(peer, way, at, fingerprint, chosen.repeat)
                            if peer == "mqi":
                                rows[name]["peak"] = peak
                        print_row(rtt, way, name, rows[name])
                    print_means(rtt, way, rows)


def print_row(rtt: int, way: str, name: str, row: dict[str, float]) -> None:
    """Print one set's times in seconds, each peer with how many times ours it is."""
    ours = row.get("mqi")
    texts = [f"{rtt:2d} ms {way:4s} {SETS[name]:30s}"]
    if ours:
        texts.append(f"mqi {ours:6.2f} s ({row['peak']:.0f} MiB)")
    for peer in PEERS[1:]:
        if peer in row:
            texts.append(f"{peer} {row[peer]:6.2f}" + (f" (x{ours / row[peer]:.2f})" if ours else ""))
    print("  ".join(texts), flush=True)


def print_means(rtt: int, way: str, rows: dict[str, dict[str, float]]) -> None:
    """Print how ours compares with the fastest of those that people use by hand, and with the practical limit."""
    by_hand: list[float] = []
    limit: list[float] = []
    for row in rows.values():
        others = [row[peer] for peer in ("sftp", "scp", "lftp", "rclone") if peer in row]
        if "mqi" in row and others:
            by_hand.append(row["mqi"] / min(others))
        if "mqi" in row and "tar" in row:
            limit.append(row["mqi"] / row["tar"])
    for ratios, what in ((by_hand, "the fastest of sftp, scp, lftp, rclone"), (limit, "tar | ssh tar")):
        if ratios:
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{rtt:2d} ms {way:4s} ours / {what}: {each}; geometric mean {geometric(ratios):.2f}")
    print(flush=True)


if __name__ == "__main__":
    main()
