"""Stage `archive`: what is filed is proven, filed once, and only then is anything on a host removed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archiver.filing import KEY, Filing, HostThatIsAway, WithHost, content, stamps, write
from mqi_archiver import archive as archive_module
from mqi_archiver.clearing import clear_hosts
from mqi_archiver.config import check_archive
from mqi_archiver.contents import gather
from mqi_archiver.index import Index
from mqi_archiver.place import MARK, mark_root, publish
from mqi_archiver.tarball import pack, prove
from mqi_cli import Done, Earlier, GiveUp, HostUnreachable, RetryLater, Step, Wait, seen_attempts
from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost
from mqi_cli.manifest import build_manifest


def test_the_archive_holds_results_input_and_who_they_are(filing: Filing) -> None:
    facts = filing.done()
    proven = prove(filing.archive)
    assert facts["sha256"] == proven.sha256
    assert facts["files"] == 5
    assert facts["archive_bytes"] == filing.archive.stat().st_size
    with tarfile.open(filing.archive) as tar:
        names = tar.getnames()
    assert names[:2] == ["manifest.json", "SHA256SUMS"]
    assert "results/download/dose.raw" in names
    assert "results/download/nothing" in names
    assert "input/field/01.ptn" in names
    assert (proven.document["name"], proven.document["key"]) == (filing.case.name, KEY)
    assert [each["step"] for each in proven.document["steps"]] == ["upload", "simulate", "download"]
    assert proven.document["steps"][1]["attempt"] == 2


def test_anybody_can_prove_an_archive_with_tar_and_sha256sum(filing: Filing, tmp_path: Path) -> None:
    filing.done()
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xzf", filing.archive, "-C", out], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    assert content(out / "results/download") == content(filing.results)
    assert content(out / "input") == content(filing.input)


@pytest.mark.parametrize(("compression", "ending"), [("none", ".tar"), ("gzip", ".tar.gz"), ("xz", ".tar.xz")])
def test_each_compression_proves_and_two_packs_are_equal(filing: Filing, compression: str, ending: str) -> None:
    filing.options |= {"compression": compression, "clear_host": False}
    filing.done()
    first = filing.archives / f"{filing.case.name}{ending}"
    data = first.read_bytes()
    first.unlink()
    filing.ctx.facts = {}
    filing.done()
    assert first.read_bytes() == data


def test_packing_is_the_same_at_any_time(filing: Filing, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = gather(filing.case, filing.ctx, read=lambda count: None)
    packs = []
    for now in (1.0e9, 1.5e9):
        stream = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda at=now: at)
            pack(stream, contents, compression="gzip", written=lambda count: None)
        packs.append(stream.getvalue())
    assert packs[0] == packs[1]


def test_the_case_is_removed_from_its_hosts_and_nothing_else_is(filing: Filing) -> None:
    assert filing.done()["cleared"] == ["hpc"]
    assert not (filing.far / KEY).exists()
    assert content(filing.far) == {"cother22222/input/a": b"another case"}


def test_nothing_of_the_source_or_the_results_is_touched(filing: Filing) -> None:
    before = stamps(filing.source), stamps(filing.results)
    filing.done()
    assert (stamps(filing.source), stamps(filing.results)) == before


def test_clear_host_false_leaves_the_host_alone(filing: Filing) -> None:
    filing.options["clear_host"] = False
    assert "cleared" not in filing.done()
    assert (filing.far / KEY).exists()


def test_include_input_false_neither_files_nor_reads_the_input(filing: Filing) -> None:
    filing.options["include_input"] = False
    shutil.rmtree(filing.source)
    assert filing.done()["files"] == 2


def test_results_that_are_not_what_was_fetched_are_refused_and_the_host_is_kept(filing: Filing) -> None:
    ctx = filing.turn()
    write(filing.results / "dose.raw", b"other" * 800)
    with pytest.raises(GiveUp, match="not what it fetched") as raised:
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    assert "patient-7" not in str(raised.value)
    assert filing.files() == []
    assert (filing.far / KEY).exists()


def test_input_that_changed_since_it_was_accepted_is_refused(filing: Filing) -> None:
    write(filing.input / "late.ptn", b"late")
    with pytest.raises(GiveUp, match="not what was accepted"):
        filing.run()
    assert (filing.far / KEY).exists()
    assert filing.files() == []


def test_results_or_input_that_are_gone_are_refused(filing: Filing) -> None:
    ctx = filing.turn()
    shutil.rmtree(filing.results)
    with pytest.raises(GiveUp, match="no longer where"):
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    assert (filing.far / KEY).exists()


def test_a_link_among_the_results_is_refused_by_count(filing: Filing) -> None:
    ctx = filing.turn()
    (filing.results / "link").symlink_to("/etc/passwd")
    with pytest.raises(GiveUp, match="1 symbolic link"):
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)


def test_a_download_without_its_fingerprint_is_no_ground_to_clear_a_host(filing: Filing) -> None:
    ctx = filing.turn()
    ctx.earlier[-1] = Earlier("download", "", 1, {})
    with pytest.raises(GiveUp, match="did not record"):
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    ctx.earlier.pop()
    with pytest.raises(GiveUp, match="nothing was fetched"):
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    assert (filing.far / KEY).exists()


def test_a_damaged_write_is_found_before_the_archive_gets_its_name(filing: Filing, monkeypatch: Any) -> None:
    real = os.fsync

    def flipping_disk(descriptor: int) -> None:
        real(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".part"):
            with open(path, "r+b") as stream:
                stream.seek(-600, 2)
                byte = stream.read(1)
                stream.seek(-600, 2)
                stream.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(archive_module.os, "fsync", flipping_disk)
    with pytest.raises(RetryLater, match="did not prove"):
        filing.run()
    assert filing.files() == []
    assert (filing.far / KEY).exists()
    monkeypatch.undo()
    assert filing.done()["cleared"] == ["hpc"]


def test_an_archive_that_proves_but_holds_less_than_was_packed_is_no_proof(filing: Filing, monkeypatch: Any) -> None:
    real = archive_module.pack

    def forgetful_pack(stream: Any, contents: Any, **options: Any) -> None:
        real(stream, replace(contents, trees=contents.trees[:1]), **options)

    monkeypatch.setattr(archive_module, "pack", forgetful_pack)
    with pytest.raises(RetryLater, match="does not hold what was packed"):
        filing.run()
    assert filing.files() == []
    assert (filing.far / KEY).exists()


def test_a_result_that_changes_between_proof_and_packing_is_found(filing: Filing, monkeypatch: Any) -> None:
    real = archive_module.gather

    def late_writer(*args: Any, **options: Any) -> Any:
        contents = real(*args, **options)
        write(filing.results / "dose.raw", b"DOSE" * 1000)
        return contents

    monkeypatch.setattr(archive_module, "gather", late_writer)
    with pytest.raises(RetryLater, match="changed while it was packed"):
        filing.run()
    assert filing.files() == []


@pytest.mark.parametrize("links", [True, False])
def test_publishing_never_replaces_a_file(tmp_path: Path, monkeypatch: Any, links: bool) -> None:
    if not links:

        def no_links(self: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    partial = write(tmp_path / ".x.part", b"new")
    target = write(tmp_path / "archive.tar", b"old")
    with pytest.raises(FileExistsError):
        publish(partial, target)
    assert target.read_bytes() == b"old"
    target.unlink()
    publish(partial, target)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("archive.tar", b"new")]


@pytest.mark.parametrize("same", [True, False])
def test_somebody_elses_archive_that_appears_while_packing_is_proven_or_left(
    filing: Filing, monkeypatch: Any, same: bool
) -> None:
    real = archive_module.publish

    def overtaken(partial: Path, target: Path) -> None:
        if not target.exists():
            target.write_bytes(partial.read_bytes() if same else b"another")
        real(partial, target)

    monkeypatch.setattr(archive_module, "publish", overtaken)
    if same:
        filing.done()
        assert filing.files() == [f"{filing.case.name}.tar.gz"]
        return
    monkeypatch.setattr(
        archive_module,
        "publish",
        lambda partial, target: overtaken(partial, target) if "~" not in target.name else real(partial, target),
    )
    filing.done()
    assert filing.archive.read_bytes() == b"another"
    prove(filing.archives / f"{filing.case.name}~2.tar.gz")


def test_the_host_is_cleared_only_after_the_archive_has_its_name(filing: Filing, monkeypatch: Any) -> None:
    order: list[str] = []
    real_publish, real_clear = archive_module.publish, archive_module.clear_hosts

    def publish(partial: Path, target: Path) -> None:
        assert (filing.far / KEY).exists()
        prove(partial)
        real_publish(partial, target)
        order.append("published")

    def clear(*args: Any, **options: Any) -> list[str]:
        prove(filing.archive)
        assert len(Index(filing.ctx.data_dir).of(KEY)) == 1
        order.append("cleared")
        return real_clear(*args, **options)

    monkeypatch.setattr(archive_module, "publish", publish)
    monkeypatch.setattr(archive_module, "clear_hosts", clear)
    filing.done()
    assert order == ["published", "cleared"]


def test_a_turn_that_was_asked_for_long_ago_files_and_leaves_the_hosts_to_the_next(filing: Filing) -> None:
    """Meanwhile the case may have been cancelled and begun anew: then there is no next turn."""
    assert isinstance(filing.run(is_recent=False), Wait)
    assert filing.archive.exists()
    assert (filing.far / KEY).exists()
    assert filing.done()["cleared"] == ["hpc"]
    assert not (filing.far / KEY).exists()


def test_where_the_clocks_differ_the_hosts_are_cleared_all_the_same(filing: Filing) -> None:
    turns = 1
    while isinstance(filing.run(is_recent=False), Wait):
        assert (filing.far / KEY).exists()
        turns += 1
    assert turns == 4
    assert not (filing.far / KEY).exists()


def test_a_host_that_is_away_is_cleared_later_without_packing_again(filing: Filing, monkeypatch: Any) -> None:
    local = filing.hosts["hpc"]
    filing.hosts["hpc"] = HostThatIsAway(HostUnreachable("no answer", host="hpc"))  # type: ignore[assignment]
    with pytest.raises(HostUnreachable):
        filing.run()
    before = filing.archive.stat()
    filing.hosts["hpc"] = local

    def pack_again(*args: Any, **options: Any) -> None:
        raise AssertionError("it was packed or read again")

    monkeypatch.setattr(archive_module, "gather", pack_again)
    assert filing.done()["cleared"] == ["hpc"]
    assert filing.archive.stat() == before
    assert not (filing.far / KEY).exists()


def test_of_two_hosts_the_one_that_is_done_is_not_asked_again(filing: Filing) -> None:
    workflow = filing.workflow

    def with_second() -> Any:
        flow = workflow()
        first = flow.steps[0]
        second = Step("second", first.stage, first.options.model_copy(update={"host": "second"}))
        return type(flow)(flow.name, (first, second, *flow.steps[1:]))

    filing.workflow = with_second  # type: ignore[method-assign]
    local = filing.hosts["hpc"]
    filing.hosts["second"] = HostThatIsAway(HostUnreachable("no answer", host="second"))  # type: ignore[assignment]
    with pytest.raises(HostUnreachable):
        filing.run()
    assert filing.ctx.facts["cleared"] == ["hpc"]
    filing.hosts["hpc"] = HostThatIsAway(AssertionError("asked again"))  # type: ignore[assignment]
    filing.hosts["second"] = local
    assert filing.done()["cleared"] == ["hpc", "second"]


@pytest.mark.parametrize("key", ["", ".", "..", "c1", "cabcdefghij/../cother22222"])
def test_only_a_proper_key_names_what_is_removed(filing: Filing, key: str) -> None:
    filing.revise(key=key)
    with pytest.raises(GiveUp, match="no key"):
        filing.run()
    with pytest.raises(GiveUp, match="no key"):
        clear_hosts(filing.case, filing.turn(), done=[])
    assert (filing.far / KEY).exists()
    assert (filing.far / "cother22222").exists()


def test_a_file_of_the_cases_name_on_the_host_is_not_removed(filing: Filing) -> None:
    shutil.rmtree(filing.far / KEY)
    write(filing.far / KEY, b"somebody's")
    with pytest.raises(GiveUp, match="not a directory"):
        filing.run()
    assert (filing.far / KEY).read_bytes() == b"somebody's"


def test_called_again_it_finds_its_archive_and_packs_no_second_one(filing: Filing) -> None:
    first = filing.done()
    filing.ctx.facts = {}  # nothing was remembered: the worker died right after the rename
    again = filing.done()
    assert filing.files() == [f"{filing.case.name}.tar.gz"]
    assert again["sha256"] == first["sha256"]
    assert len(Index(filing.ctx.data_dir).of(KEY)) == 1


def test_an_archive_that_was_damaged_since_is_not_taken_for_proof(filing: Filing) -> None:
    filing.hosts["hpc"] = HostThatIsAway(HostUnreachable("no answer", host="hpc"))  # type: ignore[assignment]
    with pytest.raises(HostUnreachable):
        filing.run()
    data = bytearray(filing.archive.read_bytes())
    data[len(data) // 2] ^= 1
    filing.archive.write_bytes(data)
    with pytest.raises(HostUnreachable):
        filing.run()
    assert filing.files() == [f"{filing.case.name}.tar.gz", f"{filing.case.name}~2.tar.gz"]
    prove(filing.archives / f"{filing.case.name}~2.tar.gz")


def test_a_rerun_with_other_results_is_filed_beside_the_first(filing: Filing) -> None:
    filing.done()
    first = filing.archive.read_bytes()
    write(filing.results / "dose.raw", b"second run")
    write(filing.far / KEY / "work" / "x", b"new")
    filing.done()
    assert filing.archive.read_bytes() == first
    assert filing.files() == [f"{filing.case.name}.tar.gz", f"{filing.case.name}~2.tar.gz"]
    assert not (filing.far / KEY).exists()


def test_a_rerun_with_equal_results_clears_the_host_again(filing: Filing) -> None:
    filing.done()
    write(filing.far / KEY / "work" / "x", b"new")
    ctx = filing.turn()
    ctx.earlier[1] = Earlier("simulate", "", 3, {})
    ended = ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    assert isinstance(ended, Done)
    assert not (filing.far / KEY).exists()
    assert filing.files() == [f"{filing.case.name}.tar.gz"]


def test_another_attempt_clears_what_came_to_a_host_that_a_former_one_cleared(filing: Filing) -> None:
    filing.done()
    write(filing.far / KEY / "work" / "simulate" / "_" / "3" / "half", b"of a run that failed")
    assert filing.done(attempt=2)["cleared"] == ["hpc"]
    assert not (filing.far / KEY).exists()


def test_a_revision_never_lands_on_the_one_before(filing: Filing) -> None:
    filing.done()
    filing.results.rename(filing.results.with_name("study.r2"))
    filing.results = filing.results.with_name("study.r2")
    filing.revise(revision=2, key="crevision22")
    filing.done()
    assert filing.files() == ["patient-7/study.r2.tar.gz", "patient-7/study.tar.gz"]


def test_another_cases_archive_of_the_same_name_is_left_alone(filing: Filing) -> None:
    write(filing.archive, b"not an archive at all")
    filing.done()
    assert filing.archive.read_bytes() == b"not an archive at all"
    prove(filing.archives / f"{filing.case.name}~2.tar.gz")


def test_a_link_in_the_archives_place_is_not_followed(filing: Filing, tmp_path: Path) -> None:
    victim = write(tmp_path / "victim", b"precious")
    filing.archive.parent.mkdir(parents=True)
    filing.archive.symlink_to(victim)
    with pytest.raises(RetryLater):
        filing.run()
    assert victim.read_bytes() == b"precious"


def test_the_place_may_be_named_by_key(filing: Filing) -> None:
    filing.options["to"] = filing.archives / "{source}" / "{case_key}"
    filing.done()
    assert filing.files() == [f"incoming/{KEY}.tar.gz"]


def test_without_to_the_sections_directory_is_used_and_without_either_it_says_so(filing: Filing) -> None:
    filing.options["to"] = None
    with pytest.raises(GiveUp, match="where archives go"):
        filing.run()
    section = filing.ctx.config.model_copy(update={"directory": filing.archives})
    assert filing.done(config=section)["cleared"] == ["hpc"]
    assert filing.archive.exists()


def test_an_archive_inside_the_source_is_refused(filing: Filing) -> None:
    filing.options["to"] = filing.source / "archive"
    with pytest.raises(GiveUp, match="inside the source"):
        filing.run()
    assert not (filing.source / "archive").exists()


def test_an_unmounted_archive_disk_is_waited_for(filing: Filing) -> None:
    filing.options["clear_host"] = False
    filing.done()
    mounted = filing.archives.rename(filing.archives.with_name("disk"))
    filing.archives.mkdir()  # the bare mount point
    filing.revise(revision=2, fingerprint=filing.case.fingerprint)
    filing.results.rename(filing.results.with_name("study.r2"))
    filing.results = filing.results.with_name("study.r2")
    ended = filing.run()
    assert isinstance(ended, Wait)
    assert "mounted" in ended.note
    assert list(filing.archives.iterdir()) == []
    filing.archives.rmdir()
    mounted.rename(filing.archives)
    filing.done()


def test_a_root_that_two_use_for_the_first_time_at_once_is_no_unmounted_disk(tmp_path: Path, monkeypatch: Any) -> None:
    root, notes, looked = tmp_path / "archives", tmp_path / "data", Path.exists
    others: list[bool] = []

    def exists(path: Path, **options: Any) -> bool:
        there = looked(path, **options)
        if path.name == MARK and not others:
            others.append(True)
            assert mark_root(root, notes)  # the other, in the very moment after this look
        return there

    monkeypatch.setattr(Path, "exists", exists)
    assert mark_root(root, notes)
    assert others


def test_a_stop_leaves_nothing_half_packed_and_the_next_turn_completes(filing: Filing) -> None:
    seen = set()
    for stop_after in range(1, 40):
        ended = filing.run(stop_after=stop_after)
        seen.add(type(ended))
        if isinstance(ended, Done):
            break
        assert ended.seconds == 0
        assert filing.files() == []
        assert (filing.far / KEY).exists()
    assert seen == {Wait, Done}


def test_a_full_disk_is_waited_for_and_leaves_no_partial_file(filing: Filing, small_disk: Path) -> None:
    filing.options |= {"to": small_disk, "compression": "gzip"}
    filing.archives = small_disk
    write(filing.results / "noise", os.urandom(3_000_000))
    ended = filing.run()
    assert isinstance(ended, Wait)
    assert "full" in ended.note
    assert filing.files() == []
    assert (filing.far / KEY).exists()
    filing.options["compression"] = "none"
    ended = filing.run()
    assert isinstance(ended, Wait)
    assert "too little room" in ended.note
    (filing.results / "noise").unlink()
    filing.done()


def test_a_file_size_limit_is_a_clear_error_and_leaves_no_partial_file(filing: Filing, monkeypatch: Any) -> None:
    write(filing.results / "noise", os.urandom(3_000_000))

    def limited(*args: Any, **options: Any) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(archive_module, "pack", limited)
    with pytest.raises(RetryLater, match="File too large"):
        filing.run()
    assert filing.files() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from archiver.filing import Filing
from mqi_archiver import archive as module

filing = object.__new__(Filing)
base, point = Path(sys.argv[1]), sys.argv[2]
filing.__init__(base)

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if point == "packing":
    real = module.Meter.add
    def add(self, count):
        real(self, count)
        if self._what == "packing":
            die()
    module.Meter.add = add
else:
    setattr(module, point, die)
filing.run()
"""


