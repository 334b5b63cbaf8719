"""What the workers do with a command, and what they report: the stages of the model's workflows, in a few lines each."""

from __future__ import annotations

from typing import Any

from model import model
from model.far_side import FarSide
from model.world import HOST
from mqi_cli.message import Command, Event, EventKind, event_id

HOW = ("waits", "retry", "gives up", "bug", "host down", "other config")  # and "well": how a worker's turn ends
PARTS = (2, 1, 3)  # what a plan lists: another number at each of its attempts

Report = tuple[EventKind, dict[str, Any]]


class Turn:
    """A command in a worker's hands."""

    def __init__(self, command: Command, worker: str) -> None:
        self.command = command
        self.worker = worker
        self.told = 0

    def event(self, kind: EventKind, data: dict[str, Any]) -> Event:
        """Return the worker's next report."""
        self.told += 1
        command = self.command
        return Event(
            event_id(command.id, kind, self.told), kind, self.worker, 0.0, command.case, command.step, command.part,
            command.attempt, command.turn, data,
        )  # fmt: skip

    def perform(self, how: str, far: FarSide) -> Report:
        """Do what a stage does, and say what the worker reports."""
        command = self.command
        runs = command.step == model.JOB and not command.plan
        plain = {"reason": how, "hint": "", "after": None, "host": ""}
        match how:
            case "progress":
                return EventKind.PROGRESS, {"done": 1, "total": 2, "unit": "files"}
            case "remembers":
                return EventKind.REMEMBERED, {"facts": {self.worker: self.told}}
            case "bug":
                if runs:
                    run_turn(command, far)
                return EventKind.BUG, {"reason": "ValueError", "traceback": "somewhere"}
            case "host down" if command.step != "archive":
                return EventKind.RETRY, plain | {"host": HOST}
            case "other config":
                return EventKind.WAIT, {"seconds": 10.0, "note": "its config says otherwise"}
            case "gives up" if command.cancel:
                return EventKind.GAVE_UP, plain
        if runs:
            return run_turn(command, far)
        match how:
            case "waits":
                return EventKind.WAIT, {"seconds": 5.0, "note": "later"}
            case "retry":
                return EventKind.RETRY, plain
            case "gives up":
                return EventKind.GAVE_UP, plain
        counted = {"parts": PARTS[(command.attempt - 1) % len(PARTS)]} if command.plan else {}
        return EventKind.DONE, {"facts": {"by": self.worker} | counted}


def run_turn(command: Command, far: FarSide) -> Report:
    """Do what the stage `run` does: nothing ends it but what is proven on the far side."""
    part = (command.case, command.step, command.part)
    if command.cancel:
        far.kill(part, command.attempt)
        return EventKind.CANCELLED, {"note": "ended"}
    if not far.look(part, command.attempt) and not command.gpus:
        return EventKind.RETRY, {"reason": "it was given no GPU", "hint": "", "after": None, "host": ""}
    match far.submit(part, command.attempt, {gpu.uuid for gpu in command.gpus}):
        case "well":
            return EventKind.DONE, {"facts": {"exit": 0}}
        case "busy":
            far.kill(part, command.attempt - 1)
            return EventKind.WAIT, {"seconds": 2.0, "note": "an earlier run is ended first"}
        case "lives":
            return EventKind.WAIT, {"seconds": 5.0, "note": "it runs"}
        case "lost":
            return EventKind.RETRY, {"reason": "it vanished", "hint": "", "after": None, "host": ""}
    return EventKind.GAVE_UP, {"reason": "exit code 1", "hint": ""}
