"""Ten thousand cases that wait for one host: what each costs the conductor, and what memory it takes, at the beginning
and at the end, while they come in and while they are worked off. Takes some minutes: part of `make bench-store`.
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
    """Let the cases in, then work them off, and compare the first of each with the last."""
    print(f"{cases:,} cases wait for one host; the first {share:,} against the last, the aim is at most {LIMIT}")
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        store = open_store(Path(name) / "state.db")
        store.database.execute_sql("PRAGMA synchronous = OFF")  # CPU time is measured, not the disk
        flow = Flow(store)
        clockwork = Clockwork(flow.conductor, lane_is_idle=lambda lane: False)
        hold(flow, held=True)
        numbers = iter(range(cases))
        compare("they come in", lambda: flow.new_case(f"case-{next(numbers):06d}"), cases, share)
        clockwork.tick()
        began = time.process_time()
        for _ in range(10):
            clockwork.tick()
        print(f"  a turn of the clock while they wait: {(time.process_time() - began) * 100:.1f} ms CPU")
        hold(flow, held=False)

        def one_more() -> None:
            """Work one case off, from its upload to its archive."""
            commands = flow.commands()
            while not commands:
                clockwork.tick()
                commands = flow.commands()
            ended = False
            while not ended:
                command = commands.pop()  # the newest: a case goes on to its end before the next one begins
                flow.do(command)
                ended = command.step == "archive"
                commands += flow.commands()
            flow.put_back(commands)

        compare("they are worked off", one_more, cases, share)
        store.close()


def hold(flow: Flow, *, held: bool) -> None:
    """Hold the host back from every case, or give it free."""
    with flow.store.transaction():
        flow.store.hosts.update("far", held=held, reason="held for the measurement" if held else "")


def compare(what: str, act: Callable[[], None], cases: int, share: int) -> None:
    """Do something for each case, and print what the first and the last took."""
    marks = {}
    for number in range(cases + 1):
        if number in (0, share, cases - share, cases):
            marks[number] = (time.process_time(), resident())
        if number < cases:
            act()
    first = (marks[share][0] - marks[0][0]) / share
    last = (marks[cases][0] - marks[cases - share][0]) / share
    memory = marks[cases][1] / marks[share][1]
    verdict = "" if last <= LIMIT * first and memory <= LIMIT else "   NOT FLAT"
    print(
        f"  {what:<20} {first * 1000:.2f} ms CPU a case at first, {last * 1000:.2f} ms at last: ratio {last / first:.2f};"
        f" memory {marks[share][1] / 1e6:.0f} MB, {marks[cases][1] / 1e6:.0f} MB: ratio {memory:.2f}{verdict}"
    )


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:]))
