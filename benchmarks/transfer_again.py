"""What is not sent twice, and what transfers take of memory: a cut upload, an unchanged case, a hundred thousand files.

    python benchmarks/transfer_again.py

Bytes are counted by the proxy between both ends, times and peaks of memory as `transfer.py` does. Beside an unchanged
case stand `lftp mirror` and `rclone copy`, which compare sizes and times alone; ours reads every byte again, there.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from transfer import (
    LIMIT,
    SETS,
    Place,
    agree,
    check_equal,
    command_of,
    delayed,
    environment,
    make_set,
    measure,
    run_ours,
    settle,
)

from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_cli.manifest import build_manifest, hash_file, survey
from mqi_sftp.landing import Landing
from mqi_sftp.plan import Fence
from mqi_sftp.received import Received
from mqi_sftp.results import Origin
from servers.proxy import TcpProxy
from sftp.bench import KEY

CUT = 0.6  # of the bytes
RTT = 0.02  # seconds
REPEAT = 5
REVISION = "cbcdefghijk"  # the key of the case's next revision


def main() -> None:
    """Measure and print all of it."""
    with (
        tempfile.TemporaryDirectory(prefix="mqi-bench-") as directory,
        OpenSSHServer(Path(directory) / "sshd") as server,
    ):
        work = Path(directory)
        agree(work, server)
        cut_upload(work, server)
        unchanged(work, server)
        many_files(work, server)
        new_revision(work, server)
        what_is_here(work, server)


def at_port(work: Path, server: OpenSSHServer, name: str, port: int) -> Place:
    """Return where one set is reached by that port; its server's key is pinned for it."""
    known = work / f"known-{port}"
    kind, key = server.host_key_file.with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    return Place(work, work / "sets" / name, port, server, known)


def cut_upload(work: Path, server: OpenSSHServer) -> None:
    """Cut the upload of one large file, and count what the next turn sends."""
    make_set("large", work / "sets" / "large")
    with TcpProxy(server.port) as proxy:
        at = at_port(work, server, "large", proxy.port)
        manifest = build_manifest(at.source)
        base = work / "cut"
        base.mkdir()
        proxy.cut_after(up=int(manifest.size * CUT))
        try:
            run_ours("up", at, base, manifest.fingerprint, work / "none", turn=1)
        except SystemExit:
            before = proxy.up
        else:
            raise SystemExit("the upload was not cut")
        found = run_ours("up", at, base, manifest.fingerprint, work / "none", turn=2)
        share = (proxy.up - before) / manifest.size
    print(
        f"{SETS['large']} up, cut at {CUT:.0%}: sent again {share:.1%} of its bytes (aim 42 %), {found['seconds']:.1f} s"
    )
    shutil.rmtree(base)
    shutil.rmtree(at.source)


def unchanged(work: Path, server: OpenSSHServer) -> None:
    """Upload a case of small files again that is there already."""
    make_set("small", work / "sets" / "small")
    with delayed(server.port, RTT / 2) as port:
        at = at_port(work, server, "small", port)
        fingerprint = build_manifest(at.source).fingerprint
        base = work / "unchanged"
        base.mkdir()
        run_ours("up", at, base, fingerprint, work / "none")
        again = [run_ours("up", at, base, fingerprint, work / "none") for _ in range(REPEAT)]
        warm = [run_ours("up", at, base, fingerprint, work / "none", warm=True) for _ in range(REPEAT)]
        if any(each["moved"] for each in (*again, *warm)):
            raise SystemExit("something was sent again")
        cold, best = (min(each["seconds"] for each in runs) for runs in (again, warm))
        texts = [f"connecting first {cold:.2f} s, over a connection that is open {best:.2f} s (aim 0.5 s)"]
        for peer in ("lftp", "rclone"):
            if shutil.which(peer):
                seconds = timed_again(peer, work / f"{peer}-unchanged", at)
                texts.append(f"{peer} {seconds:.2f} s (x{cold / seconds:.2f})")
    print(f"{SETS['small']} up again, unchanged, round trip {RTT * 1000:.0f} ms:", "; ".join(texts), flush=True)
    shutil.rmtree(base)


