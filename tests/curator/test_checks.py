"""What the curator tells `mqi doctor` about a host."""

from __future__ import annotations

from mqi_cli import Check, HostRefused, HostUnreachable, Verdict
from mqi_curator.checks import check_host
from mqi_curator.config import CuratorSection
from mqi_curator.gpus import GpuLook
from mqi_curator.look import Look

WELL = Look(skew=0.0, load=0.1, cores=4, free_bytes=90 * 10**9, total_bytes=100 * 10**9, gpus=GpuLook())


def lines(found: Look | HostRefused | HostUnreachable) -> dict[str, Check]:
    return {check.name: check for check in check_host("hpc", found, CuratorSection())}


def test_a_host_that_is_well_has_a_line_for_each_thing() -> None:
    found = lines(WELL)
    assert list(found) == ["host hpc", "host hpc: clock", "host hpc: space", "host hpc: GPUs"]
    assert {check.verdict for check in found.values()} == {Verdict.OK}


def test_a_host_that_does_not_answer_fails_with_the_way_to_find_out_why() -> None:
    (check,) = lines(HostUnreachable("host hpc does not answer", host="hpc")).values()
    assert (check.verdict, check.mend) == (Verdict.FAIL, "mqi host test hpc")


def test_a_host_with_an_unknown_key_passes_the_hint_on() -> None:
    (check,) = lines(HostRefused("its key is not known", host="hpc", hint="mqi host trust hpc")).values()
    assert check.mend == "mqi host trust hpc"


def test_a_clock_that_is_off_is_a_warning_with_its_side() -> None:
    assert "40 s ahead" in lines(Look(skew=40.0))["host hpc: clock"].text
    assert "40 s behind" in lines(Look(skew=-40.0))["host hpc: clock"].text
    assert lines(Look(skew=-40.0))["host hpc: clock"].verdict is Verdict.WARN
    assert lines(Look(skew=4.0))["host hpc: clock"].verdict is Verdict.OK


def test_little_space_points_to_what_may_go() -> None:
    check = lines(Look(free_bytes=1, total_bytes=100))["host hpc: space"]
    assert (check.verdict, check.mend) == (Verdict.WARN, "mqi host clean hpc --dry-run")


def test_gpus_that_can_not_be_used_are_named() -> None:
    assert "is lost" in lines(Look(gpus=GpuLook(unusable=("GPU 1 is lost",))))["host hpc: GPUs"].text
    assert lines(Look(gpus=GpuLook(problem="no driver")))["host hpc: GPUs"].verdict is Verdict.WARN
    assert lines(Look(gpus=GpuLook()))["host hpc: GPUs"].text == "none"


def test_a_file_system_that_hangs_fails_the_host() -> None:
    (check,) = lines(Look(problem="the file system of base_dir does not answer")).values()
    assert check.verdict is Verdict.FAIL
