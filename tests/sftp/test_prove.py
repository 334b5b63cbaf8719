"""What lies on a host is hashed there, by whatever can do that there."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from mqi_cli import Entry
from mqi_sftp.prove import hash_there, parse_hashes
from sftp.bench import ODD_NAMES, Bench, fill


def test_answers_of_the_hash_script_are_read_through_a_greeting() -> None:
    text = b"Welcome to the cluster!\r\n" + b"a" * 64 + b"  -\n-\n" + b"b" * 64 + b"  -\n"

    assert parse_hashes(text, 3) == ["a" * 64, "", "b" * 64]


@pytest.mark.parametrize("text", [b"", b"a" * 64 + b"  -\n", b"a" * 63 + b"  -\n" + b"b" * 64 + b"  -\n"])
def test_an_answer_too_few_is_no_answer(text: bytes) -> None:
    assert parse_hashes(text, 2) is None


@pytest.mark.parametrize(
    "tools", [("python3", "sha256sum"), ("sha256sum",), ("python3",), ("broken python3", "sha256sum"), ()], ids=" ".join
)
def test_whatever_hashes_on_the_host_says_the_same_of_every_file(
    tools: tuple[str, ...], tmp_path: Path, local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ODD_NAMES | {"large": bytes(3 << 20), "empty": b""}
    fill(tmp_path / "files", files)
    names = [*files, "gone"]
    path = tmp_path / "path"
    path.mkdir()
    for tool in ("sh", *tools):
        if tool == "broken python3":  # a shim for a version that is not there
            path.joinpath("python3").write_text("#!/bin/sh\nexit 127\n")
            path.joinpath("python3").chmod(0o755)
        else:
            path.joinpath(tool).symlink_to(sys.executable if tool == "python3" else str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(path))

    found = hash_there(
        local_bench.host, PurePosixPath(tmp_path / "files"), [Entry(name, 1, 0, 0, 0) for name in names], timeout=30
    )

    hashes = [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert found == ([*hashes, ""] if tools else None)
