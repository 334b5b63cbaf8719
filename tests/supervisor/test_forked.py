"""A child forked from its parent is apart from it as one that is begun anew: each parent here is a program of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")

PARENT = """
import os, signal, socket, sys, threading, time
from mqi_cli.forked import fork, may_fork
ours, theirs = socket.socketpair()
secret = open(sys.argv[0])
def started(main, name="worker-1", argv=("python", "-m", "x", "worker")):
    return fork(main, name=name, argv=argv, environment={"ONLY": "this"}, keep=theirs.fileno())
def said(child):
    text = b""
    while piece := os.read(child.stdout.fileno(), 4096):
        text += piece
    return text.decode().strip()
"""


def run(tmp_path: Path, source: str) -> str:
    """Run a parent and return what it printed; a traceback of it fails the test."""
    program = tmp_path / "parent.py"
    program.write_text(PARENT + textwrap.dedent(source))
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    assert ended.returncode == 0
    return ended.stdout.strip()


def test_its_output_and_its_exit_code_reach_the_parent(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        def main():
            print("to stdout"); print("to stderr", file=sys.stderr); os.write(1, b"past python\\n"); sys.exit(7)
        child = started(main)
        print(said(child).splitlines(), child.wait())
        """,
    )

    assert said == "['to stdout', 'to stderr', 'past python'] 7"


def test_a_bug_in_it_ends_it_with_a_traceback_and_never_returns_into_the_parents_code(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        def main():
            raise ValueError("broken")
        try:
            child = started(main)
        except ValueError:
            print("the child runs its parent's code")
        print(said(child).splitlines()[-1], child.wait())
        """,
    )

    assert said == "ValueError: broken 70"


def test_it_has_its_own_group_environment_and_name_and_none_of_the_parents_files(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        def main():
            links = {int(each): os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}
            kept = [number for number, link in links.items() if number > 2 and link != "/dev/null" and not link.startswith("/proc")]
            print(kept == [theirs.fileno()], links[0], dict(os.environ), os.getpgrp() == os.getpid())
            print(open("/proc/self/comm").read().strip(), open("/proc/self/cmdline").read().rstrip(chr(0)).split(chr(0)))
        child = started(main)
        print(said(child), child.wait())
        """,
    )

    assert said.splitlines() == [
        "True /dev/null {'ONLY': 'this'} True",
        "mqi worker-1 ['python', '-m', 'x', 'worker'] 0",
    ]


def test_a_signal_ends_it_as_any_process_whatever_the_parent_does_with_it(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        signal.signal(signal.SIGTERM, lambda *_: None)
        child = started(lambda: (print("up"), time.sleep(60)))
        os.read(child.stdout.fileno(), 3)
        os.kill(child.pid, signal.SIGTERM)
        print(child.wait())
        """,
    )

    assert said == "-15"


def test_nothing_is_forked_where_another_thread_may_hold_a_lock(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        print(may_fork())
        done = threading.Event()
        threading.Thread(target=done.wait).start()
        print(may_fork())
        done.set()
        """,
    )

    assert said.split() == ["True", "False"]
