"""How many small cases an hour's machine gets through, and how long one takes on an idle system.

Everything is real and thrown away afterwards: an OpenSSH server on loopback, the embedded queue, the daemon.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mqi_cli.case import CaseState
from mqi_cli.hosts.sshd import OpenSSHServer, find_sshd
from mqi_cli.store import Store, open_store

CASES = 40
FILES = 3
FILE_BYTES = 20_000
LIMIT = 900.0  # seconds for all

CONFIG = """\
state: {{path: state/state.db}}
hosts:
  far:
    type: ssh
    hostname: 127.0.0.1
    port: {port}
    user: {user}
    key_file: {key_file}
    known_hosts: {known_hosts}
    base_dir: {base_dir}
sources:
  - path: incoming
    complete_when: {{marker: READY}}
    workflow: all_steps
workflows:
  all_steps:
    - upload: {{host: far}}
    - run: {{host: far, command: "cp {{input_dir}}/data-0 {{work_dir}}/result", outputs: [result], poll: 500ms}}
    - download: {{host: far, from: ".", to: "results/{{case_name}}"}}
    - archive: {{to: archive}}
scanner: {{interval: 1s}}
"""


def main(cases: int = CASES) -> None:
    """Measure one case on the idle system, then many at once, and print both."""
    if find_sshd() is None:
        print("Many cases: left out, there is no OpenSSH server here (apt install openssh-server)")
        return
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as name:
        place = Path(name)
        with OpenSSHServer(place / "sshd") as server:
            section = server.host_section()
            (place / "incoming").mkdir()
            config = place / "mqi.yaml"
            config.write_text(
                CONFIG.format(
                    port=section.port,
                    user=section.user,
                    key_file=section.key_file,
                    known_hosts=section.known_hosts,
                    base_dir=section.base_dir,
                )
            )
            config.chmod(0o600)
            mqi(config, "daemon", "start")
            try:
                measure(place, cases)
            finally:
                mqi(config, "daemon", "stop")


def measure(place: Path, cases: int) -> None:
    """Put cases in and print how long they take."""
    store = open_store(place / "state" / "state.db")
    try:
        put(place, "warm-up")
        follow(store, ["warm-up"])
        put(place, "alone")
        began = time.time()
        follow(store, ["alone"])
        row = store.cases.newest("incoming", "alone")
        ended = row.ended_at if row and row.ended_at else time.time()
        print(f"One case of {FILES} files on an idle system, from complete to done: {ended - began:.1f} s")
        print("  (up to 1 s of it passes before the scan looks; upload, run, download, archive)")
        names = [f"case-{number:03d}" for number in range(cases)]
        began = time.monotonic()
        for each in names:
            put(place, each)
        follow(store, names)
        seconds = time.monotonic() - began
        print(f"{cases} cases at once: {seconds:.1f} s, {cases / seconds * 60:.0f} cases per minute")
    finally:
        store.close()


def put(place: Path, name: str) -> None:
    """Write a complete case."""
    case = place / "incoming" / name
    case.mkdir()
    for number in range(FILES):
        (case / f"data-{number}").write_bytes(f"{name} {number} ".encode() * (FILE_BYTES // len(name)))
    (case / "READY").touch()


def follow(store: Store, names: list[str]) -> None:
    """Wait until all cases are done. Ends the program when one is held, or after `LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        rows = [store.cases.newest("incoming", each) for each in names]
        for row in rows:
            if row is not None and row.state is CaseState.HELD:
                sys.exit(f"case {row.key} is held at {row.step}: {row.reason}")
        if all(row is not None and row.state is CaseState.DONE for row in rows):
            return
        time.sleep(0.1)
    sys.exit(f"not all of {len(names)} cases were done within {LIMIT:.0f} s")


def mqi(config: Path, *arguments: str) -> None:
    """Run mqi with this config; shows what it says only when it fails."""
    command = [sys.executable, "-m", "mqi_cli", "--config", str(config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mqi {' '.join(arguments)}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
