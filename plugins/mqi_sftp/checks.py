"""What `mqi doctor` says of moving files: can each host take and hash them, and is there a place for results."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mqi_cli import Check, CheckContext, Entry, Files, Host, HostError, HostFault, SourceView, Verdict, tool_dir
from mqi_sftp.options import DownloadOptions
from mqi_sftp.plan import DIRECTORY_MODE
from mqi_sftp.prove import hash_there

_PROBE = b"mqi\n"


def checks(ctx: CheckContext) -> list[Check]:
    """Look at every host that a transfer uses, and at every place for results."""
    steps = [step for workflow in ctx.workflows.values() for step in workflow.steps if step.stage.lane == "sftp"]
    hosts = sorted({step.host for step in steps if step.host in ctx.hosts})
    found = [check_host(ctx.host(name), timeout=ctx.config.verify_timeout) for name in hosts]
    templates = {step.options.to for step in steps if isinstance(step.options, DownloadOptions)}
    return [*found, *(check_destination(each, ctx.sources) for each in sorted(templates))]


def check_host(host: Host, *, timeout: float) -> Check:
    """Write a small file on a host, have it hashed there, remove it."""
    label = f"host {host.name}: files"
    try:
        with host.files() as files:
            hashed = _probe(host, files, timeout=timeout)
    except HostError as error:
        return Check(label, Verdict.FAIL, error.what, error.hint or f"mqi host test {host.name}")
    if hashed is None:
        return Check(
            label,
            Verdict.WARN,
            "takes files, but has neither python3 nor sha256sum to run: what is moved is proven by reading it back, which takes twice as long",
            "give the account a shell with coreutils, if you can",
        )
    if not hashed:
        return Check(
            label,
            Verdict.FAIL,
            "hashes a file otherwise than it was sent",
            "look at its disk, and at its python3 or sha256sum",
        )
    return Check(label, Verdict.OK, "takes files and proves them where they lie")


def _probe(host: Host, files: Files, *, timeout: float) -> bool | None:
    """Whether the host hashes as we do; None when it can't hash."""
    place = tool_dir(host.base_dir)
    name = f"probe-{os.getpid()}"
    files.make_directory(place, mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    files.write_bytes(place / name, _PROBE)
    try:
        hashes = hash_there(host, place, [Entry(name, len(_PROBE), 0, 0, 0)], timeout=timeout)
    finally:
        with contextlib.suppress(HostFault):  # what brought us here says more
            files.remove(place / name)
    return None if hashes is None else hashes == [hashlib.sha256(_PROBE).hexdigest()]


def check_destination(template: Path, sources: Sequence[SourceView]) -> Check:
    """Look at the part of `to` that is the same for all cases."""
    label = "place for results"
    parts = template.parts
    fixed = Path(*parts[: next((number for number, part in enumerate(parts) if "{" in part), len(parts))])
    for source in sources:
        if fixed.resolve().is_relative_to(source.path.resolve()):
            text = f"{fixed} lies inside source {source.name}: results would be taken for input"
            return Check(label, Verdict.FAIL, text, "name another place in `to`")
    if not fixed.is_dir():
        return Check(label, Verdict.WARN, f"{fixed} is not there yet", f"mount it, or: mkdir -p {fixed}")
    if not os.access(fixed, os.W_OK | os.X_OK):
        return Check(
            label, Verdict.FAIL, f"{fixed} can't be written to", f"give mqi's account the right to write to {fixed}"
        )
    return Check(label, Verdict.OK, f"{fixed} can be written to")
