"""What the daemon tells of itself, and how often."""

from __future__ import annotations

import dataclasses

from mqi_cli.announce import Announcer
from mqi_cli.crew import ChildState
from mqi_cli.daemon import ChildStatus, DaemonFiles, DaemonStatus, decode_status
from mqi_cli.notify import Notifier
from supervisor.bench import ShiftedClock

CHILD = ChildStatus("sftp-1", ChildState.RUNNING, 7, 0, 1.0, "", None, None, 1)
STATUS = DaemonStatus(1, "0", None, "", 1.0, "running", True, 0, "", (CHILD,))


class Spoken(Notifier):
    """Keeps what systemd would hear."""

    def __init__(self) -> None:
        super().__init__({})
        self.said: list[str] = []

    def _send(self, text: str) -> None:
        self.said.append(text.splitlines()[0])


def test_news_are_told_at_once_and_mere_memory_now_and_then(files: DaemonFiles) -> None:
    clock, spoken = ShiftedClock(), Spoken()
    announcer = Announcer(files, spoken, clock)
    announcer.tell(dataclasses.replace(STATUS, ready=False, state="starting"))
    announcer.tell(STATUS)
    grown = dataclasses.replace(STATUS, children=(dataclasses.replace(CHILD, memory=2),))
    announcer.tell(grown)
    assert decode_status(files.status.read_text()) == STATUS
    clock.offset += 5.0
    announcer.tell(grown)
    assert decode_status(files.status.read_text()) == grown
    announcer.tell(dataclasses.replace(grown, state="stopping"))
    announcer.tell(dataclasses.replace(grown, state="stopping", children=()))
    assert spoken.said == ["READY=1", "STOPPING=1"]


def test_a_status_that_could_not_be_written_is_written_later_and_told_only_once(files: DaemonFiles) -> None:
    clock, spoken = ShiftedClock(), Spoken()
    announcer = Announcer(files, spoken, clock)
    files.status.mkdir()  # stands in the way, as a full disk would
    announcer.tell(STATUS)
    announcer.tell(STATUS)
    files.status.rmdir()
    clock.offset += 5.0
    announcer.tell(STATUS)
    assert decode_status(files.status.read_text()) == STATUS
    assert spoken.said == ["READY=1"]
    assert [path.name for path in files.status.parent.iterdir()] == ["daemon.json"]
