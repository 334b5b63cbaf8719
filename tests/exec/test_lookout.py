"""One look at all runs of a host, shared by every turn of a process; and limits that only several looks can tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from exec.far_side import lines_of, until
from exec.test_exec_commands import CommandLine
from exec.turns import Bench, Context
from mqi_cli import Completed, GiveUp, Host, Wait
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec.job_status import JobState
from mqi_ssh_exec.lookout import Lookout, lookout_of
from mqi_ssh_exec.run import make_order
from mqi_ssh_exec.watching import show_status
from servers.proxy import TcpProxy

RUNS = 5
THREADS = 4  # of a worker


class Counted:
    """A host that counts the programs it is asked to run."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self.calls: list[str] = []

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.calls.append(" ".join(argv))
        done: Completed = self._host.run(argv, **more)
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


@pytest.mark.usefixtures("at_once")
def test_however_many_runs_there_are_one_call_looks_at_all_of_them(bench: Bench) -> None:
    contexts = [
        bench.context(f"echo on >>{bench.ledger}; sleep 60", name=f"step{number}", poll="30s") for number in range(RUNS)
    ]
    for ctx in contexts:
        bench.drive_once(ctx)
    until(lambda: len(lines_of(bench.ledger)) == RUNS, what="all of them run")
    host = Counted(bench.host)
    lookout = Lookout(elapsed=lambda: clock[0])
    clock = [0.0]

    def look() -> set[JobState]:
        return {lookout.status(host, bench.job(ctx).place, interval=lambda seen: 30.0).state for ctx in contexts}

    look()  # each becomes known
    host.calls.clear()
    assert look() == {JobState.RUNNING} and not host.calls, "a fresh look was thrown away"
    for turn in range(3):
        clock[0] += 30.0
        assert look() == {JobState.RUNNING}
        assert len(host.calls) == turn + 1, "more than one call in an interval"


@pytest.mark.sshd
@pytest.mark.usefixtures("at_once")
def test_fifty_runs_cost_a_host_no_more_connections_than_five(
    tmp_path: Path, sshd: OpenSSHServer, open_host: Callable[..., Host]
) -> None:
    with TcpProxy(sshd.port) as proxy, ThreadPoolExecutor(THREADS) as threads:
        bench = Bench(tmp_path, open_host("ssh", port=proxy.port))

        def opened(first: int, last: int) -> int:
            """Start runs and give each a second turn, as a worker's threads do; return how many connections that took."""
            before = proxy.connections
            contexts = [bench.context("sleep 60", name=f"step{number}", poll="30s") for number in range(first, last)]
            for _ in range(2):
                for outcome in threads.map(bench.turn, contexts):
                    assert isinstance(outcome, Wait)
            return proxy.connections - before

        try:
            few = opened(0, 5)
            assert 1 <= few <= THREADS
            assert opened(5, 50) <= THREADS - few, "threads share connections, runs have none"
        finally:
            bench.end_all()


@pytest.mark.usefixtures("at_once")
def test_a_run_that_was_young_when_it_was_last_asked_for_costs_no_look_of_its_own(local_bench: Bench) -> None:
    clock = [0.0]
    lookout = Lookout(elapsed=lambda: clock[0])
    host = Counted(local_bench.host)
    ages = {"old": 30.0, "young": 1.0}
    places = {}
    for name in ages:
        ctx = local_bench.context("sleep 60", name=name)
        local_bench.drive_once(ctx)
        places[name] = local_bench.job(ctx).place

    def look(name: str) -> None:
        lookout.status(host, places[name], interval=lambda seen: ages[name])

    look("young")
    look("old")
    clock[0], ages["young"] = 40.0, 30.0
    look("old")  # and the other with it
    host.calls.clear()
    clock[0] = 45.0
    look("young")
    assert not host.calls
    local_bench.end_all()


@pytest.mark.usefixtures("at_once")
def test_a_run_that_has_just_begun_is_known_without_a_look(bench: Bench) -> None:
    clock = [0.0]
    lookout = Lookout(elapsed=lambda: clock[0])
    host = Counted(bench.host)
    places = []
    for name in ("one", "two"):
        ctx = bench.context("sleep 60", name=name)
        status = bench.job(ctx).submit(make_order(ctx), wait=1)
        assert status.state is JobState.RUNNING
        places.append(bench.job(ctx).place)
        lookout.learn(places[-1], status)

    def look() -> set[JobState]:
        return {lookout.status(host, place, interval=lambda seen: 1.0).state for place in places}

    assert look() == {JobState.RUNNING} and not host.calls, "what the submission told was thrown away"
    clock[0] += 1.0
    assert look() == {JobState.RUNNING}
    assert len(host.calls) == 1, "each young run asked for a look of its own"


