"""The bandwidth that a host is allowed: by day and by night, shared by all transfers of this machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from mqi_cli import Clock as SystemClock
from mqi_cli import Done, Host
from mqi_cli.config.model import HostLimits
from mqi_sftp.bookings import Bookings
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
        return Pace(limit, line=Bookings(clock=lambda: self.at), minute=lambda: self.minute, sleep=self.sleep)

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


def test_all_transfers_of_a_host_share_one_pace_and_a_changed_limit_one_line(
    tmp_path: Path, make_host: Callable[..., Host]
) -> None:
    bench = Bench(tmp_path, make_host("local"))

    def limited(rate: int) -> Pace:
        ctx = bench.context("upload")
        config = ctx.host.config.model_copy(update={"limits": HostLimits(bandwidth=rate)})
        return pace_of(SimpleNamespace(host=SimpleNamespace(name="far", config=config), data_dir=ctx.data_dir))  # type: ignore[arg-type]

    pace = limited(1000)

    assert limited(1000) is pace
    assert limited(2000).limit == 2000
    assert limited(1000).line is pace.line
    assert pace_of(bench.context("upload")).rate() is None


def test_processes_of_this_machine_share_the_bandwidth(tmp_path: Path) -> None:
    text = (
        "import sys; from pathlib import Path; from mqi_sftp.bookings import Bookings; from mqi_sftp.pace import Pace\n"
        "pace = Pace(1_000_000, line=Bookings(Path(sys.argv[1])))\n"
        "for _ in range(10): pace.spend(40_000, lambda: None)\n"
    )
    began = time.monotonic()
    crowd = [subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "far")]) for _ in range(3)]
    assert [each.wait(30) for each in crowd] == [0, 0, 0]
    assert time.monotonic() - began >= 1.2


def test_bookings_of_another_boot_and_a_spoiled_file_do_not_count(tmp_path: Path) -> None:
    place = tmp_path / "far"
    before = Bookings(place, clock=lambda: 9e6)
    before.book(5)
    place.write_bytes(place.read_bytes().replace(SystemClock().boot_id().encode(), b"0" * 36))
    assert Bookings(place, clock=lambda: 10.0).book(1) == 11

    place.write_bytes(b"?")
    assert Bookings(place, clock=lambda: 10.0).book(1) == 11
    assert Bookings(place, clock=lambda: 10.0).book(1) == 12, "and it is whole again"


def test_who_was_frozen_while_booking_and_a_place_that_cannot_be_written_hold_nobody_up(tmp_path: Path) -> None:
    with (tmp_path / "far").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Bookings(tmp_path / "far", clock=lambda: 10.0).book(1) == 11
    (tmp_path / "file").touch()
    assert Bookings(tmp_path / "file" / "far", clock=lambda: 10.0).book(1) == 11


def test_a_transfer_keeps_to_the_host_s_bandwidth(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _ctx: clock.pace(limit("1MB/s")))
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
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _ctx: clock.pace(limit("1MB/s")))
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
    pace = Pace(limit("20kB/s"), line=Bookings(clock=lambda: clock.at), sleep=sleep)
    spend = pace.spend

    def spends(count: int, alive: Callable[[], None]) -> None:
        nonlocal slept
        slept = 0.0
        spend(count, alive)

    monkeypatch.setattr(pace, "spend", spends)
    monkeypatch.setattr("mqi_sftp.meter.pace_of", lambda _ctx: pace)
    fill(ssh_bench.source, {"a": os.urandom(5_000_000)})
    fill(ssh_bench.outputs, {"a": os.urandom(5_000_000)})

    assert isinstance(ssh_bench.upload(), Done)
    assert isinstance(ssh_bench.download(), Done)
    assert clock.at >= 580
    assert longest <= 6
