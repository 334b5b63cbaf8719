"""Machines that share nothing but a broker: each has a directory, a home, keys and a config of its own, and a name.

Where the system allows it (root on Linux), a machine is a mount and host-name space of its own: it cannot even see the
other machines' directories, and finds the source and the results mounted at other paths than the main machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mqi_cli.hosts.sshd import OpenSSHServer
from servers.rabbitmq import RabbitNode

FILES = 3
SHARED = ("incoming", "results")

_PROGRAM = """\
#!/bin/sh
# program.sh LEDGER CASE SECONDS INPUT OUTPUT: notes its start, durably, and adds up its input
echo "$2" | dd of="$1" oflag=append conv=notrunc,fsync 2>/dev/null
sleep "$3"
cat "$4"/data-* | sha256sum >"$5"
"""

_CONFIG = """\
state: {{path: {at}/state/state.db, key_salt_file: {at}/salt}}
broker: {{url: '{url}', password_file: {at}/broker.secret, prefix: {prefix}}}
hosts:
  gpu:
    type: ssh
    hostname: 127.0.0.1
    port: {port}
    user: {user}
    key_file: {at}/key
    known_hosts: {at}/known_hosts
    base_dir: {far}
    limits: {{connections: 4, jobs: 4}}
sources:
  - {{name: scans, path: {at}/incoming, complete_when: {{marker: READY}}, workflow: sums}}
workflows:
  sums:
    - upload: {{host: gpu}}
    - run: {{host: gpu, command: "{program} {ledger} {{case_key}} {seconds} {{input_dir}} {{work_dir}}/sum", outputs: [sum], poll: 300ms}}
    - download: {{host: gpu, from: ".", to: "{at}/results/{{case_name}}"}}
