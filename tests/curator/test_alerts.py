"""When a look at a host raises an alert and when it clears it."""

from __future__ import annotations

from mqi_cli import GpuSeen
from mqi_curator.alerts import alerts_of, without_gpus
from mqi_curator.config import AlertsSection
from mqi_curator.gpus import GpuLook
from mqi_curator.look import Look


def active(look: Look, **limits: float | None) -> dict[str, bool]:
    """Return the topics that a look says anything about."""
    return {alert.topic: alert.active for alert in alerts_of("hpc", look, AlertsSection.model_validate(limits))}


def hot(*temperatures: int | None) -> Look:
    gpus = tuple(GpuSeen(f"GPU-{number}", number, temperature=each) for number, each in enumerate(temperatures))
    return Look(gpus=GpuLook(gpus))


def test_a_hot_gpu_is_named_with_its_limit() -> None:
    alerts = {alert.topic: alert for alert in alerts_of("hpc", hot(40, 93), AlertsSection(temperature=90))}
    assert alerts["gpu-temperature:hpc"].text == "GPU 1 of host hpc is at 93 °C (limit 90 °C)"


def test_nothing_is_said_close_below_a_limit_so_that_it_does_not_flap() -> None:
    assert active(hot(91), temperature=90)["gpu-temperature:hpc"] is True
    assert "gpu-temperature:hpc" not in active(hot(88), temperature=90)
    assert active(hot(80), temperature=90)["gpu-temperature:hpc"] is False


def test_a_gpu_that_vanished_while_it_was_hot_clears_its_alert() -> None:
    assert active(hot(), temperature=90)["gpu-temperature:hpc"] is False


def test_a_driver_that_tells_nothing_of_its_gpus_gives_no_all_clear() -> None:
    limits = {"temperature": 90, "gpu_memory_percent": 95, "gpu_utilization_percent": 95}
    measured = {"gpu-temperature:hpc", "gpu-memory:hpc", "gpu-utilization:hpc"}
    assert not measured & active(hot(None), **limits).keys()
    assert active(hot(None, 93), temperature=90)["gpu-temperature:hpc"] is True


def test_somebody_who_computes_beside_a_run_is_an_alert_until_he_ends() -> None:
    def look(*processes: int, foreign: tuple[int, ...]) -> Look:
        return Look(gpus=GpuLook((GpuSeen("GPU-0", 0), GpuSeen("GPU-1", 1, processes=processes, foreign=foreign))))

    alerts = {each.topic: each for each in alerts_of("hpc", look(7, 8, foreign=(8,)), AlertsSection())}
    assert (
        alerts["gpu-shared:hpc"].active
        and "GPU 1 of host hpc, beside a run (process 8)" in alerts["gpu-shared:hpc"].text
    )
    assert active(look(7, foreign=()))["gpu-shared:hpc"] is False
    assert active(look(8, foreign=(8,)))["gpu-shared:hpc"] is False, "on a GPU of his own he is nobody's trouble"


def test_little_space_is_an_alert_until_there_is_more_than_just_enough() -> None:
    assert active(Look(free_bytes=4, total_bytes=100), disk_free_percent=5)["disk:hpc"] is True
    assert "disk:hpc" not in active(Look(free_bytes=55, total_bytes=1000), disk_free_percent=5)
    assert active(Look(free_bytes=20, total_bytes=100), disk_free_percent=5)["disk:hpc"] is False


def test_load_counts_for_each_core() -> None:
    assert active(Look(load=9.0, cores=2), load_per_core=4)["load:hpc"] is True
    assert active(Look(load=9.0, cores=16), load_per_core=4)["load:hpc"] is False


def test_gpu_memory_is_watched_only_where_a_limit_is_set() -> None:
    full = Look(gpus=GpuLook((GpuSeen("GPU-1", 0, memory_total=100, memory_used=99),)))
    assert active(full)["gpu-memory:hpc"] is False
    assert active(full, gpu_memory_percent=95)["gpu-memory:hpc"] is True
    empty = Look(gpus=GpuLook((GpuSeen("GPU-1", 0, memory_total=100, memory_used=1),)))
    assert active(empty, gpu_memory_percent=95)["gpu-memory:hpc"] is False


def test_gpus_that_can_not_be_used_are_an_alert_until_there_are_none() -> None:
    assert active(Look(gpus=GpuLook(unusable=("GPU 1 (GPU-1) is lost",))))["gpu-unusable:hpc"] is True
    assert active(Look(gpus=GpuLook()))["gpu-unusable:hpc"] is False


def test_where_gpus_are_not_asked_for_any_more_no_alert_of_theirs_stays() -> None:
    raised = active(Look(gpus=GpuLook((), unusable=("GPU 0 is lost",), odd=("ERR",))))
    assert raised["gpu-unusable:hpc"] and raised["gpu-answer:hpc"]
    left = {each.topic: each.active for each in without_gpus("hpc")}
    assert {"gpus:hpc", "gpu-gone:hpc", *(topic for topic in raised if topic.startswith("gpu"))} <= left.keys()
    assert not any(left.values())


def test_what_the_driver_says_beside_its_gpus_is_one_alert_until_it_is_silent() -> None:
    odd = Look(gpus=GpuLook((GpuSeen("GPU-0", 0),), odd=("WARNING: infoROM is corrupted at gpu 0000:41:00.0",)))
    (alert,) = (each for each in alerts_of("hpc", odd, AlertsSection()) if each.active)
    assert alert.topic == "gpu-answer:hpc"
    assert alert.text.endswith("says: WARNING: infoROM is corrupted at gpu 0000:41:00.0")
    assert active(Look(gpus=GpuLook()))["gpu-answer:hpc"] is False


def test_a_look_that_failed_says_nothing_about_what_it_did_not_see() -> None:
    assert active(Look(gpus=GpuLook(problem="no driver"))) == {}
    assert active(Look()) == {}


def test_a_busy_gpu_is_an_alert_only_where_a_limit_is_set() -> None:
    busy = Look(gpus=GpuLook((GpuSeen("GPU-1", 0, utilization=99), GpuSeen("GPU-2", 1))))
    assert active(busy)["gpu-utilization:hpc"] is False
    assert active(busy, gpu_utilization_percent=95)["gpu-utilization:hpc"] is True
    assert "gpu-utilization:hpc" not in active(busy, gpu_utilization_percent=99)


def test_a_limit_that_is_switched_off_clears_its_alert() -> None:
    look = Look(load=9.0, cores=1, free_bytes=1, total_bytes=100, gpus=hot(99).gpus)
    off = active(look, temperature=None, disk_free_percent=None, load_per_core=None)
    assert {topic for topic, raised in off.items() if raised} == set()
    assert {"disk:hpc", "load:hpc", "gpu-temperature:hpc"} <= set(off)
