"""Real processes over simulated GPUs: parts that share two, and twelve cases over four that come, go and are renumbered."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer
from pipeline.gpu_room import GpuRoom
from servers.house import House, wait_for

MOST_KILLS = 8  # of one process: the supervisor gives up at 10 in ten minutes

_CONFIG = """\
state: {{path: state/state.db}}
hosts:
  gpu: {{type: ssh, hostname: 127.0.0.1, port: {port}, user: {user}, key_file: {key_file}, known_hosts: {known_hosts},
        base_dir: {base_dir}, limits: {{jobs: 20}}}}
sources:
  - {{path: incoming, complete_when: manual, workflow: dose}}
  - {{path: large, complete_when: manual, workflow: dose_on_two}}
workflows:
  dose:
    - upload: {{host: gpu}}
    - run: {{name: simulate, host: gpu, gpus: 1, {fan_out}command: "{run} {{case_key}} {part} {seconds}", outputs: [dose.raw], poll: 300ms}}
{download}
  dose_on_two:
    - upload: {{host: gpu}}
    - run: {{name: simulate, host: gpu, gpus: 2, command: "{run} {{case_key}} _ {seconds}", outputs: [dose.raw], poll: 300ms}}
curator: {{interval: 1s}}
workers: {{ssh-exec: {{threads: 8}}}}
daemon: {{lease: 3s, retry_first: 1s, stop_within: 10s}}
"""

_FETCH = """\
    - download: {host: gpu, to: "results/{case_name}"}
    - archive: {to: archive, clear_host: false}
"""


@pytest.fixture
def room(house: House, own_sshd: OpenSSHServer) -> GpuRoom:
    """GPUs of the house's host: its own server, on which the plain command `nvidia-smi` tells of them."""
    made = GpuRoom(house.directory / "room")
    own_sshd.environment["PATH"] = f"{made.programs}:{os.environ['PATH']}"
    house.server = own_sshd.start()
    return made


def configure(house: House, room: GpuRoom, *, seconds: float, fan_out: bool = False) -> None:
    """Write the config of a house with GPUs."""
    section = house.server.host_section()
    house.config.write_text(
        _CONFIG.format(
            base_dir=house.far,
            port=section.port,
            user=section.user,
            key_file=section.key_file,
            known_hosts=section.known_hosts,
            run=room.run,
            seconds=seconds,
            fan_out='for_each: {files: "*/PlanInfo.txt"}, ' if fan_out else "",
            part="{part_index}" if fan_out else "_",
            download=_FETCH if fan_out else "",
        )
    )


def make_case(house: House, source: str, name: str, *, fields: int = 1) -> Path:
    """Write a case and hand it over."""
    directory = house.directory / source / name
    for number in range(fields):
        field = directory / f"field{number}-ZZPATIENT"
        field.mkdir(parents=True)
        (field / "PlanInfo.txt").write_text("BEAM_NUMBER,1\n")
    return directory


def states(house: House) -> dict[str, str]:
    return {case["name"]: case["state"] for case in house.cases()}


def leases(house: House) -> dict[str, str | None]:
    return {gpu["uuid"]: gpu["lease"] for gpu in json.loads(house.mqi("gpu", "list", "--json"))}


def test_four_parts_on_two_gpus_run_two_at_a_time_and_once_each_though_conductor_and_worker_are_killed(
    house: House, room: GpuRoom
) -> None:
    room.fill(2)
    configure(house, room, seconds=1.5, fan_out=True)
    case = make_case(house, "incoming", "case", fields=4)
    with house.daemon():
        wait_for(lambda: len(leases(house)) == 2, "the GPUs to be seen", pause=0.3)
        house.mqi("case", "add", str(case))
        for begun in (1, 3):
            wait_for(lambda begun=begun: len(room.uses()) >= begun, "parts to begin", pause=0.05)  # type: ignore[misc]
            for name in ("conductor", "ssh-exec-1"):
                pid = wait_for(lambda name=name: house.children().get(name), f"{name} to live")  # type: ignore[misc]
                os.kill(pid, signal.SIGKILL)
        found = house.wait_state("done", "held", limit=60)
        assert found["state"] == "done", found["reason"]
        details: dict[str, Any] = json.loads(house.mqi("case", "show", "case", "--json"))
        runs = json.loads(house.mqi("exec", "status", "case", "simulate", "--json"))
        logs = "".join(path.read_text() for path in (house.state / "logs").glob("*"))

    assert room.used_twice() == []
    assert len(room.uses()) == 4
    assert room.most_at_once() == 2
    assert [step["part"] for step in details["steps"] if step["step"] == "simulate"] == ["", "1", "2", "3", "4"]
    assert [run["stands_for"] for run in runs] == [f"field{number}-ZZPATIENT/PlanInfo.txt" for number in range(4)]
    assert sorted(path.parent.name for path in (house.directory / "results").rglob("dose.raw")) == ["1", "2", "3", "4"]
    assert "ZZPATIENT" not in logs, "the files behind the parts are named in no log"
    queues = [path for path in house.state.glob("queue.db*") if path.is_file()]
    assert queues and not [path for path in queues if b"ZZPATIENT" in path.read_bytes()], "nor in any message"