@pytest.mark.parametrize("point", ["packing", "prove", "publish", "Archived", "clear_hosts"])
def test_kill_9_at_any_point_leaves_no_partial_archive_and_the_next_turn_completes(tmp_path: Path, point: str) -> None:
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), *sys.path])
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path, point], env={"PYTHONPATH": paths}, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    filing = Filing(tmp_path)
    for name in filing.files():
        if not name.endswith(".part"):
            prove(filing.archives / name)
    assert (filing.far / KEY).exists()
    assert filing.done()["cleared"] == ["hpc"]
    assert filing.files() == [f"{filing.case.name}.tar.gz"]
    assert len(Index(filing.ctx.data_dir).of(KEY)) == 1


def test_parts_of_a_download_lie_apart(filing: Filing) -> None:
    write(filing.base / "beams/b1" / filing.case.name / "dose", b"one")
    write(filing.base / "beams/b2" / filing.case.name / "dose", b"two")
    ctx = filing.turn()
    to = filing.base / "beams" / "{part}" / "{case_name}"
    download = ctx.workflow.steps[2]
    steps = list(ctx.workflow.steps)
    steps[2] = Step("download", download.stage, download.options.model_copy(update={"to": to}))
    ctx.workflow = type(ctx.workflow)("qa", tuple(steps))
    ctx.earlier[-1:] = [
        Earlier(
            "download",
            part,
            1,
            {"fingerprint": build_manifest(filing.base / f"beams/{part}/patient-7/study").fingerprint},
        )
        for part in ("b1", "b2")
    ]
    assert isinstance(steps[-1].stage.run(filing.case, ctx), Done)
    sums = prove(filing.archive).sums
    assert {"results/download/b1/dose", "results/download/b2/dose"} <= sums.keys()


