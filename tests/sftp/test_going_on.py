"""A transfer that was cut, killed or taken over goes on from what is proven, and only one turn can decide its end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mqi_cli import Copying, Done, Host, HostError, RetryLater, build_manifest
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp.preview import preview_download, preview_upload
from servers.proxy import TcpProxy
from sftp.bench import DOWNLOAD, UPLOAD, Bench, FilesThrough, HostThrough, contents, fill, flip_a_byte, sample_case


# the first ones with every run, fifty each way with the tests that take minutes
def seeds(always: int) -> list[Any]:
    return [*range(always), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(always, 50))]


SEEDS = seeds(8)
LARGE = {"large.raw": random.Random(7).randbytes(5 << 20)}


@pytest.fixture
def cuttable(tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]) -> Iterator[tuple[Bench, TcpProxy]]:
    """A case whose host is reached through a proxy that cuts connections on purpose."""
    with TcpProxy(sshd.port) as proxy:
        yield Bench(tmp_path, make_host("ssh", port=proxy.port)), proxy


@pytest.mark.parametrize("seed", SEEDS)
def test_an_upload_that_is_cut_at_any_byte_goes_on_and_arrives_whole(
    cuttable: tuple[Bench, TcpProxy], seed: int
) -> None:
    bench, proxy = cuttable
    chance = random.Random(seed)
    fill(bench.source, LARGE | dict(list(sample_case(seed).items())[:30]))
    total = build_manifest(bench.source).size
    cuts = 0

    proxy.cut_after(up=chance.randrange(4000, total))
    for _ in range(10):
        try:
            done = bench.upload()
        except HostError:
            cuts += 1
            assert not bench.input.exists(), "what is not whole must not be taken for input"
            if cuts < 3:
                proxy.cut_after(up=chance.randrange(4000, total))
        else:
            break

    assert isinstance(done, Done)
    assert cuts
    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_download_that_is_cut_at_any_byte_goes_on_and_arrives_whole(
    cuttable: tuple[Bench, TcpProxy], seed: int
) -> None:
    bench, proxy = cuttable
    chance = random.Random(seed)
    fill(bench.outputs, {f"csv/{number}.csv": chance.randbytes(60_000) for number in range(40)} | {"empty": b""})
    total = build_manifest(bench.outputs).size
    cuts = 0

    proxy.cut_after(down=chance.randrange(8000, total))
    for _ in range(10):
        try:
            done = bench.download()
        except HostError:
            cuts += 1
            assert not bench.destination.exists(), "what is not whole must not be taken for results"
            if cuts < 3:
                proxy.cut_after(down=chance.randrange(8000, total))
        else:
            break

    assert isinstance(done, Done)
    assert cuts
    assert contents(bench.destination) == contents(bench.outputs)
    assert bench.leftovers() == []


@pytest.mark.parametrize("seed", seeds(4))
def test_without_a_shell_a_transfer_that_is_cut_goes_on_too(
    tmp_path: Path, sftp_server: OpenSSHServer, make_host: Callable[..., Host], seed: int
) -> None:
    chance = random.Random(seed)
    with TcpProxy(sftp_server.port) as proxy:
        bench = Bench(tmp_path, make_host("sftp_only", port=proxy.port))
        large = {"large.raw": chance.randbytes(5 << 20)} if seed % 2 else {}
        fill(bench.source, large | {f"d{number % 3}/{number}": chance.randbytes(30_000) for number in range(60)})
        fill(bench.outputs, large | {f"{number}": chance.randbytes(30_000) for number in range(60)})

        for move, way in ((bench.upload, "up"), (bench.download, "down")):
            proxy.cut_after(**{way: chance.randrange(20_000, 6_500_000 if large else 1_500_000)})
            for _ in range(5):
                with contextlib.suppress(HostError):
                    done = move()
                    break
            assert isinstance(done, Done)

    assert contents(bench.input) == contents(bench.source)
    assert contents(bench.destination) == contents(bench.outputs)
    assert bench.leftovers() == []


def cut(bench: Bench, move: Callable[[], object]) -> None:
    """Have a turn broken off; what comes next finds no connection that nobody has noticed yet to be gone."""
    with pytest.raises(HostError):
        move()
    bench.host.close()


def test_what_was_sent_before_a_cut_is_not_sent_again(cuttable: tuple[Bench, TcpProxy]) -> None:
    bench, proxy = cuttable
    fill(bench.source, LARGE | sample_case())
    total = build_manifest(bench.source).size

    proxy.cut_after(up=total - 50_000)
    cut(bench, bench.upload)
    done = bench.upload()

    assert isinstance(done, Done)
    # what was under way when the connection broke is lost: some MiB at most
    assert done.facts["sent_bytes"] < total


def test_a_large_file_goes_on_in_its_middle(cuttable: tuple[Bench, TcpProxy]) -> None:
    bench, proxy = cuttable
    fill(bench.source, LARGE)

    proxy.cut_after(up=5 << 20)
    cut(bench, bench.upload)
    done = bench.upload()

    assert isinstance(done, Done)
    assert 0 < done.facts["sent_bytes"] < 5 << 20
    assert contents(bench.input) == contents(bench.source)


def test_cut_after_cut_a_large_file_gets_further(cuttable: tuple[Bench, TcpProxy]) -> None:
    bench, proxy = cuttable
    fill(bench.source, {"large.raw": random.Random(8).randbytes(24 << 20), "small": b"1"})
    longest = 0

    for turn in range(1, 5):
        proxy.cut_after(up=5 << 20)
        cut(bench, bench.upload)
        arrived = settled_size(bench.root / f".incoming-1-{turn}" / "large.raw")
        assert arrived > longest + (1 << 20), "it goes on behind what an earlier turn brought, not behind the first"
        longest = arrived
        left = [each.name for each in bench.root.iterdir() if each.name.startswith((".incoming-", ".taken-"))]
        assert len(left) <= 2, "copies that pile up would fill the host's disk"
    done = bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] <= (24 << 20) - longest + (1 << 20)
    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


TWENTY = random.Random(20).randbytes(20 << 20)


@pytest.fixture
def cuttable_files(
    tmp_path: Path, sftp_server: OpenSSHServer, make_host: Callable[..., Host]
) -> Iterator[tuple[Bench, TcpProxy]]:
    """The same, and the account runs no programs."""
    with TcpProxy(sftp_server.port) as proxy:
        yield Bench(tmp_path, make_host("sftp_only", port=proxy.port)), proxy


def test_without_a_shell_too_a_large_upload_goes_on_in_its_middle_and_a_dry_run_says_so(
    cuttable_files: tuple[Bench, TcpProxy],
) -> None:
    bench, proxy = cuttable_files
    fill(bench.source, {"large.raw": TWENTY})

    proxy.cut_after(up=len(TWENTY) * 6 // 10)
    cut(bench, bench.upload)
    (would,) = preview_upload(bench.case(), bench.context("upload"))
    done = bench.upload()

    assert isinstance(done, Done)
    assert 0 < done.facts["sent_bytes"] <= 0.6 * len(TWENTY)  # the reset loses what is under way
    assert (would.act, would.size) == ("continue", done.facts["sent_bytes"])
    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


def test_what_two_earlier_turns_left_is_put_together(ssh_bench: Bench) -> None:
    files = {name: name.encode() * 100_000 for name in "abc"} | {"large.raw": LARGE["large.raw"]}
    fill(ssh_bench.source, files)
    # cut while it copied what it had taken over: some of it has its copy, some not yet
    fill(ssh_bench.root / ".taken-1-1", {name: files[name] for name in "ab"})
    fill(ssh_bench.root / ".taken-1-1", {"large.raw": LARGE["large.raw"][: 2 << 20]})
    fill(ssh_bench.root / ".incoming-1-1", {"a": files["a"], "large.raw": LARGE["large.raw"][: 4 << 20]})
    fill(ssh_bench.root / ".incoming-0-3", {"c": files["c"]})
    for each in ssh_bench.root.glob(".*/?"):
        shutil.copystat(ssh_bench.source / each.name, each)
        each.chmod(0o640)
    moves = preview_upload(ssh_bench.case(), ssh_bench.context("upload", turn=1))

    done = ssh_bench.upload(turn=2)

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 1 << 20
    assert sum(each.size for each in moves if each.act != "keep") == 1 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert [
        each.name for each in ssh_bench.root.iterdir() if each.name.startswith(".") and "input" not in each.name
    ] == []


def test_what_earlier_turns_left_is_not_taken_for_a_full_disk(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"large.raw": LARGE["large.raw"][: 4 << 20]})
    for name in (".incoming-0-1", ".taken-0-1", ".replaced-0-2"):
        fill(ssh_bench.root / name, {"large.raw": LARGE["large.raw"][: 3 << 20]})

    def has_ten_megabytes(program: str) -> str:
        assert "$(stat -f -c '%a %S %c %d' .)" in program
        return program.replace(
            "$(stat -f -c '%a %S %c %d' .)", "$(( (10485760 - $(du -sb . | cut -f 1)) / 1024 )) 1024 0 0"
        )

    done = ssh_bench.upload(host=HostThrough(ssh_bench.host, far=has_ten_megabytes))

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 1 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_a_turn_that_is_cut_at_the_start_of_a_new_revision_does_not_forget_the_old_one(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {f"{number}": bytes([number]) * 50_000 for number in range(30)})
    ssh_bench.upload()
    fill(ssh_bench.source, {"7": b"7" * 60_000, "8": b"8" * 70_000})
    fill(ssh_bench.root / ".incoming-1-2", {"7": b"7" * 60_000})
    shutil.copystat(ssh_bench.source / "7", ssh_bench.root / ".incoming-1-2" / "7")
    (ssh_bench.root / ".incoming-1-2" / "7").chmod(0o640)
    moves = preview_upload(ssh_bench.case(), ssh_bench.context("upload"))

    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 70_000
    assert [(each.path, each.size) for each in moves if each.act == "send"] == [("8", 70_000)]
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


@pytest.mark.parametrize("moved_away", [False, True])
def test_a_turn_that_is_killed_while_it_publishes_a_new_revision_sends_nothing_again(
    ssh_bench: Bench, moved_away: bool
) -> None:
    fill(ssh_bench.source, {f"{number}": bytes([number]) * 50_000 for number in range(30)})
    ssh_bench.upload()
    fill(ssh_bench.source, {"7": b"7" * 60_000})
    at = 'mv -T input ".replaced-$fence" || ' if moved_away else "if [ -e input ]; then\n    mv -T input "

    def killed(program: str) -> str:
        assert at in program
        return program.replace(at, at.replace("|| ", "&& kill -9 $$; true || ") if moved_away else "kill -9 $$\n" + at)

    with pytest.raises(HostError):
        ssh_bench.upload(host=HostThrough(ssh_bench.host, far=killed))
    assert ssh_bench.input.exists() is not moved_away
    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 0
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_without_a_shell_too_a_large_download_goes_on_in_its_middle_and_a_dry_run_says_so(
    cuttable_files: tuple[Bench, TcpProxy],
) -> None:
    bench, proxy = cuttable_files
    fill(bench.outputs, {"large.raw": TWENTY, "a": b"1"})

    proxy.cut_after(down=len(TWENTY) * 6 // 10)
    cut(bench, bench.download)
    moves = preview_download(bench.case(fingerprint="f"), bench.context("download"))
    would = {each.path: each for each in moves}
    before = proxy.down
    done = bench.download()

    assert isinstance(done, Done)
    assert 0 < done.facts["fetched_bytes"] <= 0.6 * len(TWENTY)  # the reset loses what is under way
    assert proxy.down - before <= 0.65 * len(TWENTY), "what is here was not read there again either"
    assert would["a"].act == "keep"
    assert (would["large.raw"].act, would["large.raw"].size) == ("continue", done.facts["fetched_bytes"])
    assert contents(bench.destination) == contents(bench.outputs)
    assert bench.leftovers() == []


@pytest.mark.parametrize("where", ["here", "on the host"])
def test_without_a_shell_a_beginning_that_is_no_longer_what_came_is_fetched_anew(
    cuttable_files: tuple[Bench, TcpProxy], where: str
) -> None:
    bench, proxy = cuttable_files
    fill(bench.outputs, {"large.raw": TWENTY})
    proxy.cut_after(down=len(TWENTY) * 6 // 10)
    cut(bench, bench.download)

    if where == "here":
        (begun,) = bench.destination.parent.glob(".mqi-*/arriving/file")
        flip_a_byte(begun, at=100)
    else:
        flip_a_byte(bench.outputs / "large.raw", at=100)
        os.utime(bench.outputs / "large.raw", (1_600_000_000, 1_600_000_000))
    done = bench.download()

    assert isinstance(done, Done)
    assert done.facts["fetched_bytes"] == len(TWENTY)
    assert contents(bench.destination) == contents(bench.outputs)


class CopiesNothing(FilesThrough):
    """A file server without `copy-data`: OpenSSH before 9.0, and most others."""

    copies = False

    def copy_many(self, place: PurePosixPath, files: Iterable[Copying]) -> Iterator[Copying]:
        return iter(())


def test_where_neither_a_shell_nor_the_server_copies_a_beginning_the_file_is_sent_anew_and_a_dry_run_says_so(
    tmp_path: Path, make_host: Callable[..., Host]
) -> None:
    bench = Bench(tmp_path, make_host("sftp_only"))
    fill(bench.source, LARGE)
    fill(bench.root / ".incoming-0-1", {"large.raw": LARGE["large.raw"][: 3 << 20]})
    host = HostThrough(bench.host, CopiesNothing)

    (would,) = preview_upload(bench.case(), bench.context("upload", host=host))
    done = bench.upload(host=host)

    assert (would.act, would.size) == ("send", 5 << 20)
    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 5 << 20
    assert contents(bench.input) == contents(bench.source)


def test_without_a_shell_a_beginning_that_is_wrong_is_found_and_the_file_sent_whole(
    tmp_path: Path, make_host: Callable[..., Host]
) -> None:
    bench = Bench(tmp_path, make_host("sftp_only"))
    fill(bench.source, LARGE)
    fill(bench.root / ".incoming-0-1", {"large.raw": LARGE["large.raw"][: 3 << 20]})
    flip_a_byte(bench.root / ".incoming-0-1" / "large.raw", at=100)

    assert isinstance(bench.upload(), Done)

    assert contents(bench.input) == contents(bench.source)
    assert bench.leftovers() == []


def test_a_beginning_that_is_wrong_is_not_continued(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, LARGE)
    fill(ssh_bench.root / ".incoming-0-1", {"large.raw": LARGE["large.raw"][: 3 << 20]})
    flip_a_byte(ssh_bench.root / ".incoming-0-1" / "large.raw", at=100)

    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert done.facts["sent_bytes"] == 5 << 20
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


_CHILD = """
import json, sys
from pathlib import Path
from mqi_cli.config.model import SshHostSection
from mqi_cli.hosts.ssh import SshHost
from sftp.bench import DOWNLOAD, UPLOAD, Bench
directory, section, stage, least = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
bench = Bench(directory, SshHost("far", SshHostSection(**json.loads(section)), directory))
ctx = bench.context(stage)
def wait(done):
    if done > least:
        print("here", flush=True)
        sys.stdin.read()  # until it is killed
