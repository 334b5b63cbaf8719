"""The script that looks at a host, run by this machine's shells."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from curator import captured
from curator.captured import A, B
from curator.machines import FakeSmi
from mqi_curator.look import Look, read_look, read_sections
from mqi_curator.look_script import look_command

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def look(
    base: Path,
    *gpu_command: str | Path,
    shell: str = "sh",
    seconds: float = 5,
    without: str = "",
    tmp: Path | None = None,
    user: str | None = None,
    owner: str = "",
) -> Look:
    """Run the script as a host would, `without` a word of it where a test takes something away."""
    words = [str(each) for each in gpu_command]
    command = look_command(PurePosixPath(base), words, gpu_timeout=seconds, owner=owner)
    command[2] = command[2].replace(without, ":") if without else command[2]
    if tmp is not None:
        command[2] = command[2].replace("/dev/shm", str(tmp))
    argv = ["busybox", "sh", *command[1:]] if shell == "busybox" else [shell, *command[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, user=user)
    assert done.stderr == ""
    sections = read_sections(done.stdout)
    assert "end" in sections
    return read_look(sections, gpus_wanted=bool(gpu_command), gpu_timeout=seconds)


@pytest.mark.parametrize("shell", SHELLS)
def test_it_tells_load_cores_space_and_gpus_in_one_go(tmp_path: Path, smi: FakeSmi, shell: str) -> None:
    smi.answers(captured.TWO_A100_MIG_COLUMN, captured.APPS)
    seen = look(tmp_path, smi.program, shell=shell)
    assert seen.cores == os.cpu_count()
    assert seen.load is not None
    assert seen.total_bytes is not None
    assert abs(seen.total_bytes - shutil.disk_usage(tmp_path).total) < 1e6
    assert seen.free_bytes is not None
    assert seen.free_bytes <= seen.total_bytes
    assert seen.gpus is not None
    assert [(gpu.uuid, gpu.processes) for gpu in seen.gpus.gpus] == [(A, (977,)), (B, (12033, 12034))]
    assert seen.problem == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_processes_of_runs_are_told_from_foreign_ones(tmp_path: Path, smi: FakeSmi, shell: str) -> None:
    base, gone = tmp_path / "my base", 4_100_000
    base.mkdir()
    places = ("caaaaaaaaaa-0a1b2c", "caaaaaaaaaa-ffffff", "caaaaaaaaaa", "../elsewhere/caaaaaaaaaa-0a1b2c")
    marks = [f"{base}/{place}/work/run/_/.1.job;" for place in places]
    marks[3] = marks[3].replace("my base/../", "")
    with contextlib.ExitStack() as stack:
        runs = [subprocess.Popen(["sleep", "60"], env=os.environ | {"MQI_JOB": each}) for each in marks]
        runs.append(subprocess.Popen(["sleep", "60"]))
        for each in runs:
            stack.callback(each.wait)
            stack.callback(each.kill)
        others = "".join(f"{B}, {each.pid}\n" for each in runs[1:])
        smi.answers(captured.TWO_A100_MIG_COLUMN, f"{A}, {runs[0].pid}\n{others}{B}, {gone}\n")
        seen = look(base, smi.program, shell=shell, owner="0a1b2c")
        unmarked = look(base, smi.program, shell=shell)  # a state database that is older than the marks
    assert seen.gpus is not None and unmarked.gpus is not None
    assert [set(gpu.foreign) for gpu in seen.gpus.gpus] == [set(), {gone, *(each.pid for each in runs[1:])}]
    assert runs[2].pid not in unmarked.gpus.gpus[1].foreign and runs[0].pid in unmarked.gpus.gpus[0].foreign


def test_a_base_dir_that_is_not_there_yet_tells_the_space_above_it(tmp_path: Path) -> None:
    assert look(tmp_path / "not" / "yet").total_bytes == look(tmp_path).total_bytes


def test_a_base_dir_that_can_not_be_is_a_problem_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a directory" in look(tmp_path / "file" / "base").problem
    assert "not a directory" in look(tmp_path / "file").problem
    nobody = "nobody" if os.geteuid() == 0 else None  # root may write everywhere
    assert "can't be written" in look(Path("/usr/mqi-base"), user=nobody).problem


def test_a_base_dir_with_a_shells_own_signs_in_its_name_is_only_a_name(tmp_path: Path) -> None:
    odd = tmp_path / 'a b\'; touch "$HOME"; $(false) `x`'
    odd.mkdir()
    assert look(odd).total_bytes == look(tmp_path).total_bytes


def test_a_driver_too_old_for_mig_is_asked_again_without(tmp_path: Path, smi: FakeSmi) -> None:
    (smi.directory / "old").write_text(captured.OLD_DRIVER)
    (smi.directory / "refused").write_text(captured.OLD_DRIVER_REFUSES)
    smi.behaves(
        "#!/bin/sh\n"
        f'case "$*" in *mig.mode*) cat {smi.directory}/refused; exit 2;; *query-gpu*) cat {smi.directory}/old;; esac\n'
    )
    seen = look(tmp_path, smi.program)
    assert seen.gpus is not None
    assert [gpu.name for gpu in seen.gpus.gpus] == ["GeForce GTX TITAN X", "Tesla K80"]


def test_a_host_without_the_program_has_no_gpus_and_no_problem(tmp_path: Path) -> None:
    seen = look(tmp_path, "nvidia-smi-that-is-not-here")
    assert seen.gpus is not None
    assert (seen.gpus.gpus, seen.gpus.problem) == ((), "")


def test_no_gpu_command_asks_for_none(tmp_path: Path) -> None:
    assert look(tmp_path).gpus is None


@pytest.mark.parametrize("shell", SHELLS)
def test_a_hung_driver_is_a_problem_and_nothing_of_the_query_is_left(tmp_path: Path, smi: FakeSmi, shell: str) -> None:
    smi.hangs()
    began = time.monotonic()
    seen = look(tmp_path, smi.program, shell=shell, seconds=1, tmp=tmp_path)
    assert time.monotonic() - began < 6
    assert seen.gpus is not None
    assert "hung" in seen.gpus.problem
    assert seen.load is not None, "the rest is told all the same"
    assert (smi.directory / "pids").exists()
    assert smi.left_running() == []
    assert list(tmp_path.glob("mqi-look.*")) == []


def test_a_query_that_cannot_be_killed_is_not_started_again_beside_itself(tmp_path: Path, smi: FakeSmi) -> None:
    smi.hangs_alone()
    seen = look(tmp_path, smi.program, seconds=1, without="kill -9", tmp=tmp_path)  # as in uninterruptible sleep
    assert seen.gpus is not None
    assert "hung" in seen.gpus.problem
    (mark,) = tmp_path.glob("mqi-look.*/hung")
    pid = int(mark.read_text().split()[1])

    began = time.monotonic()
    for _ in range(3):
        again = look(tmp_path, smi.program, seconds=5, tmp=tmp_path)
        assert again.gpus is not None
        assert "hung" in again.gpus.problem
    assert time.monotonic() - began < 5, "it waited for a new one"

    os.kill(pid, signal.SIGKILL)
    smi.behaves(f"#!/bin/sh\ncase $* in *query-gpu*) cat {smi.directory}/gpus;; esac\n")
    well = look(tmp_path, smi.program, tmp=tmp_path)
    assert well.gpus is not None
    assert len(well.gpus.gpus) == 2
    assert list(tmp_path.glob("mqi-look.*")) == [], "the mark goes with what it marked"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_look_that_is_broken_off_takes_its_query_along(tmp_path: Path, smi: FakeSmi, number: signal.Signals) -> None:
    smi.hangs()
    command = look_command(PurePosixPath(tmp_path), [str(smi.program)], gpu_timeout=60)
    command[2] = command[2].replace("/dev/shm", str(tmp_path))
    # a shell can't trap what was ignored when it began: by `nohup`, or whatever else started the tests
    heard = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731
    script = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=heard)
    eventually(lambda: len(smi.left_running()) == 2)
    script.send_signal(number)
    assert script.wait(timeout=30) == 1
    eventually(lambda: smi.left_running() == [])
    assert list(tmp_path.glob("mqi-look.*")) == []


def test_what_a_killed_look_left_behind_goes_after_an_hour(tmp_path: Path, smi: FakeSmi) -> None:
    for name, age in (("mqi-look.old", 3700), ("mqi-look.new", 10)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    look(tmp_path, smi.program, tmp=tmp_path)
    assert [path.name for path in tmp_path.glob("mqi-look.*")] == ["mqi-look.new"]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, and fail when it does not within half a minute."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


def test_a_file_system_that_does_not_answer_is_a_problem_of_the_host(tmp_path: Path, smi: FakeSmi) -> None:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "df").write_text("#!/bin/sh\nsleep 600\n")
    (bin_directory / "df").chmod(0o755)
    path = f"{bin_directory}:{os.environ['PATH']}"
    command = look_command(PurePosixPath(tmp_path), [str(smi.program)], gpu_timeout=1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": path})
    seen = read_look(read_sections(done.stdout), gpus_wanted=True, gpu_timeout=1)
    assert "does not answer" in seen.problem
    assert seen.gpus is not None
    assert len(seen.gpus.gpus) == 2, "GPUs are looked at all the same"


def test_what_a_login_shell_prints_first_is_passed_over() -> None:
    text = "Welcome to hpc!\n@mqi is not here\n@mqi load 0\n0.50 0.40 0.30 1/97 8668\n@mqi end 0\n"
    assert read_look(read_sections(text), gpus_wanted=False, gpu_timeout=5).load == 0.5


def test_an_odd_file_system_name_does_not_shift_the_columns() -> None:
    df = (
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        "10.0.0.2:6789:/my share 1000 400 600 40% /scratch dir/mqi\n"
    )
    seen = read_look({"disk": ("0", df), "end": ("0", "")}, gpus_wanted=False, gpu_timeout=5)
    assert (seen.total_bytes, seen.free_bytes) == (1000 * 1024, 600 * 1024)


def test_a_disk_that_is_over_its_reserve_has_nothing_free() -> None:
    df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 1000 999 -50 105% /scratch\n"
    assert read_look({"disk": ("0", df)}, gpus_wanted=False, gpu_timeout=5).free_bytes == 0
