"""Messages: what goes in comes out, and whatever is not exactly one of ours is refused with a reason."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqi_cli.message import (
    MAX_BYTES,
    Command,
    Earlier,
    Event,
    EventKind,
    GpuLease,
    MessageError,
    command_id,
    decode,
    encode,
    event_id,
)

KEY = "cabcdefgh23"
COMMAND = Command(
    id=command_id(KEY, "run", "", 2, 3), lane="ssh-exec", case=KEY, revision=1, source="in", fingerprint="f" * 64,
    workflow="qa", step="run", part="", attempt=2, turn=3, cancel=True, facts={"submitted": 2, "ä": [None, 1.5]},
    gpus=(GpuLease("GPU-0", 0), GpuLease("GPU-1", 1)), earlier=(Earlier("upload", "", 1, {"files": 223}),), owner="0a1b2c",
    at=1.5,
)  # fmt: skip
EVENT = Event(event_id(COMMAND.id, EventKind.DONE, 1), EventKind.DONE, "w1", 12.5, KEY, "run", "", 2, 3, {"facts": {}})


def changed(message: Command | Event, **fields: Any) -> bytes:
    """Return a message with some of its JSON fields changed; `...` takes one out."""
    body = {**json.loads(encode(message)), **fields}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


@pytest.mark.parametrize("message", [COMMAND, EVENT, Event("x", EventKind.ALIVE, "w1", 1.0, data={"lane": "sftp"})])
def test_a_message_comes_out_as_it_went_in(message: Command | Event) -> None:
    assert decode(encode(message)) == message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    facts=st.dictionaries(st.text(max_size=9), JSON, max_size=5),
    attempt=st.integers(1, 10**6),
    part=st.text(max_size=9),
)
def test_any_facts_come_out_as_they_went_in(facts: dict[str, Any], attempt: int, part: str) -> None:
    message = replace(COMMAND, facts=facts, attempt=attempt, part=part)

    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("message", "fields", "reason"),
    [
        (COMMAND, {"path": "/etc"}, "unknown fields: path"),
        (COMMAND, {"v": 2}, "unknown version"),
        (COMMAND, {"v": ...}, "unknown version"),
        (COMMAND, {"type": "order"}, "unknown kind of message"),
        (COMMAND, {"attempt": ...}, "attempt is missing"),
        (COMMAND, {"attempt": True}, "attempt is not of type int"),
        (COMMAND, {"attempt": 1.0}, "attempt is not of type int"),
        (COMMAND, {"attempt": 0}, "attempt is below 1"),
        (COMMAND, {"cancel": 1}, "cancel is not of type bool"),
        (COMMAND, {"case": "RP.1.2.840"}, "not a case key"),
        (COMMAND, {"case": KEY + "\n"}, "not a case key"),
        (COMMAND, {"owner": "../x"}, "not an installation's mark"),
        (COMMAND, {"owner": "0a1b2c\n"}, "not an installation's mark"),
        (COMMAND, {"step": ""}, "step is empty"),
        (COMMAND, {"facts": []}, "facts is not of type dict"),
        (COMMAND, {"gpus": ["GPU-0"]}, "gpus is not a list of objects"),
        (COMMAND, {"gpus": [{"uuid": "GPU-0", "index": 0, "name": "x"}]}, "unknown fields: name"),
        (EVENT, {"kind": "exploded"}, "unknown kind of event"),
        (EVENT, {"at": True}, "at is not a number"),
        (EVENT, {"turn": 0}, "turn is below 1"),
    ],
)  # fmt: skip
def test_what_is_not_exactly_ours_is_refused_with_a_reason(
    message: Command | Event, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MessageError, match=reason):
        decode(changed(message, **fields))


def test_a_command_that_an_earlier_version_left_in_a_queue_is_understood() -> None:
    assert decode(changed(COMMAND, plan=..., owner=..., at=...)) == replace(COMMAND, owner="", at=0.0)


@given(
    st.lists(
        st.builds(
            Earlier,
            st.sampled_from(["run", "simulate"]),
            st.integers(-1, 600).map(str) | st.sampled_from(["", "01", "²", "x"]),
            st.integers(1, 3) | st.integers(1, 10**6),
            st.just({}) | st.just({"files": 1}),
        ),
        max_size=20,
    )
    | st.builds(
        lambda first, attempts: [Earlier("run", str(first + n), each) for n, each in enumerate(attempts)],
        st.integers(0, 499),
        st.lists(st.integers(1, 3), max_size=40),
    )
)
def test_whatever_earlier_steps_left_comes_out_as_it_went_in(earlier: list[Earlier]) -> None:
    message = replace(COMMAND, earlier=tuple(earlier))

    assert decode(encode(message)) == message


def test_the_finished_parts_of_a_step_take_little_room() -> None:
    parts = tuple(Earlier("simulate", str(number), 1 + (number == 7)) for number in range(1, 501))
    short = {"step": "simulate", "first": 1, "attempts": [[1, 6], 2, [1, 493]]}

    assert json.loads(encode(replace(COMMAND, earlier=parts)))["earlier"] == [short]


def test_twelve_steps_of_500_parts_with_as_many_different_numbers_of_tries_fit() -> None:
    steps = [f"a-step-with-a-rather-long-name-{number}" for number in range(10, 22)]
    plan = {"parts": 500, "plan": "0" * 32, "passed_over": 100_000}
    earlier = [
        Earlier(step, str(number or ""), 1000 - number, {} if number else plan)
        for step in steps
        for number in range(501)
    ]

    assert len(encode(replace(COMMAND, earlier=tuple(earlier)))) < MAX_BYTES / 2


def test_parts_that_an_earlier_version_wrote_out_one_by_one_are_understood() -> None:
    written = [{"step": "simulate", "part": str(number), "attempt": 1, "facts": {}} for number in range(1, 4)]

    command = decode(changed(COMMAND, earlier=written))

    assert isinstance(command, Command)
    assert command.earlier == tuple(Earlier("simulate", str(number), 1) for number in range(1, 4))


@pytest.mark.parametrize(
    "short",
    [
        {"first": 0, "attempts": [1]},
        {"first": 1, "attempts": []},
        {"first": 1, "attempts": [0]},
        {"first": 1, "attempts": [True]},
        {"first": 1, "attempts": [[1, 0]]},
        {"first": 1, "attempts": [[1, 2, 3]]},
        {"first": 1, "attempts": [[1, 10**12]]},
        {"first": 499, "attempts": [1, 1, 1]},
        {"first": 1, "attempts": [1], "part": "1"},
        {"first": 1, "attempts": {}},
        {"attempts": [1]},
    ],
)
def test_parts_that_are_not_exactly_ours_are_refused(short: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode(changed(COMMAND, earlier=[{"step": "run", **short}]))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_does_not_know_is_refused(word: str) -> None:
    body = encode(EVENT).replace(b'"at":12.5', f'"at":{word}'.encode())

    with pytest.raises(MessageError):
        decode(body)


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": object()}, {"x": "y" * MAX_BYTES}])
def test_what_a_message_cannot_carry_is_refused_before_it_is_sent(facts: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        encode(replace(COMMAND, facts=facts))


def test_a_message_that_is_too_large_is_not_even_read() -> None:
    with pytest.raises(MessageError, match="the limit"):
        decode(changed(EVENT, data={"x": "y" * MAX_BYTES}))


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b'"x"', b"[" * 60000, b"1" * 60000, b'{"v":1,"v":2}'])
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        decode(body)


def accepted_or_refused(body: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode(body)


@given(st.binary(max_size=200))
def test_no_bytes_get_another_error_out_of_it(body: bytes) -> None:
    accepted_or_refused(body)


FIELDS = sorted({*json.loads(encode(COMMAND)), *json.loads(encode(EVENT))})


@given(message=st.sampled_from([COMMAND, EVENT]), fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_no_field_s_value_gets_another_error_out_of_it(message: Command | Event, fields: dict[str, Any]) -> None:
    accepted_or_refused(changed(message, **fields))