ctx.on_progress = wait
case = bench.case() if stage == "upload" else bench.case(fingerprint="f")
(UPLOAD if stage == "upload" else DOWNLOAD).run(case, ctx)
"""


@contextlib.contextmanager
def killed_at(bench: Bench, stage: str, least: int) -> Iterator[None]:
    """Move files in a process of its own, and kill it -9 once it has moved so many bytes."""
    config = bench.host.config.model_dump_json()
    command = [sys.executable, "-c", _CHILD, str(bench.directory), config, stage, str(least)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        yield


def test_an_upload_whose_process_is_killed_goes_on_in_the_next_turn(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, sample_case(scale=20))  # far more than is under way at a time
    total = build_manifest(ssh_bench.source).size

    with killed_at(ssh_bench, "upload", total // 2):
        assert not ssh_bench.input.exists()
        done = ssh_bench.upload(attempt=2)

    assert isinstance(done, Done)
    assert 0 < done.facts["sent_bytes"] < total * 0.6
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_a_download_whose_process_is_killed_goes_on_in_the_next_turn(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {f"{number}.csv": bytes([number]) * 50_000 for number in range(40)})
    total = build_manifest(ssh_bench.outputs).size

    with killed_at(ssh_bench, "download", total // 2):
        assert not ssh_bench.destination.exists()
        done = ssh_bench.download(attempt=2)

    assert isinstance(done, Done)
    assert 0 < done.facts["fetched_bytes"] < total * 0.6
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)
    assert ssh_bench.leftovers() == []


class Sleeper:
    """A worker that falls asleep in the middle of a transfer, is given up, and wakes up later."""

    def __init__(self, bench: Bench, step: str, *, least: int, source: Path | None = None) -> None:
        self.asleep = threading.Event()
        self.wake = threading.Event()
        self.end: object = None
        ctx = bench.context(step)

        def sleep(done: float) -> None:
            if done > least and not self.asleep.is_set():
                self.asleep.set()
                assert self.wake.wait(60)

        ctx.on_progress = sleep
        case = bench.case() if step == "upload" else bench.case(fingerprint="f")
        self._thread = threading.Thread(target=self._work, args=(UPLOAD if step == "upload" else DOWNLOAD, case, ctx))

    def _work(self, stage: object, case: object, ctx: object) -> None:
        try:
            self.end = stage.run(case, ctx)  # type: ignore[attr-defined]
        except Exception as error:
            self.end = error

    def __enter__(self) -> Sleeper:
        self._thread.start()
        assert self.asleep.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.wake_up()

    def wake_up(self) -> None:
        """Let it go on to its end."""
        self.wake.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("least", [0, 1 << 20, (5 << 20) - 1])
def test_a_worker_that_was_given_up_and_wakes_changes_nothing_any_more(bench: Bench, least: int) -> None:
    fill(bench.source, LARGE)

    with Sleeper(bench, "upload", least=least) as stale:
        # the sleeper reads on from a file that was replaced: what it still writes is wrong
        (bench.source / "large.raw").rename(bench.directory / "held open")
        fill(bench.source, LARGE)
        with (bench.directory / "held open").open("r+b") as stream:
            stream.truncate(0)
            stream.write(b"\0" * (5 << 20))
        done = bench.upload()
        arrived = contents(bench.input)
        stale.wake_up()

    assert isinstance(done, Done)
    assert arrived == contents(bench.source)
    assert contents(bench.input) == arrived
    assert isinstance(stale.end, Exception), "its own proof must not succeed"
    assert bench.leftovers() == []


def test_a_file_that_a_stale_worker_holds_open_is_not_taken_over_as_it_is(bench: Bench) -> None:
    fill(bench.source, LARGE)

    with Sleeper(bench, "upload", least=0) as stale:
        size = settled_size(bench.root / ".incoming-1-1" / "large.raw")
        # now the case is just what the sleeper has sent so far: by its size the file is whole
        (bench.source / "large.raw").rename(bench.directory / "held open")
        fill(bench.source, {"large.raw": LARGE["large.raw"][:size]})
        done = bench.upload()
        stale.wake_up()

    assert isinstance(done, Done)
    assert contents(bench.input) == contents(bench.source)


def settled_size(path: Path) -> int:
    """Wait until the writes that are under way have arrived, and return the file's size."""
    size, same = 0, 0
    for _ in range(400):
        time.sleep(0.01)
        now = path.stat().st_size if path.exists() else 0
        same = same + 1 if now == size and now else 0
        size = now
        if same >= 20:
            return size
    raise AssertionError("the file does not come to rest")


def test_a_stale_download_changes_nothing_any_more(bench: Bench) -> None:
    fill(bench.outputs, {"a.raw": LARGE["large.raw"], "b.raw": b"b" * 100_000})

    with Sleeper(bench, "download", least=1 << 20) as stale:
        done = bench.download()
        arrived = contents(bench.destination)
        stale.wake_up()

    assert isinstance(done, Done)
    assert arrived == contents(bench.outputs)
    assert contents(bench.destination) == arrived
    assert isinstance(stale.end, Exception)
    assert bench.leftovers() == []


def test_a_turn_that_begins_after_a_later_one_steps_back(bench: Bench) -> None:
    fill(bench.source, {"a": b"1"})
    fill(bench.outputs, {"a": b"1"})
    fill(bench.root / ".incoming-2-1", {"a": b""})
    fill(bench.destination.parent / ".mqi-cabcdefghij.download._.2-1.part" / "results", {"a": b""})

    with pytest.raises(RetryLater, match="a later turn"):
        bench.upload(attempt=1)
    with pytest.raises(RetryLater, match="a later turn"):
        bench.download(attempt=1)

    assert isinstance(bench.upload(attempt=3), Done)
    assert isinstance(bench.download(attempt=3), Done)
    assert bench.leftovers() == []
