"""What the curator makes of `nvidia-smi`'s texts."""

from __future__ import annotations

import pytest

from curator import captured
from curator.captured import A, B, C
from mqi_cli import GpuSeen
from mqi_curator.gpus import UNKNOWN_PROCESS, GpuLook, read_gpus, refuses_mig


def read(gpus: str, apps: str = captured.APPS_NONE, *, gpu_code: int = 0, app_code: int = 0) -> GpuLook:
    return read_gpus(gpus, gpu_code, apps, app_code)


@pytest.mark.parametrize("text", [captured.TWO_A100, captured.TWO_A100_MIG_COLUMN])
def test_a_gpu_has_its_memory_load_temperature_and_processes(text: str) -> None:
    look = read(text, captured.APPS)
    assert look.problem == ""
    assert look.gpus == (
        GpuSeen(A, 0, "NVIDIA A100-SXM4-40GB", 40960, 5, 0, 31, (977,)),
        GpuSeen(B, 1, "NVIDIA A100-SXM4-40GB", 40960, 1423, 98, 67, (12033, 12034)),
    )


def test_an_old_driver_refuses_the_mig_query_and_answers_the_old_one() -> None:
    assert refuses_mig(captured.OLD_DRIVER_REFUSES)
    assert not refuses_mig(captured.OLD_DRIVER)
    gpus = read(captured.OLD_DRIVER).gpus
    assert [gpu.name for gpu in gpus] == ["GeForce GTX TITAN X", "Tesla K80"]
    assert [gpu.utilization for gpu in gpus] == [0, None]


def test_what_the_driver_does_not_tell_is_none() -> None:
    gpus = read(captured.CONSUMER).gpus
    assert (gpus[1].memory_total, gpus[1].memory_used, gpus[1].temperature) == (None, None, 38)
    assert [gpu.uuid for gpu in gpus] == [A, B]


def test_a_command_that_leaves_the_units_in_is_read_too() -> None:
    (gpu,) = read(captured.WITH_UNITS).gpus
    assert (gpu.memory_total, gpu.memory_used, gpu.utilization, gpu.temperature) == (1999, 12, 7, 44)


def test_a_gpu_cut_into_slices_is_not_offered() -> None:
    look = read(captured.MIG, captured.APPS_MIG)
    assert [gpu.uuid for gpu in look.gpus] == [B]
    assert len(look.unusable) == 1
    assert A in look.unusable[0]
    assert "MIG" in look.unusable[0]


def test_a_process_in_a_slice_counts_for_its_card_where_the_driver_names_it() -> None:
    (gpu, _) = read(captured.TWO_A100, captured.APPS_OLD_MIG).gpus
    assert gpu.processes == (4711,)


def test_a_lost_or_silent_gpu_is_left_out_and_the_others_stay() -> None:
    look = read(captured.ONE_LOST)
    assert [gpu.uuid for gpu in look.gpus] == [A]
    assert [B in look.unusable[0], C in look.unusable[1]] == [True, True]


def test_a_gpu_that_needs_a_reset_is_not_offered() -> None:
    assert read(captured.NEEDS_RESET).gpus == ()


def test_a_sensor_that_fails_does_not_take_the_gpu_away() -> None:
    (gpu,) = read(captured.SENSOR_FAILS).gpus
    assert (gpu.memory_total, gpu.temperature) == (8119, None)


def test_a_gpu_keeps_its_identity_when_it_is_renumbered() -> None:
    before = {gpu.uuid: gpu.index for gpu in read(captured.TWO_A100).gpus}
    after = {gpu.uuid: gpu.index for gpu in read(captured.RENUMBERED).gpus}
    assert (before[A], after[A]) == (0, 2)


def test_a_process_without_an_id_still_marks_the_gpu_as_taken() -> None:
    (gpu, _) = read(captured.TWO_A100, captured.APPS_WITHOUT_IDS).gpus
    assert gpu.processes == (UNKNOWN_PROCESS,)


@pytest.mark.parametrize("apps", ["", captured.APPS_NONE, captured.APPS_NONE_IN_WORDS])
def test_no_processes_is_understood_in_each_form(apps: str) -> None:
    assert [gpu.processes for gpu in read(captured.TWO_A100, apps).gpus] == [(), ()]


def test_a_host_whose_driver_finds_no_device_has_no_gpus_and_no_problem() -> None:
    assert read(captured.NO_DEVICES, gpu_code=6) == GpuLook()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (captured.NO_DRIVER, 9, "couldn't communicate with the NVIDIA driver"),
        (captured.MISMATCH, 18, "Driver/library version mismatch"),
        (captured.LOST, 15, "GPU is lost"),
        ("", 139, "code 139"),
    ],
)
def test_a_driver_error_is_a_problem_in_its_own_words(text: str, code: int, said: str) -> None:
    look = read(text, gpu_code=code)
    assert said in look.problem
    assert "\n" not in look.problem
    assert look.gpus == ()


@pytest.mark.parametrize("text", [captured.LOST, "\x1b[31mwat\x1b[0m, eh\n", f"x, {A}, n, 1, 1, 1, 1\n", "0, " + A])
def test_an_answer_of_which_nothing_is_a_row_is_a_problem_and_never_a_guess(text: str) -> None:
    look = read(text)
    assert look.gpus == ()
    assert "not understood" in look.problem
    assert look.problem.isprintable()


