"""`mqi transfer …` as an operator types it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import Done, Host, Manifest, ManifestFile
from mqi_cli.config.model import HostLimits
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_sftp.preview import compares_content, preview_download, preview_upload
from mqi_sftp.verify import Finding, Side, judge, verify_download, verify_upload
from sftp.bench import DOWNLOAD, UPLOAD, Bench, contents, fill, flip_a_byte, peak_of, sample_case

Mqi = Callable[..., str]


@pytest.fixture
def mqi(tmp_path: Path) -> Mqi:
    """`mqi` over a config with one host, this machine; checks the exit code and returns what it printed."""
    copy = "cp -r {input_dir} {work_dir}/dose"
    steps = [
        {"upload": {"host": "here"}},
        {"run": {"host": "here", "command": copy}},
        {"download": {"host": "here", "from": "dose", "to": str(tmp_path / "results" / "{case_name}")}},
    ]
    config = {
        "state": {"path": str(tmp_path / "state" / "state.db")},
        "hosts": {"here": {"type": "local", "base_dir": str(tmp_path / "far")}},
        "sources": [{"path": str(tmp_path / "in"), "complete_when": "manual", "workflow": "qa"}],
        "workflows": {"qa": steps},
    }
    (tmp_path / "mqi.yaml").write_text(json.dumps(config))

    def call(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mqi_cli", *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def test_a_case_goes_there_and_its_results_come_back_by_hand(mqi: Mqi, tmp_path: Path) -> None:
    case = tmp_path / "in" / "Doe^John"
    fill(case, sample_case())
    mqi("case", "add", str(case))
    assert "nothing of this case has been moved yet" in mqi("transfer", "verify", "Doe", code=1)

    would = mqi("transfer", "upload", "Doe", "--dry-run", "--json")
    assert {each["act"] for each in json.loads(would)} == {"send"}
    assert len(json.loads(would)) == 223
    assert not list((tmp_path / "far").rglob("*.ptn")), "a dry run moves nothing"

    (sent,) = json.loads(mqi("transfer", "upload", "Doe", "--json"))
    assert sent["files"] == 223
    assert sent["sent_bytes"] == sent["bytes"]
    mqi("exec", "run", "Doe")
    assert "fetch" in mqi("transfer", "download", "Doe", "--dry-run")
    mqi("transfer", "download", "Doe")
    assert contents(tmp_path / "results" / "Doe^John") == contents(case)
    assert mqi("transfer", "verify", "Doe").count("equal; as proven when it was moved") == 2

    victim = next((tmp_path / "results").rglob("*.ptn"))
    flip_a_byte(victim)
    told = mqi("transfer", "verify", "Doe", code=1)
    assert victim.name in told
    assert "not what was proven when it was moved: here" in told
    (upload, download) = json.loads(mqi("transfer", "verify", "Doe", "--json", code=1))
    assert (upload["differs"], download["differs"]) == (False, True)
    assert [each["problem"] for each in download["findings"]] == ["differs"]

    shutil.rmtree(tmp_path / "far")
    told = mqi("transfer", "verify", "Doe", "--json", code=1)
    (upload, download) = json.loads(told)
    assert "not what was proven when it was moved: here" in download["text"]
    assert [each["problem"] for each in download["findings"]] == ["changed since it was moved, here"]
    assert [Path(each["path"]).name for each in download["findings"]] == [victim.name]
    flip_a_byte(victim)
    assert "nothing on here any more, to compare with; as proven" in mqi("transfer", "verify", "Doe")

    logs = "".join(mqi("case", "log", "Doe").splitlines()[1:])
    assert ".ptn" not in logs


def test_of_the_next_revision_of_a_case_only_what_changed_goes_there(mqi: Mqi, tmp_path: Path) -> None:
    case = tmp_path / "in" / "Doe"
    fill(case, {"large": bytes(range(256)) * 4096, "small": b"1"})
    mqi("case", "add", str(case))
    mqi("transfer", "upload", "Doe")
    fill(case, {"late.txt": b"12345"})
    mqi("case", "add", str(case))

    would = json.loads(mqi("transfer", "upload", "Doe", "--dry-run", "--json"))
    (sent,) = json.loads(mqi("transfer", "upload", "Doe", "--json"))

    assert {each["path"]: each["act"] for each in would} == {"large": "keep", "small": "keep", "late.txt": "send"}
    assert (sent["files"], sent["sent_bytes"]) == (3, 5)
    assert len(list((tmp_path / "far").glob("*/input"))) == 2, "each revision has its own"


ONE = Manifest((ManifestFile("a", 1, "1" * 64), ManifestFile("b", 1, "2" * 64)))
OTHER = Manifest((ManifestFile("a", 1, "3" * 64), ManifestFile("c", 1, "2" * 64)))


def test_each_path_that_differs_is_named_with_the_side_that_has_it() -> None:
    verdict = judge("upload", Side("here", ONE), Side("there", OTHER), recorded=ONE.fingerprint)

    assert verdict.differs
    assert verdict.findings == (Finding("a", "differs"), Finding("b", "only here"), Finding("c", "only there"))
    assert verdict.text.endswith("not what was proven when it was moved: there")


def test_two_sides_that_are_equal_but_not_what_was_proven_differ() -> None:
    assert judge("upload", Side("here", ONE), Side("there", ONE), recorded=OTHER.fingerprint).differs


def test_one_side_that_is_gone_leaves_the_record_to_compare_with() -> None:
    verdict = judge("download", Side("there", None), Side("here", ONE), recorded=ONE.fingerprint)

    assert not verdict.differs
    assert "nothing there any more" in verdict.text
    assert judge("download", Side("there", None), Side("here", OTHER), recorded=ONE.fingerprint).differs


def test_nothing_on_either_side_is_not_well() -> None:
    assert judge("download", Side("there", None), Side("here", None), recorded="").differs


def test_a_link_that_came_to_be_on_a_side_is_named() -> None:
    link = Finding("link", "symbolic link, there")
    verdict = judge("upload", Side("here", ONE), Side("there", ONE, (link,)), recorded=ONE.fingerprint)

    assert verdict.differs
    assert verdict.findings == (link,)


def test_what_was_listed_when_it_was_moved_names_the_files_where_one_side_is_gone() -> None:
    listed = {each.path: each.sha256 for each in ONE.files}
    verdict = judge("upload", Side("here", None), Side("there", OTHER), recorded=ONE.fingerprint, listed=lambda: listed)

    assert verdict.findings == (
        Finding("a", "changed since it was moved, there"),
        Finding("b", "gone since it was moved, there"),
        Finding("c", "new since it was moved, there"),
    )


def test_a_source_is_compared_whatever_else_came_to_be_in_it(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.source, {"a": b"1", "b": b"2", "c": b"3", "closed/d": b"4"})
    case = local_bench.case()
    local_bench.upload()
    (local_bench.source / "link").symlink_to("a")
    flip_a_byte(local_bench.source / "a")
    scandir, open_file = os.scandir, io.FileIO

    def forbids(path: Any) -> Any:
        if str(path).endswith("/source/case/closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def stale(path: Any, *more: Any) -> Any:
        if str(path).endswith("/source/case/b"):
            raise OSError(116, "Stale file handle")
        if str(path).endswith("/source/case/c"):
            os.utime(path, (5, 5))
        return open_file(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr("mqi_cli.manifest.os.scandir", forbids)
        patch.setattr("mqi_cli.manifest.io.FileIO", stale)
        verdict = verify_upload(case, local_bench.context("upload"))

    assert {each.path: each.problem for each in verdict.findings} == {
        "link": "symbolic link, in the source",
        "closed/": "unreadable directory, in the source",
        "b": "can't be read (stale file handle), in the source",
        "c": "changed while it was read, in the source",
        "a": "differs",
    }


def test_a_source_that_can_not_be_read_at_all_is_said_and_no_bug(
    local_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local_bench.source, {"a": b"1"})
    case = local_bench.case()
    local_bench.upload()

    def stale(_directory: Path) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("mqi_sftp.verify.look_over", stale)

    verdict = verify_upload(case, local_bench.context("upload"))

    assert verdict.differs
    assert verdict.findings == (Finding(".", "can't be read (stale file handle), in the source"),)
    assert "in the source it can't be read" in verdict.text


def test_a_transfer_tells_which_of_how_many_files_it_is_at(bench: Bench) -> None:
    fill(bench.source, {"d/a": b"1" * (5 << 20), "b": b"2"})
    fill(bench.outputs, {"d/a": b"1" * (5 << 20), "b": b"2"})

    for stage, case in (("upload", bench.case()), ("download", bench.case(fingerprint="f"))):
        ctx = bench.context(stage)
        told: list[str] = []
        ctx.progress = lambda *_far, detail, told=told, **_: told.append(detail)  # type: ignore[method-assign,assignment]
        (UPLOAD if stage == "upload" else DOWNLOAD).run(case, ctx)
        found = [each for each in dict.fromkeys(told) if " files, " in each]
        assert sorted(each.partition(" ")[0] for each in found) == ["1/2", "2/2"]
        assert {each.partition(", ")[2] for each in found} == {"a", "b"}


def test_looking_shows_how_far_it_is(local_bench: Bench) -> None:
    fill(local_bench.source, {"a": b"1" * (3 << 20)})
    told: list[tuple[float, float]] = []

    def show(done: float, total: float, _unit: str, _detail: str) -> None:
        told.append((done, total))

    preview_upload(local_bench.case(), local_bench.context("upload"), show=show)
    assert told[-1] == (3 << 20, 3 << 20)
    local_bench.upload()
    told.clear()
    verify_upload(local_bench.case(), local_bench.context("upload"), show=show)
    assert told[-1] == (6 << 20, 6 << 20)


@pytest.mark.parametrize("host", ["local", "ssh"], indirect=True)
def test_a_dry_run_finds_content_that_changed_behind_the_same_size_and_time(bench: Bench) -> None:
    fill(bench.source, {"a": b"1" * 1000, "b": b"2" * 1000})
    bench.upload()
    flip_a_byte(bench.source / "a")

    moves = preview_upload(bench.case(), bench.context("upload"))

    sent = bench.upload()
    assert isinstance(sent, Done)
    assert {each.path: each.act for each in moves} == {"a": "send", "b": "keep"}
    assert sent.facts["sent_bytes"] == 1000


def test_a_dry_run_sees_what_a_stream_had_taken_over_when_it_broke_off(ssh_bench: Bench) -> None:
    fill(ssh_bench.source, {"a": b"1" * 1000, "b": b"2" * 1000})
    ssh_bench.upload()
    ssh_bench.input.rename(ssh_bench.root / ".taken-0-1")
    (ssh_bench.root / ".incoming-0-1").mkdir()

    moves = preview_upload(ssh_bench.case(), ssh_bench.context("upload"))

    sent = ssh_bench.upload()
    assert isinstance(sent, Done)
    assert {each.act for each in moves} == {"keep"}
    assert sent.facts["sent_bytes"] == 0


def test_without_a_shell_a_dry_run_says_that_it_goes_by_size_and_time(tmp_path: Path, make_host: Any) -> None:
    bench = Bench(tmp_path, make_host("sftp_only"))

    assert not compares_content(bench.context("upload"))  # type: ignore[arg-type]


def test_a_transfer_takes_the_option_to_tell_more_itself(mqi: Mqi, tmp_path: Path) -> None:
    fill(tmp_path / "in" / "Doe", {"a": b"1"})
    mqi("case", "add", str(tmp_path / "in" / "Doe"))

    mqi("transfer", "upload", "Doe", "-v")
    assert "equal" in mqi("transfer", "verify", "Doe", "-vv")


@pytest.mark.sshd
@pytest.mark.parametrize("size", [1_000, 9_000_000], ids=["one request", "a stream"])
def test_a_server_with_one_channel_on_the_one_connection_takes_every_command(
    tmp_path: Path, sshd: OpenSSHServer, make_host: Callable[..., Host], size: int
) -> None:
    """Files and programs take turns: nobody waits for the channel that he holds himself."""
    limits = HostLimits(connections=1)
    bench = Bench(tmp_path, make_host("ssh", server=sshd.variant("MaxSessions 1"), limits=limits))
    fill(bench.source, {"large": bytes(size), "small": b"1"})

    assert [each.act for each in preview_upload(bench.case(), bench.context("upload"))] == ["send", "send"]
    assert isinstance(bench.upload(), Done)
    assert preview_upload(bench.case(), bench.context("upload")) == []
    assert not verify_upload(bench.case(), bench.context("upload")).differs
    fill(bench.outputs, {"large": bytes(size), "small": b"1"})
    assert [each.act for each in preview_download(bench.case(), bench.context("download"))] == ["fetch", "fetch"]
    done = bench.download()
    assert isinstance(done, Done)
    recorded = str(done.facts["fingerprint"])
    assert preview_download(bench.case(), bench.context("download")) == []
    assert not verify_download(bench.case(), bench.context("download"), recorded=recorded).differs
    fill(bench.source, {"small": b"12"})
    assert sorted(each.act for each in preview_upload(bench.case(), bench.context("upload"))) == ["keep", "send"]


def test_of_many_files_that_are_proven_again_both_sides_are_held_once(local_bench: Bench) -> None:
    count = 3000
    fill(local_bench.source, {f"{number % 30}/{number:0150d}": b"" for number in range(count)})
    local_bench.upload()
    case, ctx = local_bench.case(), local_bench.context("upload")

    assert peak_of(lambda: verify_upload(case, ctx)) < 700 * count + (1 << 20)  # what a file is read in
    assert not verify_upload(case, ctx).differs
