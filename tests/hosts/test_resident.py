"""Programs that stay loaded on a host: asked again and again over one process, and replaced when that ends."""

from __future__ import annotations

import ast
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqi_cli import HostUnreachable, Resident, ResidentHost
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts import far_resident, resident
from mqi_cli.hosts.local import LocalHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer

ECHO = Resident(
    "echo",
    b"""
import os
count = 0
def answer(request):
    global count
    count += 1
    return b"%d %d " % (os.getpid(), count) + request
""",
)
AWKWARD = Resident(
    "awkward",
    b"""
import os, time
def answer(request):
    if request == b"die":
        os._exit(9)
    if request == b"sleep":
        time.sleep(60)
    if request == b"streams":
        return repr([os.readlink("/proc/self/fd/%d" % n) for n in range(3)]).encode()
    raise KeyError("the name of a patient")
""",
)


@pytest.fixture
def host(sshd: OpenSSHServer, tmp_path: Path) -> Iterator[SshHost]:
    opened = SshHost("far", sshd.host_section(), tmp_path)
    yield opened
    opened.close()


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except OSError:
        return True


def test_one_process_answers_request_after_request_and_ends_with_the_connection(host: SshHost) -> None:
    answers = [host.ask(ECHO, f"request {number} \x00\xff".encode() * 50_000) or b"" for number in range(3)]
    (pid,) = {each.split()[0] for each in answers}
    assert [each.split()[1] for each in answers] == [b"1", b"2", b"3"]
    assert all(each.endswith(f"request {number} \x00\xff".encode() * 50_000) for number, each in enumerate(answers))
    host.close()
    end = time.monotonic() + 10
    while not gone(int(pid)):
        assert time.monotonic() < end, "the program outlives its connection"
        time.sleep(0.02)


def test_threads_get_a_process_each(host: SshHost) -> None:
    together = threading.Barrier(3)
    found: list[bytes] = []

    def ask() -> None:
        together.wait()
        found.extend(host.ask(ECHO, b"x" * 3_000_000) or b"" for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 9
    assert all(each.endswith(b"x" * 3_000_000) for each in found)
    assert len({each.split()[0] for each in found}) <= 3


def test_one_that_was_killed_while_nobody_asked_is_replaced(host: SshHost) -> None:
    first = host.ask(ECHO, b"")
    assert first
    os.kill(int(first.split()[0]), signal.SIGKILL)
    end = time.monotonic() + 10
    while True:  # until its end is known here
        try:
            second = host.ask(ECHO, b"")
            break
        except HostUnreachable:
            assert time.monotonic() < end
    if second is not None:  # asked just before its end was known, it would count as one that can't be kept
        assert second.split()[0] != first.split()[0]


def test_one_that_ends_in_the_middle_leaves_its_request_in_doubt_and_others_to_other_ways(host: SshHost) -> None:
    with pytest.raises(HostUnreachable, match="ended before its answer"):
        host.ask(AWKWARD, b"die")
    assert host.ask(ECHO, b"") is None
    assert host.run(["echo", "there"]).text == "there\n"


@pytest.mark.parametrize(
    "junk", [b"done 9999999999\n", b"done -000000001\n", b"done\n", b"\0" * 16, b"gone 0000000000\n"]
)
def test_an_answer_that_is_none_costs_no_memory_and_is_no_bug(host: SshHost, junk: bytes) -> None:
    says = f"import os\ndef answer(request):\n    os.write(4, {junk!r} + b' ' * 100)\n    return b''\n"
    with pytest.raises(HostUnreachable, match="makes no sense"):
        host.ask(Resident("junk", says.encode()), b"")
    assert host.run(["echo", "there"]).text == "there\n"


def test_one_that_does_not_answer_is_ended_in_time(host: SshHost) -> None:
    began = time.monotonic()
    assert host.ask(ECHO, b"")
    with pytest.raises(HostUnreachable):
        host.ask(AWKWARD, b"sleep", timeout=0.5)
    assert time.monotonic() - began < 30
    assert host.ask(ECHO, b""), "the host itself is well"


def test_a_failure_there_tells_no_names_and_asks_for_another_way(host: SshHost) -> None:
    assert host.ask(AWKWARD, b"fail") is None


def test_what_a_program_starts_has_none_of_the_connections_streams(host: SshHost) -> None:
    assert host.ask(AWKWARD, b"streams") == b"['/dev/null', '/dev/null', '/dev/null']"


def test_a_host_without_python_is_asked_once(host: SshHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mqi_cli.hosts.ssh.COMMAND", ("no-such-python3", "-c", "pass"))
    assert host.ask(ECHO, b"") is None
    monkeypatch.undo()
    assert host.ask(ECHO, b"") is None, "tried again only after a while"
    assert host.run(["echo", "there"]).text == "there\n"


def test_only_hosts_over_a_network_keep_programs(host: SshHost, tmp_path: Path) -> None:
    assert isinstance(host, ResidentHost)
    assert not isinstance(
        LocalHost("here", LocalHostSection(type="local", base_dir=str(tmp_path)), tmp_path), ResidentHost
    )


def test_the_far_end_is_written_for_an_old_python() -> None:
    for text in (Path(far_resident.__file__).read_text(), resident._BOOT):
        ast.parse(text, feature_version=(3, 6))
        assert "__future__" not in text
