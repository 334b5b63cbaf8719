"""The curator's lines of `mqi doctor`: does each host answer, is its clock right, has it space, do its GPUs answer."""

from __future__ import annotations

from collections.abc import Iterator

from mqi_cli import Check, CheckContext, Clock, HostError, Verdict
from mqi_curator.config import CuratorSection
from mqi_curator.gpus import GpuLook
from mqi_curator.hosts_patrol import look_side_by_side
from mqi_curator.look import Look

_SKEW = 5.0  # seconds; file times and log times are compared by people, not by mqi, so this is a warning


def check_hosts(ctx: CheckContext) -> list[Check]:
    """Look at all hosts side by side; return their lines in the config's order."""
    section: CuratorSection = ctx.config
    hosts = {name: ctx.host(name) for name in ctx.hosts}
    found = dict(look_side_by_side(hosts, section, clock=Clock()))
    return [check for name in hosts for check in check_host(name, found[name], section)]


def check_host(name: str, found: Look | HostError, section: CuratorSection) -> Iterator[Check]:
    """Return the lines about one host. Pure."""
    label = f"host {name}"
    if isinstance(found, HostError):
        yield Check(label, Verdict.FAIL, found.what, found.hint or f"mqi host test {name}")
        return
    if found.problem:
        yield Check(label, Verdict.FAIL, found.problem, f"mqi host test {name}")
        return
    yield Check(label, Verdict.OK, "answers")
    if found.skew is not None:
        yield clock_check(f"{label}: clock", found.skew)
    if found.free_bytes is not None and found.total_bytes:
        percent = 100 * found.free_bytes / found.total_bytes
        text = f"{percent:.0f} % of {found.total_bytes / 1e9:.0f} GB free"
        limit = section.alerts.disk_free_percent
        if limit is not None and percent < limit:
            yield Check(f"{label}: space", Verdict.WARN, text, f"mqi host clean {name} --dry-run")
        else:
            yield Check(f"{label}: space", Verdict.OK, text)
    if found.gpus is not None:
        yield gpu_check(f"{label}: GPUs", found.gpus)


def clock_check(label: str, skew: float) -> Check:
    """Return the line about a host's clock."""
    if abs(skew) <= _SKEW:
        return Check(label, Verdict.OK, "agrees with ours")
    side = "ahead of" if skew > 0 else "behind"
    return Check(label, Verdict.WARN, f"{abs(skew):.0f} s {side} ours", "set it by NTP, here and there")


def gpu_check(label: str, look: GpuLook) -> Check:
    """Return the line about a host's GPUs."""
    if look.problem:
        return Check(label, Verdict.WARN, look.problem, "run nvidia-smi there; gpu_command in section curator names it")
    text = f"{len(look.gpus)} can be used" if look.gpus else "none"
    if look.unusable or look.odd:
        text = "; ".join([text, *look.unusable, *look.odd])
        return Check(label, Verdict.WARN, text, "look at the card, or turn MIG off")
    return Check(label, Verdict.OK, text)
