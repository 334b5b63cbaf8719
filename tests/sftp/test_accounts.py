"""Cases travel to and from accounts as they are found: other login shells, other programs, login files that print."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mqi_cli import Done, Host
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp.verify import verify_upload
from servers.accounts import with_login_shell
from sftp.bench import ODD_NAMES, Bench, contents, fill, sample_case

STREAM = "one stream"


def there_and_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> str:
    """Move a case up, its new revision, results down, and prove it again; return what was told of the ways."""
    fill(bench.source, sample_case() | ODD_NAMES | {"large.raw": bytes(range(256)) * 20_000}, empty=["hollow/er"])
    fill(bench.outputs, {f"dose/{number:03d}.raw": str(number).encode() for number in range(80)} | ODD_NAMES)
    with caplog.at_level("INFO", logger="mqi.stage"):
        assert isinstance(bench.upload(), Done)
        fill(bench.source, {"late.txt": b"12345"})
        again = bench.upload()
        assert isinstance(again, Done)
        assert again.facts["sent_bytes"] == 5
        assert isinstance(bench.download(), Done)
    assert contents(bench.input) == contents(bench.source)
    assert contents(bench.destination) == contents(bench.outputs)
    assert "equal; as proven" in verify_upload(bench.case(), bench.context("upload")).text
    assert bench.leftovers() == []
    return caplog.text


@pytest.mark.parametrize("shell", ["dash", "tcsh", "fish"])
def test_a_stream_works_whatever_the_login_shell(
    shell: str, sshd: OpenSSHServer, make_host: Callable[..., Host], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    host = make_host("ssh", server=with_login_shell(sshd, program))

    told = there_and_back(Bench(tmp_path, host), caplog)

    assert told.count(STREAM) == 3


def test_a_host_of_busybox_gets_its_files_one_by_one(
    sshd: OpenSSHServer, make_host: Callable[..., Host], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is not installed")
    path = tmp_path / "path"
    path.mkdir()
    subprocess.run([program, "--install", "-s", str(path)], check=True)
    host = make_host("ssh", server=with_login_shell(sshd, f"{path}/sh", path=str(path)))

    told = there_and_back(Bench(tmp_path, host), caplog)

    assert STREAM not in told
    assert told.count("it lacks GNU find") == 3