def timed_again(peer: str, target: Path, at: Place) -> float:
    """Return how long a peer takes for what it has copied before."""
    line = command_of(peer, "up", target, at)
    if peer == "lftp":
        line = line.replace("mirror -R", "mirror -R --no-perms")
    best = math.inf
    for turn in range(3):
        began = time.perf_counter()
        subprocess.run(["sh", "-c", line], check=True, capture_output=True, timeout=LIMIT, env=environment(at))
        if turn:
            best = min(best, time.perf_counter() - began)
    return best


def many_files(work: Path, server: OpenSSHServer) -> None:
    """Print the peak of memory for a hundred thousand files, both ways, with a shell and over SFTP alone."""
    make_set("many", work / "sets" / "many")
    for account, served in (("", server), (" over SFTP alone", server.sftp_only())):
        at = at_port(work, served, "many", served.port)
        fingerprint = build_manifest(at.source).fingerprint
        for way in ("up", "down"):
            seconds, peak = measure("mqi", way, at, fingerprint, 1)
            print(
                f"{SETS['many']} {way}{account}: {peak:.0f} MiB at the peak (aim 120 MiB), {seconds:.1f} s", flush=True
            )


def new_revision(work: Path, server: OpenSSHServer) -> None:
    """Print the peak of memory for a hundred thousand files of which the host holds all but one, as a former revision's."""
    for name in ("many", "named"):
        source = work / "sets" / name
        if not source.exists():
            make_set(name, source)
        for account, served in (("", server), (" over SFTP alone", server.sftp_only())):
            at = at_port(work, served, name, served.port)
            base = work / f"revisions-{name}{len(account)}"
            base.mkdir()
            run_ours("up", at, base, build_manifest(source).fingerprint, work / "none")
            changed = next(each for each in source.rglob("*") if each.is_file())
            changed.write_bytes(changed.read_bytes()[::-1] + b"more")
            found = run_ours("up", at, base, build_manifest(source).fingerprint, work / "none", revision=REVISION)
            check_equal(source, base / REVISION / "input")
            print(
                f"{SETS[name]} up, a new revision{account}: {found['peak']:.0f} MiB at the peak (aim 120 MiB), "
                f"{found['moved']:.0f} bytes sent, {found['seconds']:.1f} s",
                flush=True,
            )


def what_is_here(work: Path, server: OpenSSHServer) -> None:
    """Print the peak of memory of a download of a hundred thousand files: half of them are here, then all are in place."""
    source = work / "sets" / "named"
    if not source.exists():
        make_set("named", source)
    fingerprint = build_manifest(source).fingerprint
    for account, served in (("", server), (" over SFTP alone", server.sftp_only())):
        at = at_port(work, served, "named", served.port)
        base = work / f"here{len(account)}"
        results = base / KEY / "work" / "simulate" / "_" / "1"
        results.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", source, results], check=True)
        destination = work / f"results{len(account)}" / "case"
        leave_half(results, destination)
        for turn, what in ((2, "half of them are here"), (3, "all are in place")):
            settle()
            found = run_ours("down", at, base, fingerprint, destination, turn=turn)
            check_equal(source, destination)
            print(
                f"{SETS['named']} down, {what}{account}: {found['peak']:.0f} MiB at the peak (aim 120 MiB), "
                f"{found['moved']:.0f} bytes fetched, {found['seconds']:.1f} s",
                flush=True,
            )


def leave_half(results: Path, destination: Path) -> None:
    """Lay down what a turn leaves that was cut half way."""
    landing = Landing(destination, KEY, "download", "", Fence(1, 1))
    landing.claim()
    received = Received(landing, Origin("simulate", {"": PurePosixPath(results)}))
    for each in survey(results):
        target = landing.results / each.path
        if each.is_dir:
            target.mkdir()
        elif each.inode % 2:
            shutil.copy2(results / each.path, target)
            second = each.mtime_ns // 1_000_000_000 * 1_000_000_000
            received.note(replace(each, mtime_ns=second), each.size, hash_file(target))
    received.close()


if __name__ == "__main__":
    main()
