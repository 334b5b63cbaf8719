"""The bandwidth that a host is allowed: by day and by night, shared by all transfers of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from mqi_cli import Done, Host
from mqi_cli.config.model import HostLimits
from mqi_sftp.pace import Pace, pace_of
from mqi_sftp.verify import verify_upload
from sftp.bench import Bench, fill

DAY = ({"from": "07:00", "to": "19:00", "rate": "1MB/s"}, {"from": "22:00", "to": "02:00", "rate": "2MB/s"})


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, minute: int = 0) -> None:
        self.at = 100.0
        self.minute = minute

    def pace(self, limit: object) -> Pace:
        return Pace(limit, clock=lambda: self.at, minute=lambda: self.minute, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds <= 1
        self.at += seconds


def limit(value: object) -> object:
    return HostLimits.model_validate({"bandwidth": value}).bandwidth


def test_bytes_take_their_time_whoever_spends_them() -> None:
    clock = Clock()
    pace = clock.pace(limit("1MB/s"))
    signs: list[float] = []

    for _ in range(10):
        pace.spend(300_000, lambda: signs.append(clock.at))

    assert clock.at == pytest.approx(103.0)
    assert signs


def test_time_in_which_nothing_was_sent_is_not_saved_up() -> None:
    clock = Clock()
    pace = clock.pace(limit("1MB/s"))
    pace.spend(1_000_000, lambda: None)
    clock.at += 1000

    pace.spend(1_000_000, lambda: None)

    assert clock.at == pytest.approx(1102.0)


@pytest.mark.parametrize(
    ("minute", "rate"), [(6 * 60 + 59, None), (7 * 60, 10**6), (19 * 60, None), (23 * 60, 2 * 10**6), (60, 2 * 10**6)]
)
def test_the_time_of_day_counts(minute: int, rate: int | None) -> None:
    assert Clock(minute).pace(limit(DAY)).rate() == rate


def test_yaml_reads_a_time_without_quotes_as_a_number_to_the_base_of_sixty() -> None:
    assert limit([{"from": 19 * 60, "to": "24:00", "rate": "1MB/s"}])[0].start == 1140  # type: ignore[index]


@pytest.mark.parametrize("value", ["50MB", "fast", "1B/s", -5, [{"from": "25:00", "to": "1:00", "rate": "1MB/s"}]])
def test_a_rate_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        limit(value)


def test_all_transfers_of_a_host_share_one_pace() -> None:
    assert pace_of("one", 1000) is pace_of("one", 1000)
    assert pace_of("one", 1000) is not pace_of("other", 1000)
    assert pace_of("one", 2000).limit == 2000


def test_a_transfer_keeps_to_the_host_s_bandwidth(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _host, _limit: clock.pace(limit("1MB/s")))
    fill(bench.source, {"a": bytes(2_000_000)})
    fill(bench.outputs, {"a": bytes(1_000_000)})

    assert isinstance(bench.upload(), Done)
    assert clock.at >= 102
    assert isinstance(bench.download(), Done)
    assert clock.at >= 103


def test_what_is_read_back_to_prove_it_keeps_to_the_bandwidth_too(
    tmp_path: Path, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _host, _limit: clock.pace(limit("1MB/s")))
    bench = Bench(tmp_path, make_host("sftp_only"))
    fill(bench.source, {"a": bytes(2_000_000)})

    assert isinstance(bench.upload(), Done)
    assert clock.at >= 104, "sent, and read back"
    verify_upload(bench.case(), bench.context("upload"))
    assert clock.at >= 106


def test_at_a_low_rate_pieces_are_small_enough_for_the_far_side_to_hear_something_now_and_then() -> None:
    assert Clock().pace(limit("2kB/s")).piece(1 << 20) == 10_000
    assert Clock().pace(limit("50MB/s")).piece(1 << 20) == 1 << 20
    assert Clock().pace(None).piece(1 << 20) == 1 << 20


def test_a_stream_at_a_low_rate_moves_such_pieces(ssh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    longest = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept, longest
        clock.sleep(seconds)
        slept += seconds
        longest = max(longest, slept)

    slept = 0.0
    pace = Pace(limit("20kB/s"), clock=lambda: clock.at, sleep=sleep)
    spend = pace.spend

    def spends(count: int, alive: Callable[[], None]) -> None:
        nonlocal slept
        slept = 0.0
        spend(count, alive)

    monkeypatch.setattr(pace, "spend", spends)
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _host, _limit: pace)
    fill(ssh_bench.source, {"a": os.urandom(5_000_000)})
    fill(ssh_bench.outputs, {"a": os.urandom(5_000_000)})

    assert isinstance(ssh_bench.upload(), Done)
    assert isinstance(ssh_bench.download(), Done)
    assert clock.at >= 580
    assert longest <= 6