@pytest.mark.parametrize(
    "line",
    [captured.INFOROM, captured.LOST, captured.NO_UUID, "\x1b[31mwat\x1b[0m, eh\n", f"2, {C}, A100, 40960, 5, 0\n"],
)
def test_a_line_that_is_no_row_takes_no_healthy_gpu_out_of_use(line: str) -> None:
    for text in (captured.TWO_A100_MIG_COLUMN + line, line + captured.TWO_A100_MIG_COLUMN):
        look = read(text, captured.APPS)
        assert look.problem == ""
        assert [(gpu.uuid, gpu.index, gpu.memory_total) for gpu in look.gpus] == [(A, 0, 40960), (B, 1, 40960)]
        (odd,) = look.odd
        assert odd.isprintable()
        assert odd.split(",")[0].strip() in line.replace("\x1b", " ")


def test_a_row_that_may_be_shifted_is_not_read() -> None:
    named = f"2, {C}, NVIDIA A100, 40GB, 40960, 5, 0, 31, Disabled\n"  # a name with a comma
    assert [gpu.uuid for gpu in read(captured.TWO_A100_MIG_COLUMN + named).gpus] == [A, B]
    without_mig = f"2, {C}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 31\n"
    look = read(captured.TWO_A100_MIG_COLUMN + without_mig)
    assert ([gpu.uuid for gpu in look.gpus], len(look.odd)) == ([A, B], 1)


@pytest.mark.parametrize(
    "line", [f"x, {B}, n, 1, 1, 1, 1\n", f"2, {B}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 30, Disabled\n"]
)
def test_a_gpu_that_is_named_twice_is_not_offered(line: str) -> None:
    look = read(captured.TWO_A100_MIG_COLUMN + line)
    assert [gpu.uuid for gpu in look.gpus] == [A]
    assert look.withheld == (B,)


def test_gpus_that_share_a_number_are_not_offered() -> None:
    look = read(captured.TWO_A100_MIG_COLUMN + f"1, {C}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 30, Disabled\n")
    assert [gpu.uuid for gpu in look.gpus] == [A]
    assert look.withheld == (B, C)
    assert "shares its number" in look.unusable[0]


def test_an_answer_that_was_cut_off_offers_no_gpu_in_mig_mode() -> None:
    sliced, card = captured.MIG.splitlines()
    for end in range(len(sliced) + 1):
        assert [gpu.uuid for gpu in read(f"{card}\n{sliced[:end]}").gpus] == [B]


@pytest.mark.parametrize("line", [captured.INFOROM, captured.LOST])
def test_a_note_of_the_driver_among_the_processes_hides_none(line: str) -> None:
    look = read(captured.TWO_A100, captured.APPS + line)
    assert [gpu.processes for gpu in look.gpus] == [(977,), (12033, 12034)]
    assert look.odd == (line.strip(),)
    assert read(captured.TWO_A100 + line, captured.APPS + line).odd == (line.strip(),), "told once"


def test_an_exit_code_that_tells_of_one_gpu_takes_no_other_away() -> None:
    look = read(captured.TWO_A100 + captured.INFOROM, captured.APPS + captured.INFOROM, gpu_code=14, app_code=14)
    assert [gpu.uuid for gpu in look.gpus] == [A, B]
    assert read(captured.TWO_A100 + captured.LOST, gpu_code=15).problem == ""
    assert "lost" in read(captured.TWO_A100, captured.LOST, app_code=15).problem, "who computes there is not known"
    assert read(captured.TWO_A100, gpu_code=139).problem


def test_one_gpu_off_the_bus_leaves_the_others_in_use() -> None:
    look = read(captured.TWO_A100 + captured.LOST, captured.APPS + captured.LOST, gpu_code=15, app_code=15)
    assert (look.problem, look.odd) == ("", (captured.LOST.strip(),))
    assert [gpu.processes for gpu in look.gpus] == [(977,), (12033, 12034)]
    look = read(captured.TWO_A100 + captured.LOST, captured.LOST, gpu_code=15, app_code=15)
    assert [gpu.processes for gpu in look.gpus] == [(), (UNKNOWN_PROCESS,)], "the list may have ended at the lost one"
    look = read(captured.ONE_LOST, captured.LOST, app_code=15)
    assert [gpu.uuid for gpu in look.gpus] == [A]


def test_a_gpu_that_only_an_odd_line_names_is_there_and_not_given() -> None:
    odd = f"2, {C}, A100, 40960, 5, 0\n"
    look = read(captured.TWO_A100_MIG_COLUMN + odd)
    assert ([gpu.uuid for gpu in look.gpus], look.withheld, len(look.odd)) == ([A, B], (C,), 1)
    lost = f"Unable to determine the device handle for GPU {B}: Unknown Error\n"
    assert [gpu.uuid for gpu in read(captured.TWO_A100 + lost, lost, gpu_code=15, app_code=15).gpus] == [A]


def test_gpus_whose_processes_are_unknown_are_not_offered() -> None:
    assert read(captured.TWO_A100, "oops\n").problem
    assert read(captured.TWO_A100, "", app_code=9).problem
    assert read(captured.TWO_A100, captured.NO_DRIVER, app_code=9).problem
    assert read(captured.TWO_A100, captured.NO_DRIVER, app_code=9).gpus == ()
