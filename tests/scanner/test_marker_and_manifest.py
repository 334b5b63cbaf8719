"""`complete_when: {marker: …}` and `{manifest: …}`: the sender says when a case is complete."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import CaseSeen
from mqi_cli.config.model import CompleteWhen


@pytest.fixture
def marked(world: Any) -> Any:
    world.use(complete_when=CompleteWhen(marker="_CASE_READY"))
    return world


@pytest.fixture
def listed(world: Any) -> Any:
    world.use(complete_when=CompleteWhen(manifest="SHA256SUMS"))
    return world


def completes(findings: list[Any]) -> list[CaseSeen]:
    return [each for each in findings if isinstance(each, CaseSeen) and each.fingerprint]


def problems(findings: list[Any]) -> list[str]:
    return [each.problem for each in findings if isinstance(each, CaseSeen) and each.problem]


def write_checksums(case: Path, *, but: tuple[str, ...] = ()) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(case).as_posix()}\n"
        for path in sorted(case.rglob("*"))
        if path.is_file() and path.relative_to(case).as_posix() not in ("SHA256SUMS", *but)
    ]
    (case / "SHA256SUMS").write_text("".join(lines))


def test_the_marker_completes_a_case_at_the_first_look(marked: Any) -> None:
    marked.write("c1/a")
    marked.write("c1/_CASE_READY", "")
    (seen,) = completes(marked.look())
    assert seen.files == 2


def test_without_its_marker_a_case_waits_for_ever_and_says_so(marked: Any) -> None:
    marked.write("c1/a")
    marked.write("c1/field/_CASE_READY", "")  # not where it belongs
    for _ in range(5):
        assert not completes(marked.look(after=5000))
    assert marked.notes() == {"c1": "no marker file yet"}
    marked.write("c1/_CASE_READY", "")
    assert completes(marked.look(after=10))


def test_a_marker_alone_is_no_case(marked: Any) -> None:
    marked.write("c1/_CASE_READY", "")
    assert not completes(marked.look())
    assert marked.notes() == {"c1": "it holds nothing but its marker file"}


def test_a_directory_of_the_markers_name_is_no_marker(marked: Any) -> None:
    marked.write("c1/_CASE_READY/a")
    assert not completes(marked.look())


def test_a_case_is_complete_when_all_listed_files_prove(listed: Any) -> None:
    listed.write("c1/a")
    listed.write("c1/field/b", "other")
    write_checksums(listed.incoming / "c1")
    assert not completes(listed.look())
    (seen,) = completes(listed.look(after=10))
    assert seen.files == 3


def test_the_checksum_file_may_come_first(listed: Any) -> None:
    listed.write("c1/a")
    late = listed.write("c1/field/b", "other")
    write_checksums(listed.incoming / "c1")
    content = late.read_bytes()
    late.unlink()
    for _ in range(3):
        assert not completes(listed.look(after=10))
    assert listed.notes() == {"c1": "1 of 2 listed files not there yet"}
    late.write_bytes(content[:2])  # half of it
    for _ in range(3):
        assert not completes(listed.look(after=10))
    assert listed.notes() == {"c1": "1 of 2 listed files differ from its checksum file"}
    late.write_bytes(content)
    assert not completes(listed.look(after=10))
    assert completes(listed.look(after=10))


def test_a_case_that_does_not_prove_is_read_once_for_each_change(listed: Any, monkeypatch: Any) -> None:
    listed.write("c1/a")
    write_checksums(listed.incoming / "c1")
    listed.write("c1/a", "tampered")
    listed.look()
    assert problems(listed.look(after=10)) == ["1 of 1 listed file differ from its checksum file"]

    def read(*args: Any, **options: Any) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr("mqi_scanner.proof.Proof.advance", read)
    for _ in range(5):
        assert listed.look(after=3000) == []


def test_files_that_are_not_listed_are_a_problem(listed: Any) -> None:
    listed.write("c1/a")
    listed.write("c1/stray.ptn")
    listed.write("c1/tmp/stray2.ptn")
    write_checksums(listed.incoming / "c1", but=("stray.ptn", "tmp/stray2.ptn"))
    listed.look()
    assert problems(listed.look(after=10)) == ["it holds 2 files that its checksum file does not list"]
    (listed.incoming / "c1/stray.ptn").unlink()
    (listed.incoming / "c1/tmp/stray2.ptn").unlink()
    listed.look(after=10)
    assert completes(listed.look(after=10))


def test_a_checksum_file_that_is_written_slowly_is_read_again(listed: Any) -> None:
    listed.write("c1/a")
    listed.write("c1/b")
    write_checksums(listed.incoming / "c1")
    file = listed.incoming / "c1/SHA256SUMS"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    listed.look()
    assert problems(listed.look(after=10)) == ["it holds 1 file that its checksum file does not list"]
    with file.open("ab") as stream:
        stream.write(whole[len(whole) // 2 :])
    listed.look(after=10)
    assert completes(listed.look(after=10))


@pytest.mark.parametrize("text", ["half a li", "0" * 64 + "  /etc/passwd\n", "0" * 64 + "  ../other/a\n"])
def test_a_checksum_file_that_is_none_is_a_problem_once_it_stays_so(listed: Any, text: str) -> None:
    listed.write("c1/a")
    listed.write("c1/SHA256SUMS", text)
    assert not problems(listed.look())
    assert problems(listed.look(after=10)) == ["line 1 of its checksum file is not one that sha256sum writes"]


def test_an_empty_checksum_file_completes_nothing(listed: Any) -> None:
    listed.write("c1/SHA256SUMS", "")
    for _ in range(3):
        assert not completes(listed.look(after=10))
    assert listed.notes() == {"c1": "an empty checksum file"}
