"""What the daemon takes while nothing happens: memory of all its processes together, and CPU time.

Measured after one case went through, so that every process has loaded what it works with. Memory is the proportional
set size: a page that several processes share counts once. The peer's figure is the resident memory of AiiDA's daemon
with one worker (three processes, 272 MB), measured on the machine on which this target was set.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from many_cases import CONFIG, follow, mqi, put

from mqi_cli.daemon import DaemonFiles, DaemonStatus
from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from mqi_cli.store import open_store

SECONDS = 60.0
MEMORY_LIMIT = 272e6
CPU_LIMIT = 0.01  # of one core


def main(seconds: float = SECONDS) -> None:
    """Measure an idle daemon over the embedded queue, and over RabbitMQ where there is one."""
    if find_sshd() is None:
        print("Idle daemon: left out, there is no OpenSSH server here (apt install openssh-server)")
        return
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        measure(Path(name), "embedded queue", "", seconds)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the tests' RabbitMQ: a node of our own
    try:
        from servers import rabbitmq
    except ImportError:
        print("  RabbitMQ: left out, the tests' servers need pytest (.ci/venv test)")
        return
    sbin = rabbitmq.find_sbin()
    if sbin is None:
        print("  RabbitMQ: left out, it is not installed here")
        return
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        (place / "rabbitmq").mkdir()
        node = rabbitmq.RabbitNode(sbin, place / "rabbitmq")
        node.start()
        try:
            secret = place / "secret"
            secret.write_text(node.password)
            secret.chmod(0o600)
            measure(place, "RabbitMQ", f"broker: {{url: '{node.url}', password_file: {secret}}}\n", seconds)
        finally:
            node.close()


def measure(place: Path, title: str, broker: str, seconds: float) -> None:
    """Start a daemon, let one case through, wait until it is quiet, and look for so many seconds."""
    with OpenSSHServer(place / "sshd") as server:
        section = server.host_section()
        (place / "incoming").mkdir()
        config = place / "mqi.yaml"
        text = CONFIG.format(
            port=section.port,
            user=section.user,
            key_file=section.key_file,
            known_hosts=section.known_hosts,
            base_dir=section.base_dir,
        )
        config.write_text(broker + text.replace("scanner: {interval: 1s}\n", ""))  # with the intervals as they come
        config.chmod(0o600)
        mqi(config, "daemon", "start")
        try:
            put(place, "warm-up")
            store = open_store(place / "state" / "state.db")
            follow(store, ["warm-up"])
            store.close()
            time.sleep(5)
            status = DaemonFiles(place / "state").read_status()
            assert status is not None
            report(title, status, seconds)
        finally:
            mqi(config, "daemon", "stop")


def report(title: str, status: DaemonStatus, seconds: float) -> None:
    """Print what each process of a daemon takes within some seconds."""
    pids = {"daemon": status.pid, **{each.name: each.pid for each in status.children if each.pid}}
    before = {name: spent(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    after = {name: spent(pid) for name, pid in pids.items()}
    memory = {name: proportional_set_size(pid) for name, pid in pids.items()}
    cpu = {name: (after[name][0] - before[name][0]) / seconds for name in pids}
    wakes = {name: (after[name][1] - before[name][1]) / seconds for name in pids}
    total, busy = sum(memory.values()), sum(cpu.values())
    verdict = ("" if total <= MEMORY_LIMIT else "   TOO LARGE") + ("" if busy < CPU_LIMIT else "   TOO BUSY")
    print(
        f"Idle daemon, {title}: {total / 1e6:.0f} MB ({total / MEMORY_LIMIT:.2f} of the peer's), {busy:.2%} of a core,"
        f" {sum(wakes.values()):.0f} wake-ups a second, {len(pids)} processes{verdict}"
    )
    for name in pids:
        print(f"  {name:<12} {memory[name] / 1e6:5.1f} MB {cpu[name]:7.3%} {wakes[name]:5.1f} wake-ups/s")


def proportional_set_size(pid: int) -> int:
    """Return a process's memory in bytes, pages that it shares divided by how many share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"the system does not tell the set size of process {pid}")


def spent(pid: int) -> tuple[float, int]:
    """Return a process's CPU seconds and how often it was woken, over all its threads."""
    seconds, wakes = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                wakes += int(line.split()[1])
    return seconds, wakes


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
