"""The supervisor's loop on real processes, with a clock that can be put forward."""

from __future__ import annotations

import os
import signal

import pytest

from mqi_cli.config.model import LogSection
from mqi_cli.crew import ChildState, Plan
from mqi_cli.errors import ConfigError
from mqi_cli.restarts import MOST_EXITS
from supervisor.bench import OBEDIENT, STUBBORN, Bench, Programs, alive

CRASHING = "raise SystemExit(1)"
REFUSING = "raise SystemExit(3)"


def test_a_child_that_ends_by_itself_is_started_again_after_its_delay(bench: Bench, program: Programs) -> None:
    child = bench.start(program("worker-1", CRASHING)).children["worker-1"]
    bench.until(lambda: child.state is ChildState.BACKING_OFF)
    assert child.last_exit == "exit code 1"
    assert child.due is not None
    assert 0.0 < child.due - bench.clock.elapsed() <= 1.2
    bench.clock.offset += 1.2
    bench.until(lambda: child.restarts == 2)
    assert "it is started again in 1." in bench.log("daemon") or "it is started again in 2." in bench.log("daemon")


def test_a_child_that_crashes_in_a_loop_is_fatal_while_the_others_go_on(bench: Bench, program: Programs) -> None:
    supervisor = bench.start(program("worker-1", CRASHING), program("worker-2", OBEDIENT))
    bad, good = supervisor.children["worker-1"], supervisor.children["worker-2"]
    bench.until(lambda: good.state is ChildState.RUNNING)
    for exits in range(1, MOST_EXITS + 2):
        bench.until(lambda exits=exits: bad.restarts == exits)
        if bad.due is not None and exits <= MOST_EXITS:
            bench.clock.offset += max(0.0, bad.due - bench.clock.elapsed())
            good.excuse()
    assert bad.state is ChildState.FATAL
    assert good.state is ChildState.RUNNING
    assert good.restarts == 0
    assert "worker-1 ends again and again (exit code 1)" in bench.log("daemon")
    status = bench.files.status.read_text()
    assert '"fatal"' in status


def test_a_child_that_refuses_its_config_is_not_started_again_before_a_reload(bench: Bench, program: Programs) -> None:
    spec = program("worker-1", REFUSING)
    supervisor = bench.start(spec)
    child = supervisor.children["worker-1"]
    bench.until(lambda: child.state is ChildState.REFUSED)
    bench.clock.offset += 3600.0
    for _ in range(5):
        supervisor.turn(longest=0.01)
    assert (child.state, child.restarts) == (ChildState.REFUSED, 1)
    program("worker-1", OBEDIENT)  # somebody mended it
    bench.plans.append(Plan((spec,), log=LogSection(), stop_within=5.0))
    supervisor.ask_reload()
    bench.until(lambda: child.state is ChildState.RUNNING)


def test_a_hung_child_writes_its_stacks_into_its_log_and_is_replaced(bench: Bench, program: Programs) -> None:
    hanging = """
        import time
        from mqi_cli.child import become_child
        beat = become_child()
        beat.turn()
        def stuck_in_here():
            time.sleep(600)
        stuck_in_here()
    """
    child = bench.start(program("worker-1", hanging, beat_limit=0.5)).children["worker-1"]
    bench.until(lambda: child.restarts == 1)
    assert child.last_exit.startswith("it hung: no sign of life for")
    assert "stuck_in_here" in bench.log("worker-1")


def test_a_hung_child_that_ignores_sigabrt_is_killed(bench: Bench, program: Programs) -> None:
    hanging = """
        import signal, time
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(600)
    """
    child = bench.start(program("worker-1", hanging, beat_limit=0.5)).children["worker-1"]
    bench.until(lambda: "deaf" in bench.log("worker-1") and child.last_exit == "" and child.pid)
    pid = child.pid
    assert pid is not None
    bench.until(lambda: child.restarts == 1, within=15.0)
    assert not alive(pid)


def test_silence_while_the_supervisor_itself_stood_still_is_no_proof_of_hanging(
    bench: Bench, program: Programs
) -> None:
    supervisor = bench.start(program("worker-1", OBEDIENT))
    child = supervisor.children["worker-1"]
    bench.until(lambda: child.state is ChildState.RUNNING)
    os.kill(child.pid or 0, signal.SIGSTOP)
    try:
        bench.clock.offset += 3600.0  # the machine was suspended
        supervisor.turn(longest=0.01)
        supervisor.turn(longest=0.01)
    finally:
        os.kill(child.pid or 0, signal.SIGCONT)
    for _ in range(20):
        supervisor.turn(longest=0.02)
    assert (child.state, child.restarts) == (ChildState.RUNNING, 0)


def test_a_child_beyond_its_memory_limit_is_asked_to_end_and_replaced(bench: Bench, program: Programs) -> None:
    growing = OBEDIENT.replace("stop = []", "stop = []; ballast = bytearray(80_000_000)")
    child = bench.start(program("worker-1", growing, memory_limit=60_000_000)).children["worker-1"]
    bench.until(lambda: child.state is ChildState.RUNNING)
    bench.clock.offset += 100.0  # it has lived long enough not to count as failing
    bench.until(lambda: child.restarts == 1 and child.state is ChildState.RUNNING)
    assert "drained" in bench.log("worker-1")
    assert "its limit is 60 MB" in bench.log("daemon")


