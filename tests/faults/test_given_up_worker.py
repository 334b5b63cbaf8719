"""A worker that ends again and again is given up on, visibly; the others go on, and a reload tries it again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from faults.checker import Allowed, check
from faults.plant import Plant
from mqi_cli.crew import ChildState
from mqi_cli.daemon import ChildStatus, DaemonFiles
from mqi_cli.restarts import MOST_EXITS
from servers.house import wait_for

# The daemon as it is, only that it doesn't wait a minute between two starts.
_IMPATIENT = """\
from mqi_cli import restarts
restarts.FIRST_DELAY = restarts.LONGEST_DELAY = 0.02
from mqi_cli.cli.main import main
main()
"""


@contextlib.contextmanager
def impatient_daemon(plant: Plant) -> Iterator[None]:
    with (plant.directory / "daemon.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _IMPATIENT, "--config", str(plant.config), "daemon", "start", "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def archiver(plant: Plant) -> ChildStatus | None:
    daemon = DaemonFiles(plant.state).read_status()
    return next((child for child in daemon.children if child.name == "archiver-1"), None) if daemon else None


def archive_is_due(plant: Plant) -> bool:
    with plant.store() as store:
        return any(part.step == "archive" for part in store.parts.live())


def test_a_worker_that_is_given_up_on_is_told_while_the_others_go_on(plant: Plant) -> None:
    plant.configure()
    with impatient_daemon(plant):
        for _ in range(MOST_EXITS + 1):
            child = wait_for(
                lambda: (found := archiver(plant)) and found.state is ChildState.RUNNING and found,
                "the archiver to run",
                pause=0.02,
                stand=plant.stand,
            )
            os.kill(child.pid, signal.SIGKILL)
            wait_for(lambda pid=child.pid: (found := archiver(plant)) and found.pid != pid, "it to end", pause=0.02)
        plant.drop(1)
        wait_for(lambda: archive_is_due(plant), "all steps but the archive to be done", stand=plant.stand)
        said = plant.mqi("status", code=1)
        assert "DEGRADED" in said
        assert "archiver-1 does not run: fatal, killed by SIGKILL" in said
        assert said.count("archiver-1 does not run") == 1, "told once"
        assert "besides the daemon" not in said, "those that were killed are no workers any more"
        assert "-> mqi daemon logs archiver-1" in said
        assert "archiver-1" in plant.mqi("watch", "--once")
        assert json.loads(plant.mqi("status", "--json", code=1))["health"] == "degraded"

        plant.mqi("daemon", "reload")
        plant.wait_done()
        said = wait_for(lambda: "READY" in (out := plant.mqi("status", code=None)) and out, "all to be well")
        assert "all is well" in said
    check(plant, Allowed())
