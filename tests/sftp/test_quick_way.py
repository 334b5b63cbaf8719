"""A few small files go up or come down in one request: as proven as by the stream, and left to it wherever it isn't plain."""

from __future__ import annotations

import ast
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import Done, GiveUp, Host, HostError, HostUnreachable, RetryLater, Wait
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp import far_small, quick
from mqi_sftp.preview import preview_upload
from servers.proxy import TcpProxy
from sftp.bench import ODD_NAMES, UPLOAD, Bench, HostThrough, contents, fill, remove


class QuickOnly(HostThrough):
    """A host on which neither a stream nor SFTP may be used."""

    def __init__(self, inner: Any, rewrite: Callable[[str], str] = lambda program: program) -> None:
        super().__init__(inner, quick=rewrite)

    def start(self, *_: object, **__: object) -> Any:
        raise AssertionError("no stream is needed")

    def files(self, **_: object) -> Any:
        raise AssertionError("no SFTP is needed")


def rewriting(old: str, new: str) -> Callable[[str], str]:
    """Return a change of the program on the host."""

    def change(program: str) -> str:
        assert old in program
        return program.replace(old, new)

    return change


def facts_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Return mode and time of all that lies below a directory."""
    found = sorted(directory.rglob("*"))
    return {str(each.relative_to(directory)): (each.stat().st_mode, int(each.stat().st_mtime)) for each in found}


def test_what_goes_up_quickly_lies_there_as_by_the_stream(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, ODD_NAMES | {"deep/er/file": b"1", "deep/program": b"2", "empty": b""}, empty=["hollow/er"])
    (ssh_bench.source / "deep/program").chmod(0o755)
    os.utime(ssh_bench.source / "empty", (1_000_000_000, 1_000_000_000))
    root = ssh_bench.input.parent
    records = (".input.json", ".input.sha256")

    assert isinstance(ssh_bench.upload(host=QuickOnly(ssh_bench.host)), Done)
    quickly = contents(ssh_bench.input), facts_of(ssh_bench.input), [(root / each).read_bytes() for each in records]
    assert ssh_bench.leftovers() == []
    os.rename(root, root.with_name("quick"))
    assert isinstance(ssh_bench.upload(host=HostThrough(ssh_bench.host)), Done)

    assert quickly[0] == contents(ssh_bench.source)
    assert quickly == (
        contents(ssh_bench.input),
        facts_of(ssh_bench.input),
        [(root / each).read_bytes() for each in records],
    )


def test_results_come_down_quickly(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {"a/b": b"1", "a/c": b"", "d": bytes(100_000)}, empty=["hollow"])
    assert isinstance(ssh_bench.download(host=QuickOnly(ssh_bench.host)), Done)
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)
    assert (ssh_bench.destination / "hollow").is_dir()


@pytest.mark.parametrize("left", [".incoming-0-1/a", ".taken-0-1/a", ".receiving-0-1/pid", "input/other"])
def test_where_anything_is_there_already_the_stream_looks_at_it(ssh_bench: Bench, left: str) -> None:
    fill(ssh_bench.source, {"a": b"1", "b": b"2"})
    fill(ssh_bench.input.parent, {left: b"1"})
    with pytest.raises(AssertionError, match="no stream"):
        ssh_bench.upload(host=QuickOnly(ssh_bench.host))
    assert (ssh_bench.input.parent / left).read_bytes() == b"1"
    assert isinstance(ssh_bench.upload(), Done)
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # a byte changes on the disk
        (
            "found, sums = self.look()",
            "open(self.mine + b'/a', 'r+b').write(b'X'); found, sums = self.look()",
        ),
        # something else is there
        ("found, sums = self.look()", "open(self.mine + b'/z', 'w').close(); found, sums = self.look()"),
        # no space for the second file
        ("for path, size, mtime, mode in self.files:", "for path, size, mtime, mode in self.files[:1] + [(b'no/where', 1, 0, 0)]:"),
        # a later turn takes over before the end
        ("os.rename(self.mine, self.root + b'/input')".replace("'", '"'), "os.rename(self.mine, self.root + b'/.taken-9-9'); os.rename(self.mine, b'/x')"),
    ],
)  # fmt: skip
def test_what_fails_there_leaves_nothing_and_is_the_streams(ssh_bench: Bench, old: str, new: str) -> None:
    fill(ssh_bench.source, {"a": b"1", "b": b"2"})
    with pytest.raises(AssertionError, match="no stream"):
        ssh_bench.upload(host=QuickOnly(ssh_bench.host, rewriting(old, new)))
    assert not ssh_bench.input.exists()
    assert [each for each in ssh_bench.leftovers() if "9-9" not in each] == []


def test_one_that_is_killed_before_the_end_is_gone_on_with(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1", "b": b"2"})
    killed = rewriting("found, sums = self.look()", f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(HostUnreachable):
        ssh_bench.upload(host=QuickOnly(ssh_bench.host, killed))
    assert not ssh_bench.input.exists()
    assert isinstance(ssh_bench.upload(turn=2), Done)
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    assert ssh_bench.leftovers() == []


def test_a_line_that_is_too_slow_for_one_request_gets_the_stream_the_next_time(
    ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "PATIENCE", 0.5)
    monkeypatch.setattr(quick, "_SLOW", {})
    slow = HostThrough(ssh_bench.host, quick=rewriting("os.umask(0o027)", "__import__('time').sleep(20)"))
    fill(ssh_bench.source, {"a": b"1", "b": b"2"})
    ctx = ssh_bench.context("upload", host=slow)
    with pytest.raises(HostUnreachable, match="in time"):
        UPLOAD.run(ssh_bench.case(), ctx)

    assert isinstance(ssh_bench.upload(host=slow), Done), "the same process remembers it for the host"
    assert contents(ssh_bench.input) == contents(ssh_bench.source)
    remove(ssh_bench.root)
    quick._SLOW.clear()
    later = ssh_bench.context("upload", host=slow)
    later.facts = ctx.facts
    assert isinstance(UPLOAD.run(ssh_bench.case(), later), Done), "another one remembers it for the case"


def test_a_host_that_is_down_is_no_reason_to_leave_this_way(
    ssh_bench: Bench, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "PATIENCE", 0.0)  # any time is too long
    fill(ssh_bench.source, {"a": b"1"})
    fill(ssh_bench.outputs, {"a": b"1"})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ctx = ssh_bench.context("upload", host=make_host("ssh", port=port))
    with pytest.raises(HostUnreachable):
        UPLOAD.run(ssh_bench.case(), ctx)

    assert not ctx.facts
    assert not quick._SLOW


def test_a_line_that_breaks_in_it_once_is_no_reason_to_leave_this_way(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.source, {"a": random.Random(1).randbytes(1_000_000)})
        bench.host.run(["true"])
        facts: dict[str, Any] = {}
        ways = []
        for _ in range(2):
            proxy.cut_after(up=300_000)
            ctx = bench.context("upload")
            ctx.facts = facts
            with pytest.raises(HostUnreachable):
                UPLOAD.run(bench.case(), ctx)
            ways.append("no_quick_way" in facts)

    assert ways == [False, True]


def test_a_stop_is_heeded_while_the_answer_is_awaited(ssh_bench: Bench) -> None:
    slow = HostThrough(ssh_bench.host, quick=rewriting("os.umask(0o027)", "__import__('time').sleep(20)"))
    fill(ssh_bench.source, {"a": b"1"})
    ctx = ssh_bench.context("upload", host=slow)
    asked_at: list[float] = []
    ctx.on_progress = lambda _done: asked_at.append(time.monotonic())
    ctx.stop = lambda: bool(asked_at) and time.monotonic() - asked_at[0] > 1.5

    assert isinstance(UPLOAD.run(ssh_bench.case(), ctx), Wait)

    assert time.monotonic() - asked_at[0] < 10
    assert not ctx.facts
    assert isinstance(ssh_bench.upload(), Done)
    assert contents(ssh_bench.input) == contents(ssh_bench.source)


def test_a_line_that_breaks_in_it_again_and_again_is_got_over(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, make_host("ssh", port=proxy.port))
        fill(bench.source, {str(number): random.Random(number).randbytes(65_000) for number in range(60)})
        bench.host.run(["true"])
        proxy.delay(0.02)  # what lies in the system's buffers at a reset is lost
        facts: dict[str, Any] = {}
        for _ in range(8):
            proxy.cut_after(up=1_500_000)
            ctx = bench.context("upload")
            ctx.facts = facts
            try:
                done = UPLOAD.run(bench.case(), ctx)
            except HostUnreachable:
                facts = ctx.facts
                continue
            break
        else:
            raise AssertionError("nothing of it was kept")
    assert isinstance(done, Done) and contents(bench.input) == contents(bench.source)


def test_a_dry_run_of_a_small_revision_says_that_all_of_it_goes(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1" * 3000, "b": b"2" * 3000})
    ssh_bench.upload()
    ssh_bench.next_revision("cbbbbbbbbbb")
    fill(ssh_bench.source, {"late": b"x"})
    moves = preview_upload(ssh_bench.case(), ssh_bench.context("upload"))

    done = ssh_bench.upload()

    assert isinstance(done, Done)
    assert sum(each.size for each in moves if each.act == "send") == done.facts["sent_bytes"] == 6001


def test_what_the_bandwidth_would_stretch_takes_the_stream(ssh_bench: Bench) -> None:
    files = {"a": b"1" * 3000}
    fill(ssh_bench.source, files)
    fill(ssh_bench.outputs, files)
    config = ssh_bench.host.config
    limits = config.limits.model_copy(update={"bandwidth": 250})
    ssh_bench.host.config = config.model_copy(update={"limits": limits})
    ssh_bench.host.run(["true"])  # a download takes this way only over what is open already

    for move in (ssh_bench.upload, ssh_bench.download):
        with pytest.raises(AssertionError, match="no stream"):
            move(host=QuickOnly(ssh_bench.host))


def test_a_case_that_is_there_needs_its_source_no_more(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1"})
    case = ssh_bench.case()
    ssh_bench.upload(case=case)
    fill(ssh_bench.source, {"a": b"another", "b": b"2"})
    assert isinstance(ssh_bench.upload(case=case), Done)
    assert contents(ssh_bench.input) == {"a": b"1"}


def test_a_source_that_is_not_what_was_accepted_is_not_sent(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1"})
    case = ssh_bench.case()
    fill(ssh_bench.source, {"late": b"2"})
    with pytest.raises(GiveUp, match="not what was accepted"):
        ssh_bench.upload(case=case)
    assert not ssh_bench.input.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('b"".join(bodies)', 'b"".join(bodies).replace(b"1", b"2")'),  # changed on the way
        ('b"".join(bodies)', 'b"".join(bodies)[:-1]'),  # cut
        ('"hashes": hashes', '"hashes": hashes[:-1]'),
        ('"hashes": hashes', '"hashes": ["0" * 64] * len(hashes)'),
        ("json.dumps(heads)", 'json.dumps(heads).replace("./b", "./../evil")'),
        ("json.dumps(heads)", 'json.dumps(heads).replace("./b", "/tmp/evil")'),
        ("json.dumps(heads)", 'json.dumps(heads).replace("./b", "./c/evil")'),
        ("json.dumps(heads)", '"[]"'),
        ("json.dumps(heads)", '"{"'),
    ],
)
def test_nothing_wrong_or_hostile_that_comes_down_is_taken(ssh_bench: Bench, old: str, new: str) -> None:
    fill(ssh_bench.outputs, {"a": b"1" * 100, "b": b"1"})
    before = {each for each in ssh_bench.directory.rglob("*") if ".mqi-" not in str(each)}
    with pytest.raises((RetryLater, HostError, GiveUp)) as caught:
        ssh_bench.download(host=QuickOnly(ssh_bench.host, rewriting(old, new)))
    assert "evil" not in str(caught.value)
    after = {each for each in ssh_bench.directory.rglob("*") if ".mqi-" not in str(each)}
    assert after - before <= {ssh_bench.destination.parent}
    assert isinstance(ssh_bench.download(), Done)
    assert contents(ssh_bench.destination) == contents(ssh_bench.outputs)


def test_results_that_change_while_they_are_read_are_not_taken(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {"a": b"1", "b": b"2"})
    grows = rewriting("if look(place", "open(place + b'/a', 'ab').write(b'!')\n        if look(place")
    with pytest.raises(AssertionError, match="no stream"):
        ssh_bench.download(host=QuickOnly(ssh_bench.host, grows))
    assert not ssh_bench.destination.exists()


def test_results_that_can_not_be_fetched_are_the_streams_to_refuse(ssh_bench: Bench) -> None:
    fill(ssh_bench.outputs, {"a": b"1"})
    (ssh_bench.outputs / "link").symlink_to("a")
    with pytest.raises(GiveUp, match="symbolic link"):
        ssh_bench.download()


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(quick, "MOST_FILES", 2)
    monkeypatch.setattr(quick, "MOST_BYTES", 10)
    yield


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("files", [{"a": b"1", "b": b"2", "c": b"3"}, {"a": b"12345678901"}])
def test_more_than_a_few_small_files_take_the_stream(ssh_bench: Bench, files: dict[str, bytes]) -> None:
    fill(ssh_bench.source, files)
    fill(ssh_bench.outputs, files)
    for move in (ssh_bench.upload, ssh_bench.download):
        with pytest.raises(AssertionError, match="no stream"):
            move(host=QuickOnly(ssh_bench.host))
        assert isinstance(move(), Done)


def test_the_program_is_written_for_an_old_python() -> None:
    text = Path(far_small.__file__).read_text()
    ast.parse(text, feature_version=(3, 6))
    assert "mqi_cli" not in text
    assert "__future__" not in text
