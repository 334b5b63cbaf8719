"""Stage `run` on this machine and over a real sshd: once, adopted, judged by code, outputs and log, ended when told."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from exec.far_side import lines_of, until
from exec.turns import Bench
from mqi_cli import Done, Earlier, GiveUp, GpuLease, Host, HostFault, HostUnreachable, RetryLater, Wait
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec import helper
from mqi_ssh_exec.asking import HelperFault
from mqi_ssh_exec.helper import helper_path
from mqi_ssh_exec.run import make_order
from servers.accounts import with_login_shell
from servers.proxy import TcpProxy

CUTS = (100, 250, 400, 500)  # bytes of a status and a submission, which take more each way

NASTY = """it's; $(touch gotcha) `touch gotcha` "$HOME" \\n %s ü
and a second line"""


def test_a_tiny_run_is_done_in_one_turn_and_reports_facts(bench: Bench) -> None:
    ctx = bench.context("mkdir dose && echo 12345 >dose/a.raw && echo ok", outputs=("dose/*.raw",))
    outcome = bench.turn(ctx)
    assert isinstance(outcome, Done)
    facts = outcome.facts
    assert (facts["exit_code"], facts["outputs"], facts["output_bytes"], facts["log_bytes"]) == (0, 1, 6, 3)
    assert facts["seconds"] <= 2 and "cpu_seconds" in facts


def test_a_longer_run_is_waited_for(bench: Bench) -> None:
    _, waits = bench.drive(bench.context("sleep 2.5"))
    assert waits and all("running for" in wait.note and "far" in wait.note for wait in waits)


def test_a_turn_that_comes_again_changes_nothing(bench: Bench) -> None:
    ctx = bench.context(f"echo start >>{bench.ledger}; sleep 0.3")
    bench.drive(ctx)
    for facts in (ctx.facts, {}):  # with and without what was remembered: the worker may have died before it was
        ctx.facts = dict(facts)
        assert isinstance(bench.turn(ctx), Done)
    assert lines_of(bench.ledger) == ["start"]


def test_a_run_goes_on_without_its_worker_and_is_adopted(bench: Bench, open_host: Callable[..., Host]) -> None:
    ctx = bench.context(f"echo start >>{bench.ledger}; sleep 2; echo end >>{bench.ledger}")
    assert isinstance(bench.turn(ctx), Wait)
    bench.host.close()
    other = bench.context(ctx.options.command)  # a new worker, which knows nothing
    bench.drive(other)
    assert lines_of(bench.ledger) == ["start", "end"]


def test_another_exit_code_holds_the_case(bench: Bench) -> None:
    with pytest.raises(GiveUp, match=r"exit code 3 after \d+ s") as caught:
        bench.run("exit 3")
    assert "mqi exec logs cabcdefghij simulate" in caught.value.hint


def test_the_first_line_that_fails_decides(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="exit code 1"):
        bench.run("false\ntrue")


def test_a_program_that_is_not_there_is_named_as_the_cause(bench: Bench) -> None:
    with pytest.raises(GiveUp, match=r"127.*not found"):
        bench.run("no-such-program")


def test_a_run_that_a_signal_ends_is_not_done(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="SIGKILL"):
        bench.run("kill -KILL $$")


def test_exit_code_0_without_the_declared_outputs_is_not_done(bench: Bench) -> None:
    with pytest.raises(GiveUp, match=r"no file is there for the output `dose/\*.raw`"):
        bench.run("mkdir dose", outputs=("dose/*.raw",))


def test_exit_code_0_with_an_empty_output_is_not_done(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="1 of 2 outputs `dose` are empty"):
        bench.run("mkdir dose; echo 1 >dose/a; : >dose/b", outputs=("dose",))


def test_the_log_must_contain_what_is_asked_for(bench: Bench) -> None:
    assert bench.run("echo 'Total execution time: 3 s'", log_must_contain="Total execution time:")
    with pytest.raises(GiveUp, match="does not contain"):
        bench.run("echo nothing", attempt=2, log_must_contain=["nothing", "Total execution time:"])


def test_the_log_must_not_contain_what_is_forbidden(bench: Bench) -> None:
    ctx = bench.context("echo 'CUDA error: Meier_Anna' >&2", log_must_not_contain="CUDA error")
    with pytest.raises(GiveUp) as caught:
        bench.drive(ctx)
    assert "Meier" not in caught.value.message + caught.value.hint
    assert bench.log(ctx) == "CUDA error: Meier_Anna\n"


def test_a_text_between_slashes_is_a_pattern_and_the_line_that_it_found_is_named(bench: Bench) -> None:
    command = "echo well; echo; echo 'dose is NaN at 3'; echo 'took 12 s'"
    assert bench.run(command, log_must_contain="/^took [0-9]+ s$/", log_must_not_contain=["/[Ee]rror|FATAL/", "/took"])
    with pytest.raises(GiveUp, match=r"its log contains `/\(nan\|NaN\) at \[0-9\]/`") as caught:
        bench.run(command, attempt=2, log_must_not_contain="/(nan|NaN) at [0-9]/")
    assert caught.value.detail == "line 3: dose is NaN at 3"


def test_a_pattern_that_the_host_can_not_read_ends_in_no_done(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="understands no such pattern"):
        bench.run("echo well", log_must_not_contain="/(?=x)[[:nonsense:]]/")


def test_a_log_with_parts_left_out_is_not_taken_for_a_clean_one(bench: Bench) -> None:
    flood = "echo bad; head -c 600000 /dev/zero"
    with pytest.raises(GiveUp, match="parts of its log were left out"):
        bench.run(flood, log_must_not_contain="worse", log_limit=65536)


def test_a_run_over_its_time_limit_is_ended_with_all_that_it_started(bench: Bench) -> None:
    command = "trap '' TERM; (trap '' TERM; setsid sleep 300 & sleep 300) & sleep 300"
    with pytest.raises(GiveUp, match="longer than its time limit of 1 s"):
        bench.run(command, time_limit="1s")
    until(lambda: not bench.living())


def test_a_command_arrives_literally(bench: Bench) -> None:
    ctx = bench.context(f"cat <<'END' >out\n{NASTY.replace('{', '{{')}\nEND\n", environment={"TEXT": NASTY})
    bench.drive(ctx)
    assert (bench.work(ctx) / "out").read_text() == NASTY + "\n"
    assert not (bench.work(ctx) / "gotcha").exists()
    second = bench.context('printf %s "$TEXT" >out', attempt=2, environment={"TEXT": NASTY})
    bench.drive(second)
    assert (bench.work(second) / "out").read_text() == NASTY


@pytest.mark.parametrize("shell", ["tcsh", "fish", "bash"])
def test_a_command_arrives_literally_whatever_the_login_shell(
    shell: str, tmp_path: Path, sshd: OpenSSHServer, open_host: Callable[..., Host]
) -> None:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"{shell} is not installed")
    server = with_login_shell(sshd, program)
    bench = Bench(tmp_path, open_host("ssh", server=server))
    ctx = bench.context(f"cat <<'END' >out\n{NASTY}\nEND\n")
    bench.drive(ctx)
    assert (bench.work(ctx) / "out").read_text() == NASTY + "\n"


def test_placeholders_are_filled(bench: Bench) -> None:
    ctx = bench.context("printf '%s\\n' {input_dir} {work_dir} {step.interpret} {case_key} '{{}}' >out", attempt=2)
    ctx.earlier = [Earlier("interpret", "", 3)]
    Path(ctx.layout.input).mkdir(parents=True)
    bench.drive(ctx)
    root = bench.far / "cabcdefghij"
    assert (bench.work(ctx) / "out").read_text().split() == [
        f"{root}/input", f"{root}/work/simulate/_/2", f"{root}/work/interpret/_/3", "cabcdefghij", "{}",
    ]  # fmt: skip


def test_a_run_sees_the_gpus_it_was_given_and_no_others(bench: Bench) -> None:
    command = "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER {gpu_uuids}"
    leases = [GpuLease("GPU-aa", 2), GpuLease("GPU-bb", 0)]
    ctx = bench.context(command, gpus=2)
    ctx.gpus = leases
    bench.drive(ctx)
    assert bench.log(ctx) == "GPU-aa,GPU-bb PCI_BUS_ID GPU-aa,GPU-bb\n"
    ctx = bench.context("echo ${{CUDA_VISIBLE_DEVICES-all}} {gpu_ids}", gpus=2, attempt=2)
    ctx.gpus = leases
    bench.drive(ctx)
    assert bench.log(ctx) == "all 2,0\n"


def test_without_its_gpus_it_does_not_start(bench: Bench) -> None:
    with pytest.raises(RetryLater, match="needs 1 GPUs"):
        bench.run(f"echo start >>{bench.ledger}", gpus=1)
    assert not bench.ledger.exists()


def test_without_the_input_that_it_takes_it_does_not_start(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="input is not on the host"):
        bench.run(f"echo start >>{bench.ledger}; ls {{input_dir}}")
    assert not bench.ledger.exists()


def test_without_an_earlier_steps_work_directory_it_does_not_start(bench: Bench) -> None:
    with pytest.raises(GiveUp, match="step interpret has not finished"):
        bench.run("ls {step.interpret}")


def test_a_work_directory_that_holds_something_is_not_used(bench: Bench) -> None:
    ctx = bench.context("ls")
    bench.work(ctx).mkdir(parents=True)
    (bench.work(ctx) / "stale").touch()
    with pytest.raises(RetryLater, match="not empty"):
        bench.drive(ctx)


def test_a_run_that_vanished_is_tried_again_in_a_new_attempt(bench: Bench) -> None:
    ctx = bench.context(f"echo start >>{bench.ledger}; sleep 300")
    bench.turn(ctx)
    until(lambda: lines_of(bench.ledger))
    bench.end_all()
    until(lambda: not bench.living())
    with pytest.raises(RetryLater, match="vanished"):
        bench.drive(ctx)
    assert isinstance(bench.drive(bench.context("exit 0", attempt=2))[0], Done)


def test_a_run_without_its_runner_is_ended_and_tried_again(bench: Bench) -> None:
    ctx = bench.context(f"echo start >>{bench.ledger}; sleep 300")
    bench.turn(ctx)
    until(lambda: lines_of(bench.ledger))
    os.kill(bench.job(ctx).status().pid, signal.SIGKILL)
    with pytest.raises(RetryLater, match="lost its runner"):
        bench.drive(ctx)
    assert not bench.living()


def test_a_new_attempt_ends_the_run_of_an_earlier_one_first(bench: Bench) -> None:
    command = f"echo start >>{bench.ledger}; trap 'echo end >>{bench.ledger}; exit 1' TERM; sleep 300 & wait"
    first = bench.context(command)
    bench.turn(first)
    until(lambda: lines_of(bench.ledger))
    _, waits = bench.drive(bench.context(f"echo second >>{bench.ledger}", attempt=2))
    assert any("attempt 1" in wait.note for wait in waits)
    assert lines_of(bench.ledger) == ["start", "end", "second"]
    with pytest.raises(RetryLater, match="later attempt"):
        bench.drive(first)


def test_a_run_of_a_machine_out_of_sight_is_waited_for_and_never_judged(bench: Bench) -> None:
    ctx = bench.context("sleep 300")
    bench.turn(ctx)
    records = Path(ctx.layout.part("simulate", "")) / ".1.job" / "started"
    until(records.exists)
    text = records.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("boot=", "node="))]
    records.write_text("\n".join([*lines, "boot=other", "node=login2"]) + "\n")
    bench.look_again(ctx)
    outcome = bench.turn(ctx)
    assert isinstance(outcome, Wait) and "login2" in outcome.note
    assert isinstance(bench.turn(ctx, cancel=True), Wait)
    assert "attempt 1 was started on login2" in bench.drive_once(bench.context("exit 0", attempt=2)).note
    records.write_text(text)
    bench.drive(ctx, cancel=True)


def test_cancel_ends_the_run_and_proves_it(bench: Bench) -> None:
    ctx = bench.context(f"trap '' TERM; echo $$ >>{bench.ledger}; sleep 300 & wait; sleep 300")
    bench.turn(ctx)
    until(lambda: lines_of(bench.ledger))
    bench.drive(ctx, cancel=True)
    until(lambda: not bench.living())


def test_a_cancelled_run_that_had_not_begun_never_will(bench: Bench) -> None:
    bench.drive(bench.context("exit 0"), cancel=True)
    with pytest.raises(RetryLater, match="cancelled"):
        bench.run(f"echo start >>{bench.ledger}")
    assert not bench.ledger.exists()


def test_a_cancel_that_races_with_the_end_has_one_outcome(bench: Bench) -> None:
    for attempt in range(1, 4):
        ctx = bench.context(f"sleep 0.{attempt}", attempt=attempt)
        bench.job(ctx).submit(make_order(ctx))
        bench.drive(ctx, cancel=True)
        first, second = bench.job(ctx).status(), bench.job(ctx).status()
        assert first.reason in ("exit", "cancelled")
        assert (first.reason, first.code, first.ended) == (second.reason, second.code, second.ended)


def test_the_helper_is_put_back_when_somebody_cleaned_up(bench: Bench) -> None:
    ctx = bench.context("sleep 1.5")
    bench.turn(ctx)
    shutil.rmtree(helper_path(bench.host.base_dir).parent)
    bench.drive(ctx)
    assert Path(helper_path(bench.host.base_dir)).exists()


def test_a_damaged_helper_is_replaced(bench: Bench) -> None:
    path = Path(helper_path(bench.host.base_dir))
    path.parent.mkdir(parents=True)
    path.write_text("exit 0\n")
    helper._installed.clear()
    assert isinstance(bench.turn(bench.context("exit 0")), Done)


def test_a_fault_while_it_may_run_is_waited_for(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = local_bench.context("sleep 1.5")
    assert isinstance(local_bench.turn(ctx), Wait)

    def fail(*args: object, **options: object) -> None:
        raise HostFault("permission denied", host="far")

    with monkeypatch.context() as patch:
        patch.setattr(local_bench.host, "run", fail)
        local_bench.look_again(ctx)
        assert local_bench.turn(ctx) == Wait(60.0, "permission denied")
        assert local_bench.turn(ctx, cancel=True) == Wait(60.0, "permission denied")
    local_bench.drive(ctx)


def test_a_fault_before_anything_was_started_is_an_error(local_bench: Bench) -> None:
    shutil.rmtree(local_bench.far)
    local_bench.far.mkdir()
    (local_bench.far / "cabcdefghij").write_text("in the way")
    with pytest.raises(HelperFault, match="can't write below base_dir"):
        local_bench.drive(local_bench.context("exit 0"))


@pytest.mark.parametrize("cut", [{"up": n} for n in CUTS] + [{"down": n} for n in CUTS], ids=str)
def test_a_connection_that_is_cut_at_any_time_starts_it_once(
    cut: dict[str, int], tmp_path: Path, sshd: OpenSSHServer, open_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, open_host("ssh", port=proxy.port))
        bench.host.run(["true"])
        bench.job(bench.context("exit 0", name="other")).status()  # the helper is there
        ctx = bench.context(f"echo start >>{bench.ledger}; sleep 0.2")
        proxy.cut_after(**cut)
        unreachable = 0
        for _ in range(5):
            try:
                outcome = bench.turn(ctx)
            except HostUnreachable:
                unreachable += 1
                ctx.facts = {}  # and what the worker remembered was lost with it
                continue
            if isinstance(outcome, Done):
                break
        else:
            raise AssertionError("not done")
        assert lines_of(bench.ledger) == ["start"]
        assert unreachable <= 1  # a cut between two calls is not even noticed: the next one connects anew
        bench.host.close()


def test_a_reply_that_is_lost_after_the_start_does_not_start_it_again(
    tmp_path: Path, sshd: OpenSSHServer, open_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy:
        bench = Bench(tmp_path, open_host("ssh", port=proxy.port))
        ctx = bench.context(f"echo start >>{bench.ledger}; sleep 1")
        bench.job(ctx).status()
        bench.host.run(["true"])

        def cut_when_started() -> None:
            until(lambda: lines_of(bench.ledger))
            proxy.reset()

        thread = threading.Thread(target=cut_when_started)
        thread.start()
        with pytest.raises(HostUnreachable):
            bench.job(ctx).submit(make_order(ctx), wait=5)
        thread.join()
        bench.drive(ctx)
        assert lines_of(bench.ledger) == ["start"]
        bench.host.close()


def test_the_line_that_a_fail_pattern_matched_is_told_without_names(bench: Bench) -> None:
    ctx = bench.context(
        "echo fine; printf 'CUDA error 7 in /data/Meier_Anna/beam1.ptn of ANNA\\033[31m\\n'",
        log_must_not_contain="CUDA error",
    )
    with pytest.raises(GiveUp, match=r"its log contains `CUDA error` \(log_must_not_contain\)") as caught:
        bench.drive(ctx)
    assert caught.value.detail == "line 2: CUDA error 7 in … of …\\x1b[31m"


def test_the_last_lines_of_a_failed_run_are_kept_with_it_without_names(bench: Bench) -> None:
    ctx = bench.context("seq 1000; echo 'no beam in PlanInfo.txt of 20260112345678'; echo 'sad end'; exit 4")
    with pytest.raises(GiveUp, match="exit code 4") as caught:
        bench.drive(ctx)
    assert caught.value.detail.splitlines() == ["997", "998", "999", "1000", "no beam in … of …", "sad end"]