class Hand:
    """What `mqi exec` asks of the core, for one step that fans out."""

    def __init__(self, contexts: dict[str, Context]) -> None:
        self.contexts = contexts

    def part_names(self, stage: str, case: str, *, step: str) -> list[str]:
        return list(self.contexts)

    def stage_context(self, stage: str, case: str, *, step: str, part: str) -> tuple[None, Context]:
        return None, self.contexts[part]


@pytest.mark.usefixtures("at_once")
def test_how_many_parts_stand_is_shown_after_one_call(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"echo 3 of 4; echo on >>{bench.ledger}; test {{part_index}} -gt 2 || sleep 60; exit {{part_index}}"
    contexts = {
        str(number): bench.context(command, part=str(number), for_each=["a", "b", "c", "d"], progress=r"(\d) of (\d)")
        for number in range(1, 5)
    }
    for ctx in contexts.values():
        bench.job(ctx).submit(make_order(ctx), wait=0)
    until(lambda: len(lines_of(bench.ledger)) == 4)
    until(lambda: all(bench.job(contexts[part]).status().state is JobState.FINISHED for part in "34"))
    host = Counted(bench.host)
    for ctx in contexts.values():
        ctx.host = host  # type: ignore[assignment]

    show_status(Hand(contexts), "x", step="", part="", attempt=None, json=True, format="")  # type: ignore[arg-type]

    rows = json.loads(capsys.readouterr().out)
    shown = [(row["part"], row["state"], row["exit_code"], row["progress"], bool(row["processes"])) for row in rows]
    assert shown == [
        ("1", "running", None, "3 of 4", True),
        ("2", "running", None, "3 of 4", True),
        ("3", "finished", 3, "3 of 4", False),
        ("4", "finished", 4, "3 of 4", False),
    ]
    assert len(host.calls) == 1, host.calls
    assert rows[0]["pid"] == bench.job(contexts["1"]).status().pid


@pytest.mark.usefixtures("at_once")
def test_the_second_turn_of_a_run_asks_its_host_nothing(local_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = local_bench.context("sleep 60")
    local_bench.drive_once(ctx)
    with monkeypatch.context() as patch:
        patch.setattr(local_bench.host, "run", None)
        local_bench.drive_once(ctx)


@pytest.mark.usefixtures("at_once")
def test_what_nobody_asks_for_any_more_is_not_looked_at(local_bench: Bench) -> None:
    clock = [0.0]
    lookout = Lookout(elapsed=lambda: clock[0])
    for name in ("one", "two"):
        ctx = local_bench.context("sleep 60", name=name)
        local_bench.drive_once(ctx)
        lookout.status(local_bench.host, local_bench.job(ctx).place, interval=lambda seen: 1.0)
    assert len(lookout) == 2
    clock[0] += 1000.0
    lookout.status(local_bench.host, local_bench.job(ctx).place, interval=lambda seen: 1.0)
    assert len(lookout) == 1


def test_one_host_has_one_lookout_whoever_asks(local_bench: Bench) -> None:
    assert lookout_of(local_bench.host) is lookout_of(local_bench.host)


@pytest.mark.usefixtures("at_once")
def test_a_run_whose_log_does_not_grow_any_more_is_ended(local_bench: Bench) -> None:
    ctx = local_bench.context("for i in 1 2 3; do echo $i; sleep 0.8; done; sleep 60", stall_limit="1s")
    with pytest.raises(GiveUp, match=r"its log did not grow for 1 s \(stall_limit\), and it was ended"):
        local_bench.drive(ctx)
    assert local_bench.log(ctx).split() == ["1", "2", "3"] and not local_bench.living()


CONFIG = """
state: {{path: state/state.db}}
hosts: {{here: {{type: local, base_dir: {far}}}}}
sources: [{{path: incoming, complete_when: manual, workflow: qa}}]
workflows:
  qa:
    - run: {{name: interpret, host: here, command: "echo reading the plan of Meier_Anna; echo no such beam; exit 7"}}
"""


def test_why_a_case_is_held_shows_what_its_run_wrote_last(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, CONFIG.format(far=tmp_path / "far"))
    line.mqi("exec", "run", "Meier", code=1)
    said = line.mqi("case", "why", "Meier")
    assert "exit code 7" in said and "  | reading the plan of …\n  | no such beam\n" in said
    assert "no such beam" in line.mqi("case", "log", "Meier", "--detail")
