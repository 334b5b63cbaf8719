"""A small case is removed from its host by one request; whatever is not plain is left to be looked at step by step."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mqi_archiver import clearing, far_clear
from mqi_cli import GiveUp
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer


@pytest.fixture
def host(sshd: OpenSSHServer, tmp_path: Path) -> Iterator[SshHost]:
    opened = SshHost("far", sshd.host_section(base_dir=str(tmp_path / "far")), tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case's directory on the host, with a link that leads out of it."""
    place = tmp_path / "far" / "case"
    (place / "work" / "deep").mkdir(parents=True)
    (place / "work" / "deep" / "file").write_bytes(b"1")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"1")
    (place / "link").symlink_to(tmp_path / "precious")
    return place


def test_it_is_gone_after_one_request_and_what_its_links_lead_to_is_not(
    host: SshHost, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*_: object, **__: object) -> Any:
        raise AssertionError("no file session is needed")

    monkeypatch.setattr(host, "files", no_files)
    for _ in range(2):  # a second time nothing is there
        assert clearing._cleared_at_once(host, PurePosixPath(case))
        assert not case.exists()
    assert (tmp_path / "precious" / "file").exists()


def test_what_is_not_a_directory_is_left_and_told(host: SshHost, case: Path) -> None:
    other = case.with_name("other")
    other.symlink_to(case)
    assert not clearing._cleared_at_once(host, PurePosixPath(other))
    with pytest.raises(GiveUp, match="not a directory"):
        clearing._clear(host, PurePosixPath(other))
    assert (case / "work" / "deep" / "file").exists()


def test_a_large_one_is_left_whole_to_the_other_way(case: Path, monkeypatch: pytest.MonkeyPatch, host: SshHost) -> None:
    monkeypatch.setattr(far_clear, "MOST", 2)
    assert far_clear.answer(str(case).encode()) == b"left"
    assert (case / "work" / "deep" / "file").exists()
    clearing._clear(host, PurePosixPath(case))
    assert not case.exists()


def test_the_program_is_written_for_an_old_python() -> None:
    text = Path(far_clear.__file__).read_text()
    ast.parse(text, feature_version=(3, 6))
    assert "mqi_cli" not in text
    assert "__future__" not in text
