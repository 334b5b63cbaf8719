"""A source that can't be read raises one alert; `mqi doctor` says what is wrong with a source."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mqi_cli import Alert, CaseVanished, Check, ConfigSection, Patrol, Verdict
from mqi_scanner import plugin
from mqi_scanner.byhand import rounds
from mqi_scanner.checks import attribute_cache, checks
from mqi_scanner.mounts import Mount, mount_of, parse_mountinfo

MOUNTINFO = """\
22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
90 27 0:50 / /mnt/proton\\040share rw,relatime shared:40 - nfs4 server:/x rw,vers=4.2,acregmax=30,hard
91 27 0:51 / /mnt/proton rw - cifs //server/x rw,actimeo=1
"""


def test_a_source_that_is_not_there_raises_an_alert_and_an_all_clear_when_it_is_back(world: Any) -> None:
    world.write("c1/a")
    world.look()
    away = world.incoming.rename(world.incoming.with_name("away"))
    (alert,) = world.look(after=10)
    assert isinstance(alert, Alert)
    assert alert.active
    assert alert.topic == "source:incoming"
    assert "No such file or directory" in alert.text
    assert alert.hint
    away.rename(world.incoming)
    world.scan(world.ctx)
    assert [each.active for each in world.ctx.seen if isinstance(each, Alert)] == [False]


def test_an_unmounted_share_is_not_taken_for_an_empty_source(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mqi_scanner import mounts

    table = [Mount(Path("/"), "ext4"), Mount(world.incoming, "nfs4")]
    monkeypatch.setattr(mounts, "current_mounts", lambda: table)
    file = world.write("c1/a")
    world.look()
    file.unlink()
    file.parent.rmdir()
    table.pop()
    world.restart()
    (alert,) = world.look(after=10)
    assert alert.active
    assert "nfs4" in alert.text
    assert "c1" in world.ctx.rows  # nothing was said to have vanished
    table.append(Mount(world.incoming, "nfs4"))
    assert world.look(after=10) == [CaseVanished("incoming", "c1")]


def test_a_source_that_was_emptied_raises_no_alert(world: Any) -> None:
    world.write("c1/a")
    world.look()
    (world.incoming / "c1/a").unlink()
    (world.incoming / "c1").rmdir()
    assert world.look(after=10) == [CaseVanished("incoming", "c1")]


def test_a_damaged_memory_of_mounts_is_no_obstacle(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mqi_scanner import mounts

    monkeypatch.setattr(mounts, "current_mounts", lambda: [Mount(Path("/"), "ext4")])  # a chroot has none to tell of
    world.ctx.data_dir.mkdir()
    (world.ctx.data_dir / "mounts.json").write_text("{half")
    world.look()
    assert json.loads((world.ctx.data_dir / "mounts.json").read_text())


def test_the_kernels_list_of_mounts_is_read() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert mount_of(Path("/mnt/proton share/in"), mounts) == mounts[2]
    assert mount_of(Path("/mnt/proton/in"), mounts) == mounts[3]
    assert mount_of(Path("/mnt/other"), mounts) == mounts[1]
    assert mounts[2].is_network
    assert not mounts[1].is_network


@pytest.mark.parametrize(
    ("options", "seconds"), [(("rw",), 60), (("acregmax=30",), 30), (("noac", "acregmax=9"), 0), (("actimeo=5",), 5)]
)
def test_how_long_an_nfs_mount_shows_old_sizes(options: tuple[str, ...], seconds: float) -> None:
    assert attribute_cache(options) == seconds


@dataclass
class Doctor:
    """A `CheckContext` of one source."""

    sources: list[Any]
    config: Any
    hosts: tuple[str, ...] = ()
    workflows: Any = None

    def host(self, name: str) -> Any:
        raise AssertionError("no host is needed")

    def host_config(self, name: str) -> Any:
        raise AssertionError("no host is needed")


def doctor(world: Any) -> list[Check]:
    return list(checks(Doctor(world.ctx.sources, world.ctx.config)))


def test_doctor_finds_nothing_wrong_with_a_good_source(world: Any) -> None:
    world.write("c1/a")
    (check,) = doctor(world)
    assert check.verdict is Verdict.OK
    assert "1 case directory" in check.text
    assert "quiet for 30 s" in check.text


def test_doctor_names_a_source_that_is_missing_or_a_file(world: Any) -> None:
    world.use(path=world.incoming / "nowhere")
    (check,) = doctor(world)
    assert (check.verdict, "does not exist" in check.text, bool(check.mend)) == (Verdict.FAIL, True, True)
    world.use(path=world.write("file"))
    assert "is not a directory" in doctor(world)[0].text


def test_doctor_names_directories_without_rights(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("c1/a")
    real = os.access

    def locked(path: Any, mode: int) -> bool:
        return Path(path).name != "c1" and real(path, mode)

    monkeypatch.setattr("mqi_scanner.checks.os.access", locked)
    assert [check.verdict for check in doctor(world)] == [Verdict.OK, Verdict.FAIL]


def test_doctor_warns_of_a_quiet_time_below_what_the_mount_remembers(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("mqi_scanner.checks.mount_now", lambda path: Mount(Path("/"), "nfs4", ("acregmax=60",)))
    assert [check.verdict for check in doctor(world)] == [Verdict.OK, Verdict.WARN]


def test_doctor_warns_of_a_sender_whose_clock_is_ahead(world: Any) -> None:
    world.write("c1/a")
    ahead = time.time() + 3600
    os.utime(world.incoming / "c1", (ahead, ahead))
    check = doctor(world)[-1]
    assert check.verdict is Verdict.WARN
    assert "60 min in the future" in check.text


def test_doctor_says_that_nothing_is_watched() -> None:
    from mqi_scanner.config import ScannerSection

    (check,) = checks(Doctor([], ScannerSection()))
    assert check.verdict is Verdict.WARN


def test_the_plugin_offers_one_patrol_and_its_section() -> None:
    (patrol,) = plugin.mqi_patrols()
    section = plugin.mqi_config()
    assert isinstance(patrol, Patrol)
    assert isinstance(section, ConfigSection)
    assert (patrol.name, patrol.lane, patrol.interval(section.model())) == ("scan", "scanner", 10.0)


class HandOperator:
    """Goes the patrol's rounds as `Operator.patrol` does, and turns the clock between them."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.rounds = 0

    def section(self, name: str) -> Any:
        return self.world.ctx.config

    def patrol(self, name: str, *, only: str = "") -> list[Any]:
        self.rounds += 1
        assert self.rounds < 50
        everything = list(self.world.ctx.sources)
        self.world.ctx.sources[:] = [each for each in everything if only in ("", each.name)]
        found: list[Any] = self.world.look()
        self.world.ctx.sources[:] = everything
        return found

    def pass_time(self, seconds: float) -> None:
        self.world.ctx.clock.at += seconds


