"""Servers that misbehave: never a success with wrong bytes. Also what a server without extensions can still do."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mqi_cli.config.model import SshHostSection
from mqi_cli.errors import HostFault
from mqi_cli.hosts.sftp_protocol import SftpLost
from mqi_cli.hosts.sftp_session import SftpSession
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import make_key
from servers.faulty_sftp import (
    DirectoriesWithoutEnd,
    DropsOneWrite,
    EndlessListings,
    FailsClose,
    FailsOneWrite,
    Fault,
    FaultySftpServer,
    HostileNames,
    ShortReads,
)


@contextmanager
def served(fault: Fault, tmp_path: Path) -> Iterator[SshHost]:
    make_key(tmp_path / "key")
    (tmp_path / "base").mkdir()
    with FaultySftpServer(fault) as server:
        section = SshHostSection(
            type="ssh",
            hostname="127.0.0.1",
            port=server.port,
            user="anybody",
            key_file=tmp_path / "key",
            base_dir=str(tmp_path / "base"),
        )
        host = SshHost("faulty", section, tmp_path)
        host.pin(host.offered_key())
        try:
            yield host
        finally:
            host.close()


@pytest.mark.parametrize("at", [0, 320 * 1024, 1024 * 1024 - 1])
def test_a_write_that_fails_in_the_middle_is_an_error_and_not_a_success(tmp_path: Path, at: int) -> None:
    fault = FailsOneWrite(at)
    data = os.urandom(1024 * 1024)
    with served(fault, tmp_path) as host, host.files() as files:
        with pytest.raises(HostFault, match="writing a file failed"):
            files.write(host.base_dir / "file", io.BytesIO(data))
        assert fault.failed == 1
        assert files.write(host.base_dir / "file", io.BytesIO(data)) == len(data), "the channel goes on"
        back = io.BytesIO()
        files.read(host.base_dir / "file", back)
        assert hashlib.sha256(back.getvalue()).digest() == hashlib.sha256(data).digest()


def test_a_last_write_that_is_lost_in_silence_shows_in_the_size(tmp_path: Path) -> None:
    with (
        served(DropsOneWrite(500_000 - 1), tmp_path) as host,
        host.files() as files,
        pytest.raises(HostFault, match="500000 bytes was written and has"),
    ):
        files.write(host.base_dir / "file", io.BytesIO(bytes(500_000)))


def test_a_file_that_can_not_be_closed_was_not_written(tmp_path: Path) -> None:
    with (
        served(FailsClose(), tmp_path) as host,
        host.files() as files,
        pytest.raises(HostFault, match="writing a file failed"),
    ):
        files.write(host.base_dir / "file", io.BytesIO(b"x"))


def test_reads_that_give_less_than_was_asked_for_are_made_up(tmp_path: Path) -> None:
    data = os.urandom(700_000)
    with served(ShortReads(), tmp_path) as host, host.files() as files:
        Path(host.base_dir / "file").write_bytes(data)
        back = io.BytesIO()
        assert files.read(host.base_dir / "file", back) == len(data)
        assert back.getvalue() == data
        assert files.read_bytes(host.base_dir / "file", limit=len(data)) == data


def test_names_that_lead_out_of_a_directory_are_refused(tmp_path: Path) -> None:
    with served(HostileNames(), tmp_path) as host, host.files() as files:
        Path(host.base_dir / "file").touch()
        (tmp_path / "file").touch()
        with pytest.raises(HostFault, match="1 can't be names"):
            files.listing(host.base_dir)
        with pytest.raises(HostFault):
            files.remove_tree(host.base_dir)
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("bound", "fault", "said"),
    [
        ("MOST_ENTRIES", EndlessListings(), "more than 1,000 entries"),
        ("MOST_BYTES", EndlessListings(length=200), "names of more than 0 MiB"),
        ("LONGEST_NAME", EndlessListings(length=256), "a name of more than 255 bytes"),
    ],
)
def test_a_listing_without_end_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, fault: EndlessListings, said: str
) -> None:
    if bound != "LONGEST_NAME":
        monkeypatch.setattr(f"mqi_cli.hosts.sftp_trees.{bound}", 1000)
    with served(fault, tmp_path) as host, host.files() as files:
        with pytest.raises(HostFault, match=said):
            files.listing(host.base_dir)
        with pytest.raises(HostFault, match=said):
            files.remove_tree(host.base_dir)
        assert files.stat(host.base_dir) is not None, "the session goes on"
    assert fault.asked < 200


def test_a_listing_without_end_is_left_when_a_stop_is_asked_for(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    calls = []

    def alive() -> None:
        calls.append(1)
        if len(calls) > 50:
            raise Stop

    with served(EndlessListings(), tmp_path) as host:
        with host.files() as files, pytest.raises(Stop):
            list(files.list_many([host.base_dir], alive=alive))
        calls.clear()
        with host.files() as files, pytest.raises(Stop):
            files.remove_tree(host.base_dir, alive=alive)


def test_directories_without_end_are_not_removed_for_ever(tmp_path: Path) -> None:
    with (
        served(DirectoriesWithoutEnd(), tmp_path) as host,
        host.files() as files,
        pytest.raises(HostFault, match="directories without end"),
    ):
        files.remove_tree(host.base_dir)


def test_a_server_without_extensions_is_enough(tmp_path: Path) -> None:
    with served(Fault(), tmp_path) as host, host.files() as files:
        base = host.base_dir
        files.make_directory(base / "a" / "b", parents=True)
        files.write_bytes(base / "file", b"one")
        files.write_bytes(base / "file", b"two")
        assert files.read_bytes(base / "file", limit=3) == b"two"
        files.write(base / "file", io.BytesIO(b"X"), offset=1)
        assert files.read_bytes(base / "file", limit=3) == b"tX"
        assert files.space(base) is None
        with pytest.raises(FileExistsError):
            files.make_directory(base / "a")
        with pytest.raises(FileExistsError):
            files.rename(base / "file", base / "a")
        files.remove_tree(base / "a")
        assert [each.name for each in files.listing(base)] == ["file"]


class Scripted:
    """A channel that answers with bytes written down beforehand."""

    ended = False

    def __init__(self, answers: bytes) -> None:
        self._answers = answers

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        taken, self._answers = self._answers[:size], self._answers[size:]
        return taken

    def close(self) -> None:
        pass


GREETING = b"\0\0\0\x05\x02\0\0\0\x03"


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        b"\0\0",
        b"Welcome to the cluster\n",
        b"\0\0\0\0",
        b"\0\0\0\x05\x02\0\0\0\x02",
        b"\0\0\0\x06\x02\0\0\0\x03\0",
        b"\0\0\0\x09\x65\0\0\0\x01\0\0\0\x04",
    ],
)
def test_a_greeting_that_is_none_is_refused(answers: bytes) -> None:
    with pytest.raises(SftpLost):
        SftpSession(Scripted(answers))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0\0\x01\x65",
        b"\0\0\0\x05\x65\0\0\0\x02",
        b"\0\0\0\x05\x65\0\0\0\x01",
        b"\0\0\0\x09\x66\0\0\0\x01\0\0\0\x09",
        b"\0\0\0\x05\x68\0\0\0\x01",
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_session(answer: bytes) -> None:
    from mqi_cli.hosts.sftp_protocol import Answer, Ask

    session = SftpSession(Scripted(GREETING + answer))
    with pytest.raises(SftpLost):
        session.ask(Ask.OPEN, b"").expect(Answer.HANDLE).string()


def greeting_with_limits(longest: int) -> bytes:
    name = b"limits@openssh.com"
    version = b"\x02\0\0\0\x03" + b"".join(len(each).to_bytes(4, "big") + each for each in (name, b"1"))
    limits = b"\xc9\0\0\0\x01" + longest.to_bytes(8, "big") * 4
    return b"".join(len(each).to_bytes(4, "big") + each for each in (version, limits))


@pytest.mark.parametrize(("told", "taken"), [(0, 32768), (261_120, 261_120), (1 << 40, (1 << 20) - 1024)])
def test_what_is_asked_for_at_once_stays_in_bounds_whatever_the_server_allows(told: int, taken: int) -> None:
    session = SftpSession(Scripted(greeting_with_limits(told)))

    assert (session.read_size, session.write_size) == (taken, taken)


def test_a_packet_that_is_longer_than_any_answer_is_not_waited_for() -> None:
    from mqi_cli.hosts.sftp_protocol import Ask

    session = SftpSession(Scripted(GREETING + (2 << 20).to_bytes(4, "big") + b"\x68\0\0\0\x01" + bytes(2 << 20)))
    with pytest.raises(SftpLost, match="not SFTP"):
        session.ask(Ask.READ, b"")