scanner: {{interval: 1s}}
daemon: {{lease: 5s, retry_first: 1s, stop_within: 10s}}
workers: {{sftp: {{processes: {processes}}}, ssh-exec: {{processes: {processes}}}}}
"""


@cache
def namespaces_work() -> bool:
    """Whether this machine lets us make mount and host-name spaces."""
    tried = subprocess.run(
        ["unshare", "--uts", "--mount", "sh", "-c", "hostname box && mount -t tmpfs tmpfs /mnt"],
        capture_output=True, check=False,
    ) if shutil.which("unshare") else None  # fmt: skip
    return tried is not None and tried.returncode == 0


class Machines:
    """The main machine `main`, which has the state database and the source, and others that only have workers."""

    def __init__(self, directory: Path, server: OpenSSHServer, node: RabbitNode) -> None:
        self.directory = directory
        self.ledger = directory / "ledger"
        self.program = directory / "program.sh"
        self.program.write_text(_PROGRAM)
        self.program.chmod(0o700)
        (directory / "far").mkdir(mode=0o700)
        self.workers: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._server = server
        self._node = node

    def add(self, name: str, *, seconds: float = 0, processes: int = 0, salt: str = "the-same-salt") -> Path:
        """Make a machine: its directory with everything that it needs to know."""
        at = self.directory / name
        for each in (at, at / "home", *(at / shared for shared in SHARED)):
            each.mkdir(mode=0o700)
        if name != "main" and not namespaces_work():
            for shared in SHARED:
                (at / shared).rmdir()
                (at / shared).symlink_to(self.directory / "main" / shared)
        section = self._server.host_section()
        for source, copy in ((section.key_file, "key"), (section.known_hosts, "known_hosts")):
            shutil.copyfile(Path(str(source)), at / copy)
            (at / copy).chmod(0o600)
        (at / "broker.secret").write_text(self._node.password)
        (at / "broker.secret").chmod(0o600)
        self.configure(name, seconds=seconds, processes=processes, salt=salt)
        return at

    def configure(self, name: str, *, seconds: float = 0, processes: int = 0, salt: str = "the-same-salt") -> None:
        """Write a machine's config."""
        at, section = self.directory / name, self._server.host_section()
        (at / "salt").write_text(salt)
        (at / "salt").chmod(0o600)
        (at / "mqi.yaml").write_text(
            _CONFIG.format(
                at=at, url=self._node.url, prefix=self.directory.name, port=section.port, user=section.user,
                far=self.directory / "far", program=self.program, ledger=self.ledger, seconds=seconds,
                processes=processes,
            )
        )  # fmt: skip
        (at / "mqi.yaml").chmod(0o600)

    def drop_cases(self, count: int) -> None:
        """Put complete cases into the source."""
        for number in range(count):
            case = self.directory / "main" / "incoming" / f"case-{number:02}"
            case.mkdir()
            for file in range(FILES):
                (case / f"data-{file}").write_bytes(f"{number}:{file}".encode() * 500)
            (case / "READY").touch()

    def start_worker(self, machine: str, lane: str) -> None:
        """Run `mqi worker run LANE` on a machine."""
        at = self.directory / machine
        command = [sys.executable, "-m", "mqi_cli", "--config", str(at / "mqi.yaml"), "worker", "run", lane]
        if namespaces_work():
            main = self.directory / "main"
            mounts = [f'mount --bind "{main / shared}" "{at / shared}"' for shared in SHARED]
            steps = [f"hostname {machine}", *mounts, f'mount -t tmpfs tmpfs "{main}"', 'exec "$@"']
            command = ["unshare", "--uts", "--mount", "sh", "-c", " && ".join(steps), "sh", *command]
        with (at / f"{lane}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=at, env=self._environment(at)
            )
        self.workers.setdefault(machine, []).append(process)

    def kill(self, machine: str) -> None:
        """End a machine's workers as a power cut does."""
        for process in self.workers.pop(machine):
            process.kill()
            process.wait()

    def stop(self, machine: str) -> None:
        """End a machine's workers in good order."""
        for process in self.workers[machine]:
            process.send_signal(signal.SIGTERM)
        for process in self.workers.pop(machine):
            assert process.wait(timeout=30) == 0

    def mqi(self, *arguments: str, code: int | None = 0) -> str:
        """Run `mqi` on the main machine and return what it said."""
        at = self.directory / "main"
        done = subprocess.run(
            [sys.executable, "-m", "mqi_cli", "--config", str(at / "mqi.yaml"), *arguments],
            capture_output=True, text=True, cwd=at, stdin=subprocess.DEVNULL, env=self._environment(at), timeout=90,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"mqi {' '.join(arguments)}: {done.returncode}\n{said}"
        return done.stdout if code is not None else said

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon on the main machine."""
        self.mqi("daemon", "start")
        try:
            yield
        finally:
            self.mqi("daemon", "stop", code=None)

    def cases(self) -> list[dict[str, Any]]:
        """Return the cases as `mqi case list --json` has them."""
        found: list[dict[str, Any]] = json.loads(self.mqi("case", "list", "--all", "--json"))
        return found

    def status(self) -> dict[str, Any]:
        """Return what `mqi status --json` has."""
        found: dict[str, Any] = json.loads(self.mqi("status", "--json", code=None))
        return found

    def states(self) -> Counter[str]:
        """Count the cases in each state."""
        return Counter(each["state"] for each in self.cases())

    def starts(self) -> Counter[str]:
        """Count the starts of the program for each case."""
        return Counter(self.ledger.read_text().split()) if self.ledger.exists() else Counter()

    def stand(self) -> str:
        """Return all that helps to see why something does not happen."""
        logs = "".join(f"--- {each}\n{each.read_text()[-1500:]}" for each in sorted(self.directory.glob("*/*.log")))
        return self.mqi("status", code=None) + self.mqi("case", "list", "--all", code=None) + logs

    def close(self) -> None:
        """End what was started."""
        for machine in list(self.workers):
            self.kill(machine)

    def _environment(self, at: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return kept | {"HOME": str(at / "home"), "COLUMNS": "200"}
