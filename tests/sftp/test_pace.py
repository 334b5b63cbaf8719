"""The bandwidth that a host is allowed: by day and by night, shared by all transfers of a process."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mqi_cli import Done
from mqi_cli.config.model import HostLimits
from mqi_sftp.pace import Pace, pace_of
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
