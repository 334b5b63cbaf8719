"""The results of a step that fanned out: each part's in a directory of its own, all in their place in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mqi_cli import Done, Earlier, GiveUp, Wait, build_manifest
from mqi_sftp.preview import preview_download
from mqi_sftp.verify import verify_download
from sftp.bench import DOWNLOAD, Bench, contents, fill, flip_a_byte

ATTEMPTS = {"1": 2, "2": 1, "10": 1}
EARLIER = [
    Earlier("simulate", "", 1, {"parts": 3}),  # the plan: it left nothing on the host
    *(Earlier("simulate", part, attempt) for part, attempt in ATTEMPTS.items()),
]


def outputs(bench: Bench, part: str) -> Path:
    """Return where a part's results are on the host."""
    return bench.root / "work" / "simulate" / part / str(ATTEMPTS[part]) / bench.origin


def fill_all(bench: Bench) -> None:
    """Let each part have results of the same names."""
    for part in ATTEMPTS:
        fill(outputs(bench, part), {"dose.raw": f"dose of {part}".encode(), "sub/log": part.encode()}, empty=["none"])


def context(bench: Bench, **more: Any) -> Any:
    """Return the context of a download after the parts."""
    ctx = bench.context("download", **more)
    ctx.earlier = EARLIER
    return ctx


def download(bench: Bench, **more: Any) -> Done | Wait:
    """Download in a turn of its own."""
    return DOWNLOAD.run(bench.case(fingerprint="f"), context(bench, **more))


def test_each_part_has_its_results_in_a_directory_of_its_own(bench: Bench) -> None:
    fill_all(bench)
    fill(bench.root / "work" / "simulate" / "1" / "1" / "dose", {"dose.raw": b"of an attempt that failed"})

    done = download(bench)

    assert isinstance(done, Done)
    assert sorted(each.name for each in bench.destination.iterdir()) == ["1", "10", "2"]
    for part in ATTEMPTS:
        assert contents(bench.destination / part) == contents(outputs(bench, part))
    assert done.facts["fingerprint"] == build_manifest(bench.destination).fingerprint
    assert done.facts["files"] == 6
    assert bench.leftovers() == []


def test_fetched_again_it_finds_them_in_place(bench: Bench) -> None:
    fill_all(bench)
    download(bench)

    again = download(bench)

    assert isinstance(again, Done)
    assert again.facts["fetched_bytes"] == 0


def test_a_download_of_parts_that_was_cut_goes_on(bench: Bench) -> None:
    fill_all(bench)
    # large, so that it is still on its way when the first small one is there, also where many travel at once
    fill(outputs(bench, "2"), {"large.raw": b"\1" * (24 << 20)})
    ctx = context(bench)
    ctx.stop = lambda: bool(list(bench.destination.parent.glob(".mqi-*/results/1/dose.raw")))
    assert isinstance(DOWNLOAD.run(bench.case(fingerprint="f"), ctx), Wait)
    assert not bench.destination.exists(), "nothing is in its place before all is"

    done = download(bench)

    assert isinstance(done, Done)
    assert 0 < done.facts["fetched_bytes"] < done.facts["bytes"]


def test_a_part_without_results_is_never_taken_for_done(bench: Bench) -> None:
    fill_all(bench)
    (outputs(bench, "2") / "dose.raw").unlink()
    (outputs(bench, "2") / "sub" / "log").unlink()

    with pytest.raises(GiveUp, match="a part of step simulate left no file"):
        download(bench)

    assert not bench.destination.exists()


def test_what_would_be_fetched_and_what_differs_is_said_by_part(local_bench: Bench) -> None:
    fill_all(local_bench)
    case = local_bench.case(fingerprint="f")
    assert {move.path for move in preview_download(case, context(local_bench))} >= {"1/dose.raw", "10/sub/log"}
    done = download(local_bench)
    assert isinstance(done, Done)
    flip_a_byte(local_bench.destination / "2" / "dose.raw")

    verdict = verify_download(case, context(local_bench), recorded=str(done.facts["fingerprint"]))

    assert verdict.differs
    assert [finding.path for finding in verdict.findings] == ["2/dose.raw"]
