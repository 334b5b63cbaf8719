"""What `mqi doctor` says about the sources."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mqi_cli import Check, CheckContext, SourceView, Verdict, case_directories, describe_os_error
from mqi_scanner.mounts import Mount, mount_now

SKEW = 300.0  # s
NFS_REMEMBERS = 60.0  # s; nfs(5): acregmax, how long a client may show a file's old size
LOOKED_AT = 200  # directories of a source whose times are compared with our clock


def checks(ctx: CheckContext) -> Sequence[Check]:
    """Look at every source: is it there, may it be read, where does it lie, does its clock agree with ours?"""
    found = [check for source in ctx.sources for check in _of_source(source)]
    if not ctx.sources:
        found.append(
            Check("sources", Verdict.WARN, "no source is configured: nothing is watched", "add one to `sources:`")
        )
    if ctx.sources and not ctx.config.interval:
        found.append(Check("scanner", Verdict.WARN, "switched off: interval is 0", "set `scanner: {interval: 10s}`"))
    return found


def _of_source(source: SourceView) -> list[Check]:
    name = f"source {source.name}"
    if not source.path.is_dir():
        what = "is not a directory" if source.path.exists() else "does not exist"
        return [Check(name, Verdict.FAIL, f"{source.path} {what}", f"mount it or create it: mkdir -p {source.path}")]
    if not os.access(source.path, os.R_OK | os.X_OK):
        mend = f"give the user that runs mqi read access: chmod o+rx {source.path}, or a group of its own"
        return [Check(name, Verdict.FAIL, f"{source.path} may not be read", mend)]
    try:
        cases = [path for _, path in case_directories(source)]
    except OSError as error:
        return [
            Check(name, Verdict.FAIL, f"{source.path} can't be listed: {describe_os_error(error)}", "is it mounted?")
        ]
    mount = mount_now(source.path)
    place = f", on {mount.kind}" if mount else ""
    count = "1 case directory" if len(cases) == 1 else f"{len(cases)} case directories"
    return [
        Check(name, Verdict.OK, f"{count}{place}; complete when {_rule(source)}"),
        *_unreadable(name, [path for path in cases if not os.access(path, os.R_OK | os.X_OK)]),
        *_remembered_sizes(name, source, mount),
        *_clock(name, cases[:LOOKED_AT], time.time()),
    ]


def _unreadable(name: str, paths: Sequence[Path]) -> list[Check]:
    if not paths:
        return []
    text = f"{len(paths)} of its directories may not be read"
    return [Check(name, Verdict.FAIL, text, "give the user that runs mqi read access to them")]


def _remembered_sizes(name: str, source: SourceView, mount: Mount | None) -> list[Check]:
    quiet_for = source.complete_when.quiet_for
    if quiet_for is None or mount is None or not mount.kind.startswith("nfs"):
        return []
    seconds = attribute_cache(mount.options)
    if quiet_for > seconds:
        return []
    text = f"quiet_for is {quiet_for:g} s, but this NFS mount may show a growing file's old size for {seconds:g} s"
    return [Check(name, Verdict.WARN, text, f"set quiet_for above {seconds:g}s, or mount with acregmax=3")]


def attribute_cache(options: Sequence[str]) -> float:
    """Return for how many seconds an NFS mount may show a file's old size (nfs(5): noac, actimeo, acregmax)."""
    seconds = NFS_REMEMBERS
    for option in options:
        key, _, value = option.partition("=")
        if key == "noac":
            return 0.0
        if key in ("acregmax", "actimeo") and value.isdigit():
            seconds = float(value)
    return seconds


def _clock(name: str, cases: Sequence[Path], now: float) -> list[Check]:
    ahead = 0.0
    for path in cases:
        try:
            ahead = max(ahead, path.stat().st_mtime - now)
        except OSError:
            continue
    if ahead < SKEW:
        return []
    text = f"its newest directory is dated {ahead / 60:.0f} min in the future"
    mend = "set this machine's and the sender's clock by NTP; completeness goes by our own clock and is not affected"
    return [Check(name, Verdict.WARN, text, mend)]


def _rule(source: SourceView) -> str:
    rule = source.complete_when
    if rule.manual:
        return "`mqi case add` names it"
    if rule.marker:
        return f"{rule.marker} is there"
    return f"all of {rule.manifest} is there" if rule.manifest else f"quiet for {rule.quiet_for:g} s"
