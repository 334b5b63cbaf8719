"""mqi against AiiDA, in one run: the same small jobs over the same SSH server, the same broker, the same machine.

AiiDA comes from PyPI into an environment of its own (`.bench/aiida`) and gets its best: a lightweight profile, poll and
safe interval 0, both SSH transports. A case of ours is more than a job of AiiDA's: it is found in a watched directory,
proven by hash on both sides, archived, and its host is cleared.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiida_environment import SETTINGS as AIIDA_SETTINGS
from aiida_environment import Peer
from idle import proportional_set_size, spent
from many_cases import FILES, SETTINGS, Pipeline, pipeline

from mqi_cli import __version__
from mqi_cli.hosts.sshd import OpenSSHServer

CASES = 200
PEER_JOBS = 60
SINGLE = 5
COMMANDS = 7
IDLE_SECONDS = 20.0


@dataclass(frozen=True)
class Rate:
    """What one system did."""

    system: str
    jobs: int
    seconds: float
    single: float  # seconds, median

    @property
    def per_minute(self) -> float:
        """Jobs a minute."""
        return self.jobs / self.seconds * 60

    def __str__(self) -> str:
        return f"{self.system:<28} {self.jobs:4d} in {self.seconds:6.1f} s = {self.per_minute:5.0f} a minute; one alone {self.single:5.2f} s"


def main(cases: int, jobs: int) -> None:
    """Measure both, print figures and ratios."""
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name, ExitStack() as stack:
        place = Path(name)
        node = stack.enter_context(rabbitmq(place))
        server = stack.enter_context(OpenSSHServer(place / "sshd"))
        secret = place / "secret"
        secret.write_text(node.password)
        secret.chmod(0o600)
        peer = stack.enter_context(Peer.running(place / "aiida", server, node))
        print(
            f"mqi {__version__}, AiiDA {peer.version}, Python {platform.python_version()}, {os.cpu_count()} cores; "
            f"load before {os.getloadavg()[0]:.1f}\n  mqi:   {SETTINGS.strip()}\n  AiiDA: {AIIDA_SETTINGS}\n"
            f"  each job: {FILES} files of 20 kB up, cp, one file down\n"
        )
        theirs = [measure_peer(peer, transport, jobs) for transport in peer.transports]
        ours = []
        for title, broker in (
            ("mqi, embedded queue", ""),
            ("mqi, RabbitMQ", f"broker: {{url: '{node.url}', password_file: {secret}}}\n"),
        ):
            with pipeline(place / title.split()[-1].lower(), server, broker=broker) as running:
                ours.append(measure_ours(title, running, cases))
                if not broker:
                    compare_commands(peer, running)
                    compare_idle(peer, running)
        compare_rates(theirs, ours)


def measure_peer(peer: Peer, transport: str, jobs: int) -> Rate:
    """Measure AiiDA over one transport."""
    peer.run(transport, 1)  # warm
    single = statistics.median(peer.run(transport, 1) for _ in range(SINGLE))
    found = Rate(f"AiiDA, {transport}", jobs, peer.run(transport, jobs), single)
    print(found, flush=True)
    return found


def measure_ours(title: str, running: Pipeline, cases: int) -> Rate:
    """Measure mqi over one broker."""
    single = statistics.median(running.alone(SINGLE))
    found = Rate(title, cases, running.many(cases), single)
    print(found, flush=True)
    return found


def compare_rates(theirs: list[Rate], ours: list[Rate]) -> None:
    """Print how many times more, and how many times faster; the aims are 10 times, and one case below 1 s."""
    best = max(each.per_minute for each in theirs)
    fastest = min(each.single for each in theirs)
    print("\nAgainst AiiDA's best:")
    for each in ours:
        ratio = each.per_minute / best
        print(
            f"  {each.system}: {ratio:.1f} times as many a minute{'' if ratio >= 10 else '   BELOW 10'}; "
            f"one alone {fastest / each.single:.1f} times faster{'' if each.single < 1 else '   ABOVE 1 s'}"
        )


def compare_commands(peer: Peer, running: Pipeline) -> None:
    """Print how long the commands take that an operator types; the aim is five times faster."""
    program = [sys.executable, "-m", "mqi_cli", "--config", str(running.config)]
    pairs: tuple[tuple[list[str], list[str]], ...] = ((["status"], ["status"]), (["case", "list"], ["process", "list"]))
    for mine, other in pairs:
        ours = timed(lambda words=mine: subprocess.run([*program, *words], capture_output=True, check=False))  # type: ignore[misc]
        theirs = timed(lambda words=other: peer.verdi(*words, check=False))  # type: ignore[misc]
        print(
            f"mqi {' '.join(mine)} {ours:.2f} s, verdi {' '.join(other)} {theirs:.2f} s: {theirs / ours:.1f} times faster"
            f"{'' if theirs >= 5 * ours else '   BELOW 5'}"
        )


def timed(call: Callable[[], object]) -> float:
    """Return the median of some calls, in seconds."""
    taken = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def compare_idle(peer: Peer, running: Pipeline) -> None:
    """Print what both daemons take while nothing happens, at the same time."""
    time.sleep(3.0)
    groups = {"mqi": list(running.processes().values()), "AiiDA": peer.processes()}
    before = {name: sum(spent(pid)[0] for pid in pids) for name, pids in groups.items()}
    time.sleep(IDLE_SECONDS)
    memory = {name: sum(map(proportional_set_size, pids)) for name, pids in groups.items()}
    for name, pids in groups.items():
        cpu = (sum(spent(pid)[0] for pid in pids) - before[name]) / IDLE_SECONDS
        print(f"idle {name}: {memory[name] / 1e6:.0f} MB in {len(pids)} processes, {cpu:.2%} of a core")


@contextmanager
def rabbitmq(place: Path) -> Iterator[object]:
    """Run a RabbitMQ node of our own: the tests'."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers.rabbitmq import RabbitNode, find_sbin

    sbin = find_sbin()
    if sbin is None:
        sys.exit("there is no RabbitMQ here, which AiiDA needs (apt install rabbitmq-server)")
    (place / "rabbitmq").mkdir()
    node = RabbitNode(sbin, place / "rabbitmq")
    node.start()
    try:
        yield node
    finally:
        node.close()


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else CASES,
        int(sys.argv[2]) if len(sys.argv) > 2 else PEER_JOBS,
    )
