"""The fixture `slurm`: a real Slurm on loopback (munged, slurmctld, one slurmd) with ports, key and directories of its own.

The one compute node `node1` lives in name spaces of its own where the machine allows that (as root): its processes
have other numbers and its host another name, so that a run there is as far away as on a real cluster. Two GPUs are
files. No cgroups. One Slurm, without accounting, for each test process that asks for it, and one with accounting for the
test that does; every process of theirs ends with them.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from servers import free_port, missing

START_LIMIT = 30.0  # seconds; 2 on an idle machine
MIN_JOB_AGE = 5  # seconds after which the controller forgets a job that has ended; Slurm's own default is 300
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
_MARK = "MQI_TEST_SLURM"  # in the environment of every process of it and of its jobs
_NODE = "hostname {node}; begin() {{ {daemon} & }}; trap begin USR1; begin; while :; do sleep 1; done"
_SPACES = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
_SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def _spaces_work() -> bool:
    """Whether name spaces can be made here: that takes root, and more than a container or a chroot mostly gives it."""
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([*_SPACES, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class SlurmCluster:
    """One controller and one node. `environment` is what its commands need."""

    def __init__(
        self, directory: Path, *, accounting: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        self.directory = directory
        self._settings = settings or {}
        self._accounts = [free_port(), free_port()] if accounting else []
        self._books: list[subprocess.Popen[bytes]] = []
        self.mark = secrets.token_hex(8)
        self.conf = directory / "slurm.conf"
        self.apart = _spaces_work()
        self.node = "node1" if self.apart else socket.gethostname().split(".")[0]
        self._controller: subprocess.Popen[bytes] | None = None
        self._slurmd: subprocess.Popen[bytes] | None = None
        self._munged: subprocess.Popen[bytes] | None = None
        self._ports = free_port(), free_port()
        self._write_files()

    @property
    def small_disk(self) -> Path:
        """A file system of 4 MiB that the node sees as well; a plain directory where none can be mounted."""
        return self.directory / "small"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to talk to this Slurm and no other."""
        return {"SLURM_CONF": str(self.conf), _MARK: self.mark}

    def start(self) -> None:
        """Start what does not run, and wait until the node takes jobs."""
        munge = self.directory / "munge"
        if self._munged is None or self._munged.poll() is not None:
            self._munged = self._run(
                "munged", "--foreground", "--force", "--num-threads=2", f"--key-file={munge / 'key'}",
                f"--socket={munge / 'socket'}", f"--pid-file={munge / 'pid'}", f"--log-file={munge / 'log'}",
                f"--seed-file={munge / 'seed'}",
            )  # fmt: skip
            _wait((munge / "socket").exists, "munged")
        if self._accounts and not self._books:
            self._open_books()
        self.start_controller()
        self.start_node()
        _wait(self._ready, "the node", on_failure=self._logs)

    def start_controller(self) -> None:
        """Start the controller; it finds its jobs again."""
        if self._controller is None or self._controller.poll() is not None:
            self._controller = self._run("slurmctld", "-D", "-i", "-f", str(self.conf))

    def start_node(self) -> None:
        """Start the node, or its daemon where that alone was killed."""
        if self._slurmd is not None and self._slurmd.poll() is None:
            if self.apart and not self._daemons():
                children = Path(f"/proc/{self._slurmd.pid}/task/{self._slurmd.pid}/children").read_text()
                os.kill(int(children.split()[0]), signal.SIGUSR1)
            return
        daemon = f"slurmd -D -N {self.node} -f {self.conf}"
        if not self.apart:
            self._slurmd = self._run("slurmd", *daemon.split()[1:])
            return
        # The shell is process 1 of the name space: it stays, and collects what slurmd's own children leave behind.
        self._slurmd = self._run(*_SPACES, "sh", "-c", _NODE.format(node=self.node, daemon=daemon))

    def stop_controller(self) -> None:
        """End the controller in good order: it saves what it knows."""
        if self._controller is not None:
            self._controller.terminate()
            self._controller.wait(timeout=START_LIMIT)

    def crash_node(self) -> None:
        """End the node with all that runs on it, as a power cut would."""
        self._slurmd = _ended(self._slurmd)
        if not self.apart:
            for pid in self._marked() - self._servers():
                _kill(pid)

    def kill_slurmd(self) -> None:
        """End the node's daemon alone by force; its jobs go on."""
        for pid in self._daemons():
            _kill(pid)
        _wait(lambda: not self._daemons(), "slurmd to end")

    def call(self, *argv: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(argv, env=self._environment(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{argv[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self) -> list[tuple[str, str]]:
        """Return the name and state of each job that the controller knows."""
        lines = self.call("squeue", "--noheader", "--states=all", "--format=%j|%T").splitlines()
        return sorted((line.split("|")[0], line.split("|")[1]) for line in lines)

    def clear(self) -> None:
        """Cancel whatever is in the queue and wait until it is gone."""
        self.call("scancel", f"--user={getpass.getuser()}")
        _wait(lambda: not self.call("squeue", "--noheader"), "the queue to be empty", on_failure=self._logs)

    def close(self) -> None:
        """End all of it, its jobs among it, and remove its files."""
        for each in (self._slurmd, self._controller, *self._books, self._munged):
            _ended(each)
        end = time.monotonic() + START_LIMIT
        while pids := self._marked():
            assert time.monotonic() < end, "something of Slurm can't be ended"
            for pid in pids:
                _kill(pid)
            time.sleep(0.05)
        if self.small_disk.is_mount():
            subprocess.run(("umount", "-l", self.small_disk), check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write_files(self) -> None:
        at = self.directory
        for name in ("state", "spool", "munge", "gpu", "small"):
            (at / name).mkdir(mode=0o755)
        if self.apart:  # now: what is mounted later is not seen in the node's name space
            mount = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.small_disk))
            subprocess.run(mount, check=False, capture_output=True)
        at.chmod(0o755)
        (at / "munge" / "key").write_bytes(secrets.token_bytes(128))
        (at / "munge" / "key").chmod(0o600)
        for number in range(2):
            (at / "gpu" / f"gpu{number}").touch()
        host, user = socket.gethostname().split(".")[0], getpass.getuser()
        lines = {
            "ClusterName": "mqi", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmUser": user, "SlurmdUser": user,
            "SlurmctldPort": self._ports[0], "SlurmdPort": self._ports[1], "AuthType": "auth/munge",
            "AuthInfo": f"socket={at / 'munge' / 'socket'}", "CredType": "cred/munge",
            "StateSaveLocation": at / "state", "SlurmdSpoolDir": at / "spool", "SlurmctldPidFile": at / "controller.pid",
            "SlurmdPidFile": at / "slurmd.pid", "SlurmctldLogFile": at / "controller.log",
            "SlurmdLogFile": at / "slurmd.log", "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "MpiDefault": "none", "SwitchType": "switch/none", "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory", "SchedulerType": "sched/builtin", "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_interval=1,batch_sched_delay=0,sched_min_interval=10000",
            "ReturnToService": 2, "MinJobAge": MIN_JOB_AGE, "KillWait": 3, "SlurmdTimeout": 4, "SlurmctldTimeout": 6,
            "MessageTimeout": 2, "BatchStartTimeout": 5, "CompleteWait": 0, "InactiveLimit": 0, "GresTypes": "gpu",
            "MailProg": "/bin/true", "DefMemPerCPU": 10, "PreemptType": "preempt/partition_prio", "PreemptMode": "CANCEL",
            **self._settings,
        }  # fmt: skip
        self.conf.write_text(
            "".join(f"{name}={value}\n" for name, value in lines.items())
            + f"NodeName={self.node} NodeHostname={self.node} NodeAddr=127.0.0.1 CPUs=64 RealMemory=4096 Gres=gpu:2\n"
            + f"PartitionName=main Nodes={self.node} Default=YES MaxTime=INFINITE State=UP\n"
            + f"PartitionName=urgent Nodes={self.node} MaxTime=INFINITE State=UP PriorityTier=10\n"
            + f"PartitionName=brief Nodes={self.node} MaxTime=1 DefaultTime=1 State=UP\n"
            + f"PartitionName=closed Nodes={self.node} State=DOWN\n"
        )
        if self._accounts:
            with self.conf.open("a") as conf:
                conf.write(
                    f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                    f"AccountingStoragePort={self._accounts[0]}\nAccountingStoragePass={at / 'munge' / 'socket'}\n"
                )
        (at / "gres.conf").write_text(f"NodeName={self.node} Name=gpu File={at}/gpu/gpu[0-1]\n")

    def _open_books(self) -> None:
        """Start a MariaDB and slurmdbd, and tell it of this cluster."""
        at, (port, database_port), user = self.directory, self._accounts, getpass.getuser()
        data, sock = at / "database", at / "database.sock"
        argv = ("mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user}", "--skip-test-db")
        subprocess.run([*argv, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        self._books.append(
            self._run(
                "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}", f"--socket={sock}",
                f"--port={database_port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M",
            )
        )  # fmt: skip
        grant = "create user s@'127.0.0.1' identified by 's'; grant all on accounts.* to s@'127.0.0.1'"
        client = ("mariadb", "--no-defaults", f"--socket={sock}", "-u", "root", "-e")
        _wait(lambda: sock.exists() and self._does(*client, "select 1"), "MariaDB", on_failure=self._logs)
        assert self._does(*client, f"create database accounts; {grant}")
        conf = at / "slurmdbd.conf"
        conf.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={at / 'munge' / 'socket'}\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
            f"DbdPort={port}\nSlurmUser={user}\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={database_port}\nStorageUser=s\nStoragePass=s\nStorageLoc=accounts\nPidFile={at / 'dbd.pid'}\n"
        )
        conf.chmod(0o600)
        self._books.append(self._run("slurmdbd", "-D"))
        _wait(lambda: self._does("sacctmgr", "-n", "show", "cluster"), "slurmdbd", on_failure=self._logs)
        self.call("sacctmgr", "-i", "add", "cluster", "mqi")

    def _does(self, *argv: str) -> bool:
        return (
            subprocess.run(argv, env=self._environment(), capture_output=True, timeout=60, check=False).returncode == 0
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": _SEARCH, "HOME": str(self.directory), "LANG": "C.UTF-8", **self.environment}

    def _run(self, *argv: str) -> subprocess.Popen[bytes]:
        # Whatever becomes of the tests' own process, nothing of it is left.
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *argv), env=self._environment(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _ready(self) -> bool:
        argv = ("sinfo", "--noheader", "--format=%T", "--partition=main")
        done = subprocess.run(argv, env=self._environment(), capture_output=True, text=True, timeout=60, check=False)
        state = done.stdout.strip()
        if state.startswith(("down", "drain")) and not state.endswith("*"):  # what a test did to it
            self.call("scontrol", "update", f"nodename={self.node}", "state=resume")
        return state in ("idle", "mixed", "allocated")

    def _logs(self) -> str:
        return "\n".join(
            (self.directory / name).read_text(errors="replace")[-1500:]
            for name in ("output", "controller.log", "slurmd.log")
            if (self.directory / name).exists()
        )

    def _daemons(self) -> list[int]:
        found = []
        for pid in self._marked():
            with contextlib.suppress(OSError):
                comm, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(") ")
                if comm.endswith("(slurmd") and rest[0] not in "ZX":
                    found.append(pid)
        return found

    def _servers(self) -> set[int]:
        return {each.pid for each in (self._controller, self._munged) if each is not None}

    def _marked(self) -> set[int]:
        line = f"{_MARK}={self.mark}".encode()
        found = set()
        for each in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if line in each.read_bytes().split(b"\0"):
                    found.add(int(each.parent.name))
        return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(timeout=30)


def _wait(condition: Callable[[], object], what: str, *, on_failure: Callable[[], str] = lambda: "") -> None:
    limit = time.monotonic() + START_LIMIT
    while not condition():
        assert time.monotonic() < limit, f"waited {START_LIMIT:.0f} s for {what}: {on_failure()}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def _slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    for program in PROGRAMS:
        if shutil.which(program, path=_SEARCH) is None:
            missing("Slurm", package="slurm-wlm and munge")
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def slurm_with_accounts(tmp_path: Path) -> Iterator[SlurmCluster]:
    """A Slurm of this test alone, with accounting in a MariaDB of its own."""
    for program in (*PROGRAMS, "slurmdbd", "mariadbd", "mariadb-install-db", "mariadb"):
        if shutil.which(program, path=_SEARCH) is None:
            missing("Slurm's accounting", package="slurmdbd, mariadb-server-core and mariadb-client-core")
    (tmp_path / "slurm").mkdir()
    cluster = SlurmCluster(tmp_path / "slurm", accounting=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def slurm_that_counts_memory(tmp_path: Path, _slurm_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """A Slurm of this test alone that looks each second what a job takes, and ends one that takes more than it asked for.

    It does that without cgroups, and its own word for it is not OUT_OF_MEMORY: `FAILED`, `JobLaunchFailure`, 0:9.
    """
    del _slurm_cluster  # which says what is missing
    (tmp_path / "slurm").mkdir()
    cluster = SlurmCluster(
        tmp_path / "slurm",
        settings={
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherParams": "OverMemoryKill",
            "JobAcctGatherFrequency": "task=1",
        },
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def slurm(_slurm_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """A running Slurm with an empty queue, shared by the tests of this process. Its parts may be killed."""
    _slurm_cluster.start()
    yield _slurm_cluster
    _slurm_cluster.start()
    _slurm_cluster.clear()