def test_no_name_of_case_or_file_travels_in_facts(filing: Filing) -> None:
    facts = filing.done()
    for text in (json.dumps(facts), json.dumps(filing.ctx.facts)):
        assert "patient-7" not in text
        assert "dose" not in text
        assert str(filing.base) not in text
    assert len(json.dumps(facts)) < 4096


def test_the_config_check_finds_what_would_lose_results(filing: Filing) -> None:
    steps = filing.workflow().steps
    assert check_archive(steps, 3, {}) == []
    without_download = (*steps[:2], steps[3])
    (problem,) = check_archive(without_download, 2, {})
    assert "simulate" in problem
    early = (*steps[:2], steps[3], steps[2])
    assert any("put archive last" in each for each in check_archive(early, 2, {}))
    filing.options |= {"clear_host": False}
    steps = filing.workflow().steps
    assert check_archive((*steps[:2], steps[3], steps[2]), 2, {}) == []
    filing.options |= {"to": Path("/a/{case_id}")}
    assert "{case_id}" in check_archive(filing.workflow().steps, 3, {})[0]


def test_an_attempt_that_finished_after_the_download_is_not_cleared_away(filing: Filing) -> None:
    ctx = filing.turn()
    seen = seen_attempts([Earlier("simulate", "", 1)], ["simulate"])
    ctx.earlier[-1] = replace(ctx.earlier[-1], facts={**ctx.earlier[-1].facts, "of": seen})
    with pytest.raises(GiveUp, match="step simulate has newer results than those that step download") as raised:
        ctx.workflow.steps[-1].stage.run(filing.case, ctx)
    assert raised.value.hint.startswith(f"fetch them: mqi transfer download {KEY} --step download")
    assert f"mqi archive run {KEY} --step archive" in raised.value.hint, "a retry is refused where the case is done"
    assert (filing.far / KEY).exists()

    facts = filing.done()

    assert facts["of"] == seen_attempts(filing.ctx.earlier, ["download"])
    assert not (filing.far / KEY).exists()


