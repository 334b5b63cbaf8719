"""Restoring: complete and proven, or nothing; whatever the archive says, nothing outside its place is written."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archiver.filing import Filing, content
from mqi_archiver.index import Index
from mqi_archiver.restore import restore
from mqi_archiver.tarball import Damaged, prove
from mqi_cli import CaseError, UsageError


def test_what_was_filed_comes_back_byte_for_byte(filing: Filing, tmp_path: Path) -> None:
    filing.done()
    out = tmp_path / "new" / "place"
    restore(filing.archive, out)
    assert content(out / "results/download") == content(filing.results)
    assert content(out / "input") == content(filing.input)
    assert (out / "results/download/nothing").is_dir()
    times = {path.name: int(path.stat().st_mtime) for path in filing.results.iterdir() if path.is_file()}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    assert {name: int((out / "results/download" / name).stat().st_mtime) for name in times} == times


def test_an_empty_directory_may_be_restored_into_and_a_full_one_not(filing: Filing, tmp_path: Path) -> None:
    filing.done()
    out = tmp_path / "out"
    out.mkdir()
    restore(filing.archive, out)
    before = content(out)
    with pytest.raises(UsageError, match="not empty"):
        restore(filing.archive, out)
    assert content(out) == before
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        restore(filing.archive, link)


@pytest.mark.parametrize("compression", ["none", "gzip", "xz"])
def test_a_flipped_byte_anywhere_is_found_and_nothing_is_restored(
    filing: Filing, tmp_path: Path, compression: str
) -> None:
    filing.options["compression"] = compression
    sha256 = filing.done()["sha256"]
    (archive,) = (filing.archives / name for name in filing.files())
    whole = archive.read_bytes()
    out = tmp_path / "out"
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[place] ^= 0x10
        archive.write_bytes(data)
        with pytest.raises(CaseError, match="can't be trusted"):
            restore(archive, out, sha256=sha256)
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".restoring")] == []


@pytest.mark.parametrize("compression", ["none", "gzip", "xz"])
def test_an_archive_cut_short_anywhere_is_found(filing: Filing, compression: str) -> None:
    filing.options["compression"] = compression
    sha256 = filing.done()["sha256"]
    (archive,) = (filing.archives / name for name in filing.files())
    whole = archive.read_bytes()
    for size in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        archive.write_bytes(whole[:size])
        try:
            assert prove(archive).sha256 != sha256  # the empty blocks at the end of a plain tar prove nothing
        except Damaged:
            continue
        assert compression == "none"
        assert size > len(whole) - 10240 - 512


# --- hostile archives


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def build(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], listed: dict[str, bytes] | None = None) -> Path:
    """Write an archive whose documents are in order and whose members may be anything."""
    document = json.dumps({"format": 1}).encode()
    listed = {info.name: data for info, data in members if info.isreg()} if listed is None else listed
    lines = {"manifest.json": document, **listed}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in lines.items()).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in [member("manifest.json", document), member("SHA256SUMS", sums), *members]:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


HOSTILE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "absolute": lambda: [member("/tmp/evil", b"x")],
    "dotdot": lambda: [member("results/../../evil", b"x")],
    "dot": lambda: [member("./results/evil", b"x")],
    "elsewhere": lambda: [member("evil", b"x")],
    "symlink": lambda: [member("results/link", type=tarfile.SYMTYPE, linkname="/etc")],
    "symlink, then through it": lambda: [
        member("results/link", type=tarfile.SYMTYPE, linkname="/tmp"), member("results/link/evil", b"x"),
    ],
    "hardlink": lambda: [member("results/link", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "fifo": lambda: [member("results/pipe", type=tarfile.FIFOTYPE)],
    "device": lambda: [member("results/dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "twice": lambda: [member("results/a", b"x"), member("results/a", b"x")],
    "file as directory": lambda: [member("results/a", b"x"), member("results/a/b", b"x")],
    "directory outside": lambda: [member("../evil", type=tarfile.DIRTYPE)],
    "directory outside by a detour": lambda: [
        member("results", type=tarfile.DIRTYPE), member("results/../../evil", type=tarfile.DIRTYPE),
    ],
    "directory of another kind": lambda: [member("evil", type=tarfile.DIRTYPE)],
    "manifest again": lambda: [member("manifest.json", b"{}")],
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    box = tmp_path / "box"
    box.mkdir()
    archive = build(box / "evil.tar", HOSTILE[kind]())
    with pytest.raises(CaseError):
        restore(archive, box / "out")
    assert [path.name for path in box.iterdir()] == ["evil.tar"]
    assert [path.name for path in tmp_path.iterdir()] == ["box"]
    assert not Path("/tmp/evil").exists()


def test_a_file_that_is_not_listed_or_missing_is_found(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="does not list"):
        prove(build(tmp_path / "a.tar", [member("results/a", b"x")], {}))
    with pytest.raises(Damaged, match="1 of 2 files are missing"):
        prove(build(tmp_path / "b.tar", [], {"results/a": b"x"}))
    with pytest.raises(Damaged, match="does not match"):
        prove(build(tmp_path / "c.tar", [member("results/a", b"x")], {"results/a": b"y"}))


def test_a_member_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("mqi_archiver.restore.shutil.disk_usage", lambda path: Usage)
    archive = build(tmp_path / "big.tar", [member("results/a", b"x" * 1000)])
    with pytest.raises(CaseError, match="too little room"):
        restore(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(  # named: a gzip file holds the time, and the test processes must agree on a test's name
    "data",
    [b"", b"x" * 5000, gzip.compress(b"x" * 5000), b"\x1f\x8b", b"\xfd7zXZ\0junk"],
    ids=["empty", "text", "gzip-of-text", "gzip-begun", "xz-begun"],
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(Damaged):
        prove(file)


def test_a_directory_or_a_link_is_no_archive(filing: Filing, tmp_path: Path) -> None:
    filing.done()
    with pytest.raises(CaseError):
        restore(tmp_path, tmp_path / "out")
    link = tmp_path / "link.tar.gz"
    link.symlink_to(filing.archive)
    with pytest.raises(CaseError):
        restore(link, tmp_path / "out")


def test_an_archive_that_proves_but_is_not_the_recorded_one_is_refused(filing: Filing, tmp_path: Path) -> None:
    filing.done()
    other = build(tmp_path / "other.tar", [member("results/a", b"x")])
    (known,) = Index(filing.ctx.data_dir).each()
    with pytest.raises(CaseError, match="not the file that mqi wrote"):
        restore(other, tmp_path / "out", sha256=known.sha256)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="not where it was put"):
        restore(tmp_path / "nowhere.tar", tmp_path / "out")


def test_names_of_any_language_survive(filing: Filing, tmp_path: Path) -> None:
    name = "strahl\u2028\u00e4\u00df \u7c92\u5b50 'q\" $(x)" + "n" * 120
    (filing.results / name).write_bytes(b"odd")
    (filing.results / ("d" * 100)).mkdir()
    (filing.results / ("d" * 100) / ("f" * 150)).write_bytes(b"deep")
    filing.done()
    restore(filing.archive, tmp_path / "out")
    assert content(tmp_path / "out/results/download") == content(filing.results)
