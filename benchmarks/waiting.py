"""Ten thousand cases that wait for one host: what each costs the conductor, and what memory it takes, at the beginning
and at the end, while they come in and while they are worked off.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flow import Flow

from mqi_cli.clockwork import Clockwork
from mqi_cli.store import open_store

CASES, SHARE = 10_000, 1000
LIMIT = 1.2


def main(cases: int = CASES, share: int = SHARE) -> None:
    """Let the cases in, work some of them off, and compare with an installation that has only the first of them."""
    print(
        f"{cases:,} cases wait for one host: the last {share:,} against the first {share:,}, the aim is at most {LIMIT}"
    )
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        many, few = Waiting(Path(name) / "many" / "state.db"), Waiting(Path(name) / "few" / "state.db")
        memory = []
        for _ in range(cases - share):
            if many.arrived in (share, cases - share - 1):
                memory.append(resident())
            many.arrive()
        compare("a case that comes in", many.arrive, few.arrive, share)
        compare("a turn of the clock", many.tick, few.tick, share // 10)
        many.release(), few.release()
        compare("a case worked off", many.work_off, few.work_off, share)
        ratio = memory[-1] / memory[0]
        verdict = "" if ratio <= LIMIT else "   NOT FLAT"
        print(
            f"  memory               {memory[0] / 1e6:.0f} MB with {share:,}, {memory[-1] / 1e6:.0f} MB with {cases - share:,}: ratio {ratio:.2f}{verdict}"
        )
        many.flow.store.close(), few.flow.store.close()


class Waiting:
    """An installation whose one host is held, until it is given free."""

    def __init__(self, path: Path) -> None:
        store = open_store(path)
        store.database.execute_sql("PRAGMA synchronous = OFF")  # CPU time is measured, not the disk
        self.flow = Flow(store)
        self.arrived = 0
        self._clockwork = Clockwork(self.flow.conductor, lane_is_idle=lambda lane: False)
        with store.transaction():
            store.hosts.update("far", held=True, reason="held for the measurement")

    def arrive(self) -> None:
        """Let one more case in."""
        self.arrived += 1
        self.flow.new_case(f"case-{self.arrived:06d}")

    def tick(self) -> None:
        """Do what is due."""
        self._clockwork.tick()

    def release(self) -> None:
        """Give the host free."""
        with self.flow.store.transaction():
            self.flow.store.hosts.update("far", held=False, reason="")

    def work_off(self) -> None:
        """Work one case off, from its upload to its archive."""
        commands = self.flow.commands()
        while not commands:
            self._clockwork.tick()
            commands = self.flow.commands()
        ended = False
        while not ended:
            command = commands.pop()  # the newest: a case goes on to its end before the next one begins
            self.flow.do(command)
            ended = command.step == "archive"
            commands += self.flow.commands()
        self.flow.put_back(commands)


def compare(what: str, many: Callable[[], None], few: Callable[[], None], times: int) -> None:
    """Do two things in turn, so that they share the machine's noise, and print what each took."""
    spent = [0.0, 0.0]
    for _ in range(times):
        for number, act in enumerate((many, few)):
            began = time.process_time()
            act()
            spent[number] += time.process_time() - began
    last, first = (each / times * 1000 for each in spent)
    verdict = "" if last <= LIMIT * first else "   NOT FLAT"
    print(
        f"  {what:<20} {first:.2f} ms CPU with the first, {last:.2f} ms with the last: ratio {last / first:.2f}{verdict}"
    )


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:]))
