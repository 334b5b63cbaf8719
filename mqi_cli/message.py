"""The two messages: a command to a lane and an event to the conductor. Frozen, versioned, checked strictly both ways.

They hold ids, numbers and short sentences: no path, no shell text, no case name. A command tells a worker *which*
attempt of which part to work on; source, host and command line are looked up in the worker's own config.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TypeVar

from mqi_cli.case import KEY_PATTERN
from mqi_cli.earlier import MAX_PARTS as MAX_PARTS
from mqi_cli.earlier import Earlier as Earlier
from mqi_cli.earlier import Facts as Facts
from mqi_cli.earlier import JSONValue as JSONValue
from mqi_cli.earlier import packed, unpacked
from mqi_cli.layout import OWNER_PATTERN

VERSION = 1
MAX_BYTES = 64 * 1024  # RabbitMQ 4.3 takes 16 MiB; ids never need more than this
MAX_FACTS_BYTES = 4 * 1024
EVENTS_LANE = "conductor"

_NAMESPACE = uuid.UUID("7d1c56f2-6a5b-5d0e-9a3e-1f0b3c2d4e5f")

_T = TypeVar("_T")
_V = TypeVar("_V")


class MessageError(ValueError):
    """A message that cannot be read, with the reason: it belongs among the dead letters."""


@dataclass(frozen=True)
class GpuLease:
    """One GPU that a part may use. `index` is what the driver calls it today; `uuid` is who it is."""

    uuid: str
    index: int


@dataclass(frozen=True)
class Command:
    """Asks a lane to work on one turn of one attempt.

    An attempt is one try. Each time its stage is called for it (first, after a `Wait`, after a worker was lost) is a
    turn; attempt and turn together are the fence: an event of an older pair changes nothing.
    """

    id: str
    lane: str
    case: str
    revision: int
    source: str
    fingerprint: str
    workflow: str
    step: str
    part: str
    attempt: int
    turn: int
    cancel: bool = False  # the part is to be ended on its host rather than worked on
    plan: bool = False  # the step's parts are to be listed
    facts: Facts = field(default_factory=dict)
    gpus: tuple[GpuLease, ...] = ()
    earlier: tuple[Earlier, ...] = ()
    digest: str = ""  # of what the conductor's config says of the step
    owner: str = ""  # the installation's mark: part of the case's directory's name on hosts
    at: float = 0.0  # the conductor's wall time; 0 where a former version wrote it


class EventKind(StrEnum):
    """What an event tells: how a turn goes on or ended, how a worker is, or only that there is something to look at."""

    ACCEPTED = "accepted"
    PROGRESS = "progress"  # data: done, total, unit, note (a few words, without names); renews the lease
    REMEMBERED = "remembered"  # data: facts
    DONE = "done"  # data: facts
    WAIT = "wait"  # data: seconds, note
    RETRY = "retry"  # data: reason, hint, after, host ("" or the host that is at fault), full (its disk or quota is)
    GAVE_UP = "gave_up"  # data: reason, hint
    BUG = "bug"  # data: reason, traceback
    CANCELLED = "cancelled"  # data: note; the part is proven ended on its host
    ALIVE = "alive"  # a worker's sign of life; data: lane, pid, machine, started, busy, trouble, leaving
    WAKE = "wake"  # something was written to the state database: look now rather than at the next tick


TURN_ENDS = frozenset(
    {EventKind.DONE, EventKind.WAIT, EventKind.RETRY, EventKind.GAVE_UP, EventKind.BUG, EventKind.CANCELLED}
)
ABOUT_WORKERS = frozenset({EventKind.ALIVE, EventKind.WAKE})


@dataclass(frozen=True)
class Event:
    """Tells the conductor what became of a turn. `at` is the worker's wall time, for show only."""

    id: str
    kind: EventKind
    worker: str
    at: float
    case: str = ""
    step: str = ""
    part: str = ""
    attempt: int = 0
    turn: int = 0
    data: Facts = field(default_factory=dict)


def command_id(case: str, step: str, part: str, attempt: int, turn: int) -> str:
    """Derive a command's id: written again after a crash, it is the same message again."""
    return str(uuid.uuid5(_NAMESPACE, f"{case}:{step}:{part}:{attempt}:{turn}"))


def event_id(command: str, kind: EventKind, number: int) -> str:
    """Derive the id of the `number`-th event of a kind that answers a command."""
    return f"{command}:{kind}:{number}"


def encode(message: Command | Event) -> bytes:
    """Return the message as JSON. Raises `MessageError` where it is too large or holds what JSON cannot carry."""
    body: dict[str, JSONValue] = {"v": VERSION, "type": type(message).__name__.lower()}
    for each in fields(message):
        body[each.name] = _plain(getattr(message, each.name))
    if isinstance(message, Command):
        body["earlier"] = packed(message.earlier)
    try:
        data = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise MessageError(f"not expressible as JSON: {error}") from error
    if len(data) > MAX_BYTES:
        raise MessageError(f"{len(data)} bytes, the limit is {MAX_BYTES}")
    return data


