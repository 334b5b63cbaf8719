"""What can't be a case is named once with its reason, and never stops the others."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import Alert, CaseSeen


def by_name(findings: list[Any]) -> dict[str, CaseSeen]:
    return {each.name: each for each in findings if isinstance(each, CaseSeen)}


def add_link_loop(case: Path) -> str:
    (case / "again").symlink_to(case)
    (case / "self").symlink_to("self")
    return "it holds 2 symbolic links"


def add_link_to_outside(case: Path) -> str:
    (case / "passwd").symlink_to("/etc/passwd")
    return "it holds 1 symbolic link"


def add_fifo(case: Path) -> str:
    os.mkfifo(case / "pipe")
    return "it holds 1 special file (FIFO, socket or device)"


def add_odd_name(case: Path) -> str:
    (Path(os.fsdecode(bytes(case) + b"/\xff\xfe"))).touch()
    return "it holds 1 name that is not UTF-8"


def add_what_no_host_is_read_for(case: Path) -> str:
    (case / "/".join(["d"] * 64)).mkdir(parents=True)
    return "it holds 1 directory nested deeper than 64"


SPOILS = [add_link_loop, add_link_to_outside, add_fifo, add_odd_name, add_what_no_host_is_read_for]


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_no_case_may_hold_is_said_once_and_the_others_go_on(world: Any, spoil: Any) -> None:
    world.write("bad/a")
    world.write("good/a")
    reason = spoil(world.incoming / "bad")
    assert by_name(world.look())["bad"].problem == reason
    second = by_name(world.look(after=30))
    assert list(second) == ["good"]
    assert second["good"].fingerprint
    assert world.look(after=100) == []
    for path in (world.incoming / "bad").iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "a":
            path.unlink()
    assert not by_name(world.look(after=10))["bad"].problem
    assert by_name(world.look(after=30))["bad"].fingerprint


def test_an_unreadable_directory_in_a_case_is_its_problem(world: Any, monkeypatch: Any) -> None:
    world.write("bad/field/a")
    world.write("good/a")
    real = os.scandir

    def locked_field(path: Any) -> Any:
        if Path(path).name == "field":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("mqi_cli.manifest.os.scandir", locked_field)
    assert by_name(world.look())["bad"].problem == "it holds 1 unreadable directory"
    assert by_name(world.look(after=30))["good"].fingerprint
    monkeypatch.undo()
    world.look(after=60)
    assert by_name(world.look(after=30))["bad"].fingerprint


def test_an_unreadable_file_is_its_cases_problem_until_it_can_be_read(world: Any, monkeypatch: Any) -> None:
    world.write("bad/a")
    world.write("good/a")
    real = os.open

    def locked_file(path: Any, *args: Any, **options: Any) -> int:
        if "bad" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **options)

    world.look()
    monkeypatch.setattr("mqi_scanner.proof.os.open", locked_file)
    found = by_name(world.look(after=30))
    assert found["bad"].problem == "a file in it may not be read"
    assert found["good"].fingerprint
    assert world.look(after=10) == []
    monkeypatch.undo()
    assert by_name(world.look(after=10))["bad"].fingerprint


def test_a_read_error_is_named_and_tried_again(world: Any, monkeypatch: Any) -> None:
    world.write("bad/a")
    real = os.open

    def stale(path: Any, *args: Any, **options: Any) -> int:
        if "bad" in str(path):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(path, *args, **options)

    world.look()
    monkeypatch.setattr("mqi_scanner.proof.os.open", stale)
    world.look(after=30)
    assert world.notes() == {"bad": "reading it failed (Stale file handle); tried again at the next round"}
    monkeypatch.undo()
    assert by_name(world.look(after=10))["bad"].fingerprint


def test_a_fifo_put_in_a_files_place_after_the_look_does_not_hang_the_scan(world: Any, monkeypatch: Any) -> None:
    file = world.write("bad/a", "")
    world.look()
    real = os.open

    def swapped(path: Any, *args: Any, **options: Any) -> int:
        if Path(path) == file:
            file.unlink()
            os.mkfifo(file)
        return real(path, *args, **options)

    monkeypatch.setattr("mqi_scanner.proof.os.open", swapped)
    world.look(after=30)
    assert world.notes() == {"bad": "it changed while it was read"}


def test_a_link_or_a_socket_beside_the_cases_is_passed_over(world: Any) -> None:
    world.write("good/a")
    (world.incoming / "link").symlink_to(world.incoming)
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(world.incoming, os.O_RDONLY)
    try:
        listener.bind(f"/proc/self/fd/{here}/sock")  # a socket's address is short, the test's directory may not be
    finally:
        listener.close()
        os.close(here)
    world.accept()
    assert list(world.ctx.rows) == ["good"]


def test_hidden_and_temporary_directories_are_passed_over(world: Any) -> None:
    world.write(".incoming/a")
    world.write("c1.part/a")
    assert world.look() == []


def test_entries_that_vanish_between_listing_and_looking_are_normal(world: Any, monkeypatch: Any) -> None:
    world.write("bad/a")
    world.write("good/a")
    from mqi_scanner import scan

    real = scan.look_at

    def vanishing(directory: Path) -> Any:
        if directory.name == "bad":
            (directory / "a").unlink(missing_ok=True)
            if directory.is_dir():
                directory.rmdir()
        return real(directory)

    monkeypatch.setattr(scan, "look_at", vanishing)
    world.look()
    assert by_name(world.look(after=30))["good"].fingerprint
    assert "bad" not in world.ctx.rows


def test_a_case_whose_name_is_unusable_raises_one_alert_without_the_name(world: Any) -> None:
    world.write("good/a")
    odd = Path(os.fsdecode(bytes(world.incoming) + b"/\xffname"))
    odd.mkdir()
    (world.incoming / "line\nbreak").mkdir()
    alert = next(each for each in world.look() if isinstance(each, Alert))
    assert alert.topic == "source:incoming:names"
    assert "2 directories" in alert.text
    assert "break" not in alert.text
    assert by_name(world.look(after=30))["good"].fingerprint
    odd.rmdir()
    (world.incoming / "line\nbreak").rmdir()
    world.scan(world.ctx)
    assert [each.active for each in world.ctx.seen if isinstance(each, Alert)] == [False]
