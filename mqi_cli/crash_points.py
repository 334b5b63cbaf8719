"""Named places between two durable steps at which a process can be made to die: proof that none need live on.

`MQI_CRASH_AT=NAME[:N][,…]` ends the process by SIGKILL when it comes to the place for the N-th time (the first, without
a number). Where `MQI_CRASH_MARKS` names a directory, a place kills once only, whichever process comes there first, and
leaves a file of its name: processes that are started again go on, and who looks sees that the place was reached.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

AT_VARIABLE = "MQI_CRASH_AT"
MARKS_VARIABLE = "MQI_CRASH_MARKS"

POINTS = {
    "intake.taking": "a finding is applied, its transaction not committed",
    "intake.taken": "a finding is committed, the conductor's bell not rung",
    "conductor.applying": "an event is applied, its transaction not committed",
    "conductor.applied": "events are committed, their deliveries not acknowledged",
    "conductor.acknowledged": "events are acknowledged, what follows from them not sent",
    "clockwork.turning": "a part is given what its time has brought, its transaction not committed",
    "clockwork.turned": "that is committed, its command not sent",
    "relay.sending": "commands are read from the outbox, none is published",
    "relay.sent": "the broker has confirmed them, the outbox does not know",
    "relay.noted": "the outbox knows",
    "worker.taken": "a command is taken, nothing is said of it",
    "worker.accepted": "it is accepted, its delivery not acknowledged (RabbitMQ only: the embedded queue does both at once)",
    "worker.acknowledged": "its delivery is acknowledged, the work not begun",
    "worker.remembered": "a stage has remembered facts, and is not at its end",
    "worker.worked": "a stage has ended, its end is not reported",
    "worker.reported": "its end is reported",
}


def parse_points(text: str) -> dict[str, int]:
    """Read `NAME[:N],…` as names and counts. Raises `ValueError` for a name that there is not, or a count that is none."""
    found = {}
    for each in filter(None, text.split(",")):
        name, _, count = each.partition(":")
        if name not in POINTS:
            raise ValueError(f"{AT_VARIABLE} names {name}, which is no crash point; they are: {', '.join(POINTS)}")
        found[name] = int(count or 1)
    return found


_armed = parse_points(os.environ.get(AT_VARIABLE, ""))


def crash_point(name: str) -> None:
    """End this process here and now if it was asked to, without a word; nothing else."""
    if _armed:
        _come_to(name)


def _come_to(name: str) -> None:
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] > 0:
        return
    del _armed[name]
    if _mark(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _mark(name: str) -> bool:
    """Leave the place's mark; False where it was left before."""
    marks = os.environ.get(MARKS_VARIABLE)
    if marks:
        try:
            os.close(os.open(Path(marks) / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
    return True
