"""An AiiDA of its own for the comparison: installed from PyPI, with a profile, two computers and a running daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mqi_cli.hosts.sshd import OpenSSHServer

ENVIRONMENT = Path(__file__).parents[1] / ".bench" / "aiida"
REQUIREMENT = "aiida-core>=2.9,<3"
WORKERS = int(os.environ.get("BENCH_AIIDA_WORKERS", "1"))
SETTINGS = (
    f"core.sqlite_dos storage, {WORKERS} daemon worker(s), safe interval 0, minimum job poll interval 0, core.direct"
)


@dataclass(frozen=True)
class Peer:
    """A running AiiDA. `transports` are the ways to the host that it is measured with."""

    version: str
    environment: dict[str, str]
    transports: tuple[str, ...] = ("core.ssh", "core.ssh_async")

    def verdi(self, *arguments: str, check: bool = True) -> str:
        """Run `verdi`; return what it prints. Ends the program where it fails."""
        done = subprocess.run(
            [ENVIRONMENT / "bin" / "verdi", *arguments],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode:
            sys.exit(f"verdi {' '.join(arguments[:4])}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def script(self, *arguments: str) -> str:
        """Run our script in AiiDA's environment."""
        done = subprocess.run(
            [ENVIRONMENT / "bin" / "python", Path(__file__).with_name("aiida_peer.py"), *arguments],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"AiiDA: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def run(self, transport: str, count: int) -> float:
        """Run so many jobs; return the seconds from the first submission to the last end."""
        found = json.loads(self.script("run", transport, str(count)).splitlines()[-1])
        if found["good"] != count:
            sys.exit(f"AiiDA, {transport}: {found['good']} of {count} jobs ended well")
        return float(found["seconds"])

    def processes(self) -> list[int]:
        """Return the process ids of its daemon."""
        (file,) = Path(self.environment["AIIDA_PATH"]).rglob("circus-*.pid")
        found = [int(file.read_text())]
        for pid in found:  # grows while it is gone through
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    @classmethod
    @contextmanager
    def running(cls, place: Path, server: OpenSSHServer, node: Any) -> Iterator[Peer]:
        """Install AiiDA where that is not done yet, set it up over a server and a RabbitMQ node, and run its daemon."""
        install()
        home = place / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        environment = {
            **os.environ,
            "HOME": str(home),
            "AIIDA_PATH": str(home),
            "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTHONWARNINGS": "ignore",
        }
        peer = cls("", environment)
        peer = cls(peer.verdi("--version").split()[-1], environment)
        peer._profile(place, node)
        for transport in peer.transports:
            peer._computer(transport, home, server)
        peer.verdi("daemon", "start", str(WORKERS))
        try:
            yield peer
        finally:
            peer.verdi("daemon", "stop", check=False)

    def _profile(self, place: Path, node: Any) -> None:
        self.verdi(
            "profile", "setup", "core.sqlite_dos", "-n", "--profile-name", "bench", "--set-as-default",
            "--email", "bench@example.org", "--first-name", "a", "--last-name", "b", "--institution", "c",
            "--broker", "none", "--filepath", str(place / "storage"),
        )  # fmt: skip
        self.verdi(
            "profile", "configure-broker", "core.rabbitmq", "-n", "-f", "--broker-protocol", "amqp",
            "--broker-username", node.user, "--broker-password", node.password, "--broker-host", "127.0.0.1",
            "--broker-port", str(urlsplit(node.url).port), "--broker-virtual-host", "",
        )  # fmt: skip

    def _computer(self, transport: str, home: Path, server: OpenSSHServer) -> None:
        hostname = "far" if transport == "core.ssh_async" else "127.0.0.1"
        self.verdi(
            "computer", "setup", "-n", "-L", transport, "-H", hostname, "-T", transport, "-S", "core.direct",
            "-w", str(server.base_dir), "--mpiprocs-per-machine", "1", "--mpirun-command", "", "-D", "bench",
        )  # fmt: skip
        common = ("-n", "--safe-interval", "0", "--no-use-login-shell")
        if transport == "core.ssh_async":  # which takes everything from the SSH client's own config
            lines = (
                "Host far", "HostName 127.0.0.1", f"Port {server.port}", f"User {server.user}",
                f"IdentityFile {server.key_file}", f"UserKnownHostsFile {server.known_hosts}",
            )  # fmt: skip
            (home / ".ssh" / "config").write_text("\n  ".join(lines) + "\n")
            self.verdi("computer", "configure", transport, transport, *common, "--host", "far", "--max-io-allowed", "8")
        else:
            self.verdi(
                "computer", "configure", transport, transport, *common, "--username", server.user, "--port",
                str(server.port), "--key-filename", str(server.key_file), "--key-policy", "AutoAddPolicy",
                "--no-look-for-keys", "--no-allow-agent",
            )  # fmt: skip
        self.script("set-up", transport)


def install() -> None:
    """Make AiiDA's environment; nothing to do when it is there."""
    if (ENVIRONMENT / "bin" / "verdi").exists():
        return
    print(f"installing {REQUIREMENT} into {ENVIRONMENT} …", flush=True)
    venv.create(ENVIRONMENT, with_pip=True)
    subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", REQUIREMENT], check=True)