@pytest.mark.parametrize(
    ("options", "fate"),
    [
        ({"host": "two", "outputs": ("dose.raw",)}, "held"),
        ({"host": "two"}, "left"),
        ({"host": "two", "outputs": ()}, "cleared"),
        ({"host": "hpc"}, "cleared"),
    ],
)
def test_a_host_is_cleared_of_a_run_that_nothing_fetches_only_if_it_ran_for_its_effect(
    filing: Filing, options: dict[str, Any], fate: str
) -> None:
    ctx = filing.turn()
    steps = list(filing.workflow().steps)
    steps[3:3] = [Step("second", steps[1].stage, WithHost(**options))]
    ctx.workflow = type(ctx.workflow)("qa", tuple(steps))
    ctx.earlier.append(Earlier("second", "", 1, {}))
    two = filing.base / "two"
    write(two / KEY / "work" / "second" / "_" / "1" / "log", b"fine")
    filing.hosts["two"] = LocalHost("two", LocalHostSection(type="local", base_dir=str(two)), filing.base)
    problems = check_archive(steps, len(steps) - 1, {})
    if fate == "held":
        with pytest.raises(GiveUp, match="results of step second were never fetched"):
            steps[-1].stage.run(filing.case, ctx)
        assert "the outputs of step second" in problems[0]
        assert (filing.far / KEY).exists()
    else:
        assert problems == []
        done = steps[-1].stage.run(filing.case, ctx)
        assert isinstance(done, Done)
        assert not (filing.far / KEY).exists()
        assert ("two" in done.facts["cleared"]) is (options["host"] == "two" and fate == "cleared")
    assert (two / KEY).exists() is not (options["host"] == "two" and fate == "cleared")


