"""A ledger of real starts: whatever is cut, killed or restarted, two runs of one part never live at once.

Over a real SSH server, by the stage's own turns, as workers give them; on the host itself and through a real Slurm.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from exec.far_side import lines_of, processes_below
from exec.turns import Bench, Context
from mqi_cli import Done, GiveUp, HostError, RetryLater
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer
from mqi_ssh_exec import doubt
from mqi_ssh_exec.direct import Direct
from mqi_ssh_exec.slurm import Slurm
from servers.proxy import TcpProxy
from servers.slurm import SlurmCluster

FAULTS = 10
MANY_FAULTS = 200

# Whatever the command starts holds the lock while it lives. The ledger is on the disk before the work begins.
COMMAND = """\
exec 9>{place}/alive
flock -n 9 || echo overlap >>{place}/ledger
echo "start {attempt}" >>{place}/ledger
sync {place}/ledger
sleep {seconds} & (setsid sleep {seconds} &)
wait
echo "end {attempt}" >>{place}/ledger
"""

pytestmark = pytest.mark.skipif(not shutil.which("flock"), reason="flock tells whether two live at once")


class Trial:
    """One part after the other, brought to its end by turns, while something goes wrong at random."""

    def __init__(
        self,
        place: Path,
        server: OpenSSHServer,
        random: Random,
        proxy: TcpProxy,
        *,
        cluster: SlurmCluster | None = None,
    ) -> None:
        self.place = place
        self.server = server
        self.random = random
        self.proxy = proxy
        self.cluster = cluster
        self.scheduler: Direct | Slurm = Direct() if cluster is None else Slurm()
        (place / "far").mkdir()
        self.bench = Bench(place, self._host(), self.scheduler)
        self.acts: Counter[str] = Counter()
        self.faults = self.parts = self.done = 0
        self.late = False  # something of the queue is still to be started again

    def _host(self) -> SshHost:
        known = self.place / "known_hosts"
        name, key = self.server.host_key_file.with_suffix(".pub").read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{self.proxy.port} {name} {key}\n")
        section = self.server.host_section(
            base_dir=str(self.place / "far"), port=self.proxy.port, known_hosts=known, scheduler=self.scheduler.name
        )
        return SshHost("far", section, self.place)

    def restart(self) -> None:
        """Let another worker go on, which remembers nothing and has a connection of its own."""
        self.bench.host.close()
        self.bench.host = self._host()

    def go_wrong(self, ctx: Context) -> Context:
        """Do one thing that may happen."""
        self.faults += 1
        acts = ["cut up", "cut down", "reset", "drop", "worker", "kill", "kill", "early attempt"]
        act = self.random.choice([*acts, "controller", "slurmd"] if self.cluster else acts)
        self.acts[act] += 1
        if act == "drop":  # the server ends its side of every connection, as one that is restarted
            self.server.drop_connections()
        elif act in ("controller", "slurmd"):
            self.restart_queue(act)
        elif act == "cut up":
            self.proxy.cut_after(up=self.random.randint(1, 6000))
        elif act == "cut down":
            self.proxy.cut_after(down=self.random.randint(1, 6000))
        elif act == "reset":
            self.proxy.reset()
        elif act == "worker":
            self.restart()
            return self.context(ctx.attempt)
        elif act == "early attempt":  # the core has given the attempt up, and its run may live
            return self.context(ctx.attempt + 1)
        else:
            living = processes_below(self.place / "far")
            self.random.shuffle(living)
            for pid in living[: self.random.choice([1, 1, 2, len(living)])]:
                try:
                    os.kill(pid, self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                except ProcessLookupError:
                    continue
        return ctx

    def restart_queue(self, daemon: str) -> None:
        """Restart Slurm's controller, or kill the daemon of its node and start it again; now and then only later."""
        assert self.cluster
        if daemon == "controller":
            self.cluster.stop_controller()
        else:
            self.cluster.kill_slurmd()
        if self.random.random() < 0.5:
            self.late = True  # a turn comes first, which meets the gap
        else:
            self.cluster.start()

    def context(self, attempt: int) -> Context:
        """Return a turn's context for an attempt of the part in hand."""
        name = f"part{self.parts}"
        place = self.place / name
        place.mkdir(exist_ok=True)
        seconds = round(self.random.uniform(0.1, 0.8), 1)
        command = COMMAND.format(place=place, attempt=attempt, seconds=seconds)
        return self.bench.context(command, attempt=attempt, name=name)

    def one_part(self, most: int) -> None:
        """Bring a part to its end, with `most` faults at most."""
        self.parts += 1
        ctx = self.context(1)
        begun, end = self.faults, time.monotonic() + 240
        while True:
            assert time.monotonic() < end, f"part {self.parts} does not come to an end"
            if self.faults - begun < most and self.random.random() < 0.5:
                ctx = self.go_wrong(ctx)
            late, self.late = self.late, False
            try:
                outcome = self.bench.turn(ctx)
            except HostError:
                self.proxy.heal()
                continue
            except (RetryLater, GiveUp):
                ctx = self.context(ctx.attempt + 1)
                continue
            finally:
                if late and self.cluster:
                    self.cluster.start()
            if isinstance(outcome, Done):
                ledger = lines_of(self.place / f"part{self.parts}" / "ledger")
                assert f"end {ctx.attempt}" in ledger, "it counts as done, but was cut short"
                self.done += 1
                self.proxy.heal()
                return
            time.sleep(min(outcome.seconds, self.random.uniform(0, 0.3)))

    def check(self) -> None:
        """Hold the ledgers to the promise, and say what was done."""
        ledgers = [lines_of(self.place / f"part{number}" / "ledger") for number in range(1, self.parts + 1)]
        begun = sum(line.startswith("start") for ledger in ledgers for line in ledger)
        print(f"{self.parts} parts, {begun} starts, {self.faults} faults: {dict(self.acts)}")
        for ledger in ledgers:
            starts = [line for line in ledger if line.startswith("start")]
            assert "overlap" not in ledger, "two runs of one part lived at once"
            assert len(starts) == len(set(starts)), "an attempt was started twice"
        assert self.done == self.parts
        assert sum(len(ledger) for ledger in ledgers) > self.parts, "the test did too little to tell"

    def close(self) -> None:
        """End the connections."""
        self.bench.host.close()
        self.bench.end_all()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what is waited for at length on a real cluster."""
    monkeypatch.setattr(
        "mqi_ssh_exec.run.AT_ONCE", 0
    )  # a turn ends with a run on its way, so that something can go wrong
    for name, seconds in (("SETTLE_FOR", 1.0), ("LOOK_AGAIN", 0.2), ("ABSENT_FOR", 12.0)):
        monkeypatch.setattr(doubt, name, seconds)
    monkeypatch.setattr("mqi_ssh_exec.lookout.QUEUE_AGE", 0.3)
    monkeypatch.setattr("mqi_ssh_exec.run.FAULT_PAUSE", 0.3)


@pytest.fixture
def trial(request: pytest.FixtureRequest, tmp_path: Path, hasty: None) -> Iterator[Trial]:
    """A trial with a way of starting and a seed. `shell` is `direct` without the quick program."""
    del hasty
    if request.param[0] == "shell":
        request.getfixturevalue("monkeypatch").setattr("mqi_ssh_exec.quick.LARGEST_SCRIPT", -1)
    kind, seed = request.param
    server = request.getfixturevalue("login_node" if kind == "slurm" else "sshd")
    cluster = request.getfixturevalue("slurm") if kind == "slurm" else None
    with TcpProxy(server.port) as proxy:
        made = Trial(tmp_path, server, Random(seed), proxy, cluster=cluster)
        yield made
        made.close()


def play(trial: Trial, faults: int) -> None:
    while trial.faults < faults:
        trial.one_part(most=5)
    trial.check()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "trial",
    [("direct", 1), pytest.param(("shell", 5), marks=pytest.mark.soak), ("slurm", 8)],
    indirect=True,
    ids=["direct", "shell", "slurm"],
)
def test_a_few_faults_at_random_never_make_two_runs_of_one_part(trial: Trial) -> None:
    play(trial, FAULTS)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "trial", [("direct", 2), ("shell", 4), ("slurm", 3)], indirect=True, ids=["direct", "shell", "slurm"]
)
def test_200_faults_at_random_never_make_two_runs_of_one_part(trial: Trial) -> None:
    play(trial, MANY_FAULTS)