def test_the_checker_of_the_ledger_sees_a_gpu_that_two_runs_have(tmp_path: Path) -> None:
    room = GpuRoom(tmp_path / "room")
    ledger = room.directory / "ledger"
    well = "start GPU-0 a/1 7 1.0\nstart GPU-1 b/1 8 1.5\nend GPU-0 a/1 7 2.0\nstart GPU-0 c/1 9 2.5\n"
    ledger.write_text(well)
    assert room.used_twice() == []
    ledger.write_text(well + "start GPU-1 d/1 10 3.0\n")
    assert [(one.by, other.by) for one, other in room.used_twice()] == [("b/1", "d/1")]
    ledger.write_text(well + "start GPU-2 c/1 10 3.0\n")
    assert [(one.pid, other.pid) for one, other in room.used_twice()] == [(9, 10)], "one part, two runs"


@pytest.mark.parametrize("count", [12, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_no_gpu_is_used_twice_and_none_leaks_whatever_happens(house: House, room: GpuRoom, count: int) -> None:
    room.fill(5)
    taken = room.uuids[4]
    room.stranger(taken, there=True)
    configure(house, room, seconds=1.0, fan_out=True)
    cases = [make_case(house, "large" if number % 3 == 0 else "incoming", f"case{number}") for number in range(count)]
    chance = random.Random(5)
    with house.daemon():
        wait_for(lambda: len(leases(house)) == 5, "the GPUs to be seen", pause=0.3)
        house.mqi("case", "add", *map(str, cases))
        gone, strange, killed = None, None, Counter[str]()
        end = time.monotonic() + 9 * count
        while set(states(house).values()) != {"done"}:
            assert time.monotonic() < end, house.mqi("case", "list", "--all") + house.mqi("gpu", "list")
            match chance.choice(["renumber", "vanish", "stranger", "kill", "cut"]):
                case "renumber":
                    shown = [uuid for uuid in room.uuids if uuid != gone]
                    chance.shuffle(shown)
                    room.show(shown)
                case "vanish":
                    gone = chance.choice(room.uuids[:4]) if gone is None else None
                    room.show([uuid for uuid in room.uuids if uuid != gone])
                case "stranger":
                    if strange is not None:
                        room.stranger(strange, there=False)
                    strange = chance.choice(room.uuids[:4]) if strange is None else None
                    if strange is not None:
                        room.stranger(strange, there=True)
                case "kill":
                    kill_one(house, chance, killed)
                case "cut":
                    house.server.drop_connections()
            time.sleep(0.5)  # the pace of the faults, not a wait for something
        assert room.used_twice() == []
        assert {use.by.partition("/")[0] for use in room.uses()} == {each["key"] for each in house.cases()}
        assert len({use.pid for use in room.uses()}) == count, "each part was started once"
        assert taken not in {use.gpu for use in room.uses()}, "somebody else computes on it all the time"
        assert set(leases(house).values()) == {None}


def kill_one(house: House, chance: random.Random, killed: Counter[str]) -> None:
    """Kill one of the daemon's processes that have to do with GPUs; none so often that the supervisor gives it up."""
    found = {
        name: pid
        for name, pid in house.children().items()
        if name.startswith(("conductor", "ssh-exec", "curator")) and killed[name] < MOST_KILLS
    }
    if found:
        name = chance.choice(sorted(found))
        killed[name] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[name], signal.SIGKILL)