def decode(data: bytes) -> Command | Event:
    """Read a message. Raises `MessageError` with the reason for anything that is not exactly one of ours."""
    if len(data) > MAX_BYTES:
        raise MessageError(f"{len(data)} bytes, the limit is {MAX_BYTES}")
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError("not JSON") from error
    if not isinstance(body, dict):
        raise MessageError("not a JSON object")
    if body.pop("v", None) != VERSION:
        raise MessageError("an unknown version of the message format")
    kind = body.pop("type", None)
    if kind == "command":
        return _Reader(body).command()
    if kind == "event":
        return _Reader(body).event()
    raise MessageError("an unknown kind of message")


def _plain(value: JSONValue) -> JSONValue:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, GpuLease):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Reader:
    """Takes the fields of one message out of a JSON object, each once, and refuses what is left."""

    def __init__(self, body: Mapping[str, JSONValue]) -> None:
        self._body = dict(body)

    def command(self) -> Command:
        command = Command(
            id=self._text("id"),
            lane=self._text("lane"),
            case=self._key(),
            revision=self._whole("revision"),
            source=self._text("source", empty=True),
            fingerprint=self._text("fingerprint", empty=True),
            workflow=self._text("workflow", empty=True),
            step=self._text("step"),
            part=self._text("part", empty=True),
            attempt=self._whole("attempt", least=1),
            turn=self._whole("turn", least=1),
            cancel=self._take("cancel", bool),
            # absent in what a version without fan-out has left in a queue: an upgrade refuses nothing
            plan=self._take("plan", bool) if "plan" in self._body else False,
            facts=self._object("facts"),
            gpus=tuple(_Reader(each).gpu() for each in self._objects("gpus")),
            earlier=tuple(record for each in self._objects("earlier") for record in _Reader(each).earlier()),
            digest=self._text("digest", empty=True),
            owner=self._owner() if "owner" in self._body else "",  # absent as `plan` is
            at=self._number("at") if "at" in self._body else 0.0,
        )
        return self._finished(command)

    def event(self) -> Event:
        name = self._text("kind")
        try:
            kind = EventKind(name)
        except ValueError:
            raise MessageError("an unknown kind of event") from None
        about_worker = kind in ABOUT_WORKERS
        event = Event(
            id=self._text("id"),
            kind=kind,
            worker=self._text("worker"),
            at=self._number("at"),
            case=self._text("case", empty=True) if about_worker else self._key(),
            step=self._text("step", empty=about_worker),
            part=self._text("part", empty=True),
            attempt=self._whole("attempt", least=0 if about_worker else 1),
            turn=self._whole("turn", least=0 if about_worker else 1),
            data=self._object("data"),
        )
        return self._finished(event)

    def gpu(self) -> GpuLease:
        return self._finished(GpuLease(uuid=self._text("uuid"), index=self._whole("index")))

    def earlier(self) -> list[Earlier]:
        step = self._text("step")
        if "attempts" not in self._body:
            part, attempt = self._text("part", empty=True), self._whole("attempt", least=1)
            return self._finished([Earlier(step, part, attempt, self._object("facts"))])
        first, attempts = self._whole("first", least=1), self._take("attempts", list)
        try:
            return self._finished(unpacked(step, first, attempts))
        except ValueError as error:
            raise MessageError(f"the finished parts of a step: {error}") from error

    def _finished(self, message: _T) -> _T:
        if self._body:
            raise MessageError(f"unknown fields: {', '.join(sorted(self._body))[:100]}")
        return message

    def _take(self, name: str, kind: type[_V]) -> _V:
        if name not in self._body:
            raise MessageError(f"the field {name} is missing")
        value = self._body.pop(name)
        if type(value) is not kind:
            raise MessageError(f"the field {name} is not of type {kind.__name__}")
        return value

    def _text(self, name: str, *, empty: bool = False) -> str:
        value = self._take(name, str)
        if not value and not empty:
            raise MessageError(f"the field {name} is empty")
        return value

    def _key(self) -> str:
        value = self._text("case")
        if not KEY_PATTERN.match(value):
            raise MessageError("the field case is not a case key")
        return value

    def _owner(self) -> str:
        value = self._text("owner", empty=True)
        if not OWNER_PATTERN.match(value):
            raise MessageError("the field owner is not an installation's mark")
        return value

    def _whole(self, name: str, *, least: int = 0) -> int:
        value = self._take(name, int)
        if value < least:
            raise MessageError(f"the field {name} is below {least}")
        return value

    def _number(self, name: str) -> float:
        value = self._body.pop(name, None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise MessageError(f"the field {name} is not a number")
        return float(value)

    def _object(self, name: str) -> dict[str, JSONValue]:
        value: dict[str, JSONValue] = self._take(name, dict)
        return value

    def _objects(self, name: str) -> list[dict[str, JSONValue]]:
        values: list[JSONValue] = self._take(name, list)
        if not all(isinstance(each, dict) for each in values):
            raise MessageError(f"the field {name} is not a list of objects")
        return values