def test_a_child_that_grows_at_once_every_time_backs_off(bench: Bench, program: Programs) -> None:
    growing = OBEDIENT.replace("stop = []", "stop = []; ballast = bytearray(80_000_000)")
    child = bench.start(program("worker-1", growing, memory_limit=60_000_000)).children["worker-1"]
    bench.until(lambda: child.state is ChildState.RUNNING)
    bench.clock.offset += 6.0
    bench.until(lambda: child.state is ChildState.BACKING_OFF)
    assert child.last_exit.startswith("it grew to")


def test_what_a_child_leaves_running_in_its_group_ends_with_it(bench: Bench, program: Programs) -> None:
    leaving = """
        import subprocess, sys
        print("left", subprocess.Popen(["sleep", "600"]).pid, flush=True)
        sys.exit(1)
    """
    bench.start(program("worker-1", leaving))
    bench.until(lambda: "left" in bench.log("worker-1"))
    left = int(bench.log("worker-1").split("left ")[1].split()[0])
    bench.until(lambda: not alive(left))


def test_a_program_that_does_not_exist_is_told_of_and_tried_again(bench: Bench, program: Programs) -> None:
    spec = program("worker-1", "")
    child = bench.start(type(spec)("worker-1", ("/nonexistent/program",))).children["worker-1"]
    bench.until(lambda: child.state is ChildState.BACKING_OFF)
    assert child.last_exit == "it could not be started: No such file or directory"


def test_a_stop_ends_the_conductor_after_the_workers(bench: Bench, program: Programs) -> None:
    slow = OBEDIENT.replace('print("drained"', 'time.sleep(0.5); print("drained"')
    supervisor = bench.start(program("conductor", OBEDIENT, last=True), program("worker-1", slow))
    bench.until(lambda: all(each.state is ChildState.RUNNING for each in supervisor.children.values()))
    supervisor.ask_stop()
    bench.until(lambda: supervisor.turn(longest=0.02))
    assert all(each.state is ChildState.STOPPED for each in supervisor.children.values())
    ends = [line.split(": ")[1] for line in bench.log("daemon").splitlines() if "has ended" in line]
    assert ends == ["worker-1 has ended", "conductor has ended"]


def test_a_reload_replaces_only_what_it_changes(bench: Bench, program: Programs) -> None:
    kept, changed, gone = (program(name, OBEDIENT, settings=1) for name in ("kept", "changed", "gone"))
    supervisor = bench.start(kept, changed, gone)
    children = dict(supervisor.children)
    bench.until(lambda: all(each.state is ChildState.RUNNING for each in children.values()))
    pids = {name: each.pid for name, each in children.items()}
    new = program("new", OBEDIENT, settings=1)
    changed = program("changed", OBEDIENT, settings=2)
    bench.plans.append(Plan((kept, changed, new), log=LogSection(), stop_within=5.0))
    supervisor.ask_reload()
    bench.until(lambda: supervisor.children.keys() == {"kept", "changed", "new"})
    bench.until(lambda: all(each.state is ChildState.RUNNING for each in supervisor.children.values()))
    assert supervisor.children["kept"].pid == pids["kept"]
    assert supervisor.children["changed"].pid != pids["changed"]
    assert not alive(pids["gone"] or 0)


@pytest.mark.parametrize(
    "error", [ConfigError("2 problems", problems=("mqi.yaml:3: no such key",)), RuntimeError("a bug")]
)
def test_a_reload_that_fails_leaves_everything_as_it_is(bench: Bench, program: Programs, error: Exception) -> None:
    class Failing(list[Plan]):
        def pop(self, *_: object) -> Plan:
            raise error

    supervisor = bench.start(program("worker-1", OBEDIENT))
    child = supervisor.children["worker-1"]
    bench.until(lambda: child.state is ChildState.RUNNING)
    pid = child.pid
    bench.plans = Failing()
    supervisor.ask_reload()
    bench.until(lambda: "not reloaded, the old config stays" in bench.log("daemon"))
    assert child.pid == pid
    if isinstance(error, ConfigError):
        assert "mqi.yaml:3: no such key" in bench.log("daemon")


def test_a_child_that_ignores_a_reload_is_killed_and_replaced(bench: Bench, program: Programs) -> None:
    supervisor = bench.start(program("worker-1", STUBBORN, settings=1), stop_within=0.3)
    child = supervisor.children["worker-1"]
    bench.until(lambda: child.state is ChildState.RUNNING)
    bench.plans.append(Plan((program("worker-1", OBEDIENT, settings=2),), log=LogSection(), stop_within=0.3))
    supervisor.ask_reload()
    bench.until(lambda: child.restarts == 1 and child.state is ChildState.RUNNING)


def test_output_past_the_logging_gets_time_and_name_and_loses_secrets_and_controls(
    bench: Bench, program: Programs
) -> None:
    printing = r"""
        print("password is hunter22 \x1b[31mred")
        print('{"a": 1}')
        raise ValueError("a bug")
    """
    child = bench.start(program("worker-1", printing)).children["worker-1"]
    bench.until(lambda: child.restarts == 1)
    lines = bench.log("worker-1").splitlines()
    assert all(" OUTPUT  worker-1: " in line for line in lines)
    assert lines[0].endswith(r"password is [secret] \x1b[31mred")
    assert lines[-1].endswith("ValueError: a bug")