def test_by_hand_one_round_shows_what_settles(world: Any) -> None:
    world.write("c1/a")
    last = rounds(HandOperator(world), scan=world.scan)
    assert [each.note for each in last.open.values()] == ["quiet for 0 of 30 s"]
    assert not last.complete


def test_by_hand_wait_looks_until_all_is_complete(world: Any) -> None:
    world.write("c1/a")
    (world.incoming / "bad").mkdir()
    (world.incoming / "bad/link").symlink_to("x")
    operator = HandOperator(world)
    last = rounds(operator, wait=True, scan=world.scan, pause=operator.pass_time)
    assert [each.name for each in last.complete] == ["c1"]
    assert [name for _, name in last.open] == ["bad"]
    assert operator.rounds > 3


def test_by_hand_a_round_that_ran_out_of_time_is_carried_to_its_end(world: Any) -> None:
    world.write("c1/a", b"x" * (24 << 20))
    world.look()
    world.ctx.clock.at += 30
    world.ctx.clock.tick = 1.0
    operator = HandOperator(world)
    last = rounds(operator, scan=world.scan)
    assert operator.rounds > 1
    assert [each.name for each in last.complete] == ["c1"]


def test_by_hand_one_source_is_looked_at_alone(world: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    (other / "x/a").touch()
    world.ctx.sources.append(replace(world.ctx.sources[0], name="other", path=other))
    world.write("c1/a")
    rounds(HandOperator(world), source="other", scan=world.scan)
    assert list(world.ctx.rows) == ["x"]


def test_by_hand_ctrl_c_ends_the_waiting(world: Any) -> None:
    world.write("c1/a")
    world.ctx.stop = True
    operator = HandOperator(world)
    last = rounds(operator, wait=True, scan=world.scan)
    assert operator.rounds == 1
    assert last.left == 1