def test_a_host_that_may_lead_to_a_directory_that_is_left_is_left_too(filing: Filing) -> None:
    ctx = filing.turn()
    steps = list(filing.workflow().steps)
    steps[3:3] = [Step("second", steps[1].stage, WithHost(host="queue"))]
    ctx.workflow = type(ctx.workflow)("qa", tuple(steps))
    ctx.earlier.append(Earlier("second", "", 1, {}))
    section = LocalHostSection(type="local", base_dir=f"{filing.far}/")
    filing.hosts["queue"] = LocalHost("queue", section, filing.base)

    done = steps[-1].stage.run(filing.case, ctx)

    assert isinstance(done, Done)
    assert done.facts["cleared"] == []
    assert (filing.far / KEY).exists(), "what step second left may lie nowhere else"


def test_a_workflow_that_runs_for_its_effect_alone_needs_no_download(filing: Filing) -> None:
    steps = list(filing.workflow().steps)
    del steps[2]
    ctx = filing.turn()
    ctx.earlier = [each for each in ctx.earlier if each.step != "download"]
    for outputs in ({}, {"outputs": ()}):
        steps[1] = Step("simulate", steps[1].stage, WithHost(host="hpc", **outputs))
        ctx.workflow = type(ctx.workflow)("qa", tuple(steps))
        problems = check_archive(steps, 2, {})
        if outputs:
            assert problems == []
            assert isinstance(steps[-1].stage.run(filing.case, ctx), Done)
        else:
            assert "nothing fetches that before" in problems[0]
            with pytest.raises(GiveUp, match="nothing was fetched"):
                steps[-1].stage.run(filing.case, ctx)
