"""The steps of `mqi host test`: everything that mqi needs of a host, one after the other, each with its time."""

from __future__ import annotations

import io
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mqi_cli import Check, Clock, Host, HostError, KeyedHost, NoShell, Verdict, describe_os_error
from mqi_curator.checks import clock_check, gpu_check
from mqi_curator.config import CuratorSection
from mqi_curator.look import take_look
from mqi_curator.trust import check_key

# program -> what is worse without it
_TOOLS = {
    "setsid": "runs can't be started",
    "sha256sum": "without python3 too, copies are proven by reading them back, which takes longer",
    "tar": "many small files take longer",
}
_NEEDED = frozenset({"setsid"})
_TOOLS_SCRIPT = 'for tool; do command -v "$tool" >/dev/null 2>&1 || echo "$tool"; done'
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Trial:
    """One step: how it ended and how long it took, in seconds."""

    check: Check
    seconds: float


def try_host(host: Host, section: CuratorSection, *, clock: Clock) -> Iterator[Trial]:
    """Go through the steps, yielding each as it ends. One that fails is the last: all later ones would need it."""
    for name, act in _Steps(host, section, clock).all():
        began = clock.elapsed()
        try:
            check = act()
        except HostError as error:
            check = Check(name, Verdict.FAIL, error.message, error.hint)
        if check is None:
            continue
        yield Trial(check, clock.elapsed() - began)
        if check.verdict is Verdict.FAIL:
            return


class _Steps:
    """The steps of one host and what an earlier one found out for a later one."""

    def __init__(self, host: Host, section: CuratorSection, clock: Clock) -> None:
        self._host = host
        self._section = section
        self._clock = clock
        self._shell = True

    def all(self) -> Iterator[tuple[str, Callable[[], Check | None]]]:
        """Name the steps in their order."""
        hostname = getattr(self._host.config, "hostname", "")
        if hostname:
            yield "resolve", lambda: self._resolve(hostname)
            yield "connect", lambda: self._connect(hostname)
        if isinstance(keyed := self._host, KeyedHost):
            yield "key", lambda: check_key(self._host.name, keyed)
        yield "log in", self._log_in
        yield "base_dir", self._base_dir
        yield "tools", self._tools
        yield "clock", self._look_at_clock
        yield "GPUs", self._look_at_gpus

    def _resolve(self, hostname: str) -> Check:
        try:
            found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
        except OSError as error:
            text = f"{hostname} has no address: {describe_os_error(error)}"
            return Check("resolve", Verdict.FAIL, text, "look at `hostname` in the config and at this machine's DNS")
        addresses = sorted({str(item[4][0]) for item in found})
        return Check("resolve", Verdict.OK, f"{hostname} is {', '.join(addresses)}")

    def _connect(self, hostname: str) -> Check:
        port = int(getattr(self._host.config, "port", 22))
        try:
            timeout = float(getattr(self._host.config, "connect_timeout", 15.0))
            socket.create_connection((hostname, port), timeout=timeout).close()
        except OSError as error:
            text = f"port {port} of {hostname} does not answer: {describe_os_error(error)}"
            return Check("connect", Verdict.FAIL, text, "is the machine up, the SSH server running, the firewall open?")
        return Check("connect", Verdict.OK, f"port {port} answers")

    def _log_in(self) -> Check:
        try:
            completed = self._host.run(["true"], timeout=30)
        except NoShell as error:
            self._shell = False
            text = "in, but the account runs no programs: transfers work, stage run does not"
            return Check("log in", Verdict.WARN, text, error.hint or "give the account a shell there")
        if completed.code != 0:
            text = f"in, but a program ended with {completed.code}"
            return Check("log in", Verdict.FAIL, text, "look at the account's shell and its start-up files there")
        return Check("log in", Verdict.OK, self._host.describe())

    def _base_dir(self) -> Check:
        base = self._host.base_dir
        probe = base / f".mqi-test-{secrets.token_hex(4)}"
        data = secrets.token_bytes(_MEGABYTE)
        with self._host.files() as files:
            files.make_directory(base, parents=True, exist_ok=True)
            try:
                files.write(probe, io.BytesIO(data), mode=0o600)
                back = io.BytesIO()
                files.read(probe, back)
            finally:
                files.remove(probe)
            space = files.space(base)
        if back.getvalue() != data:
            text = "what was written there reads back different"
            return Check("base_dir", Verdict.FAIL, text, "do not use this host until its file system was checked")
        left = f", {space.free_bytes / 1e9:.1f} GB free" if space else ""
        return Check("base_dir", Verdict.OK, f"{base} can be written and read{left}")

    def _tools(self) -> Check | None:
        if not self._shell:
            return None
        found = self._host.run(["sh", "-c", _TOOLS_SCRIPT, "mqi-tools", *_TOOLS], timeout=30)
        missing = [tool for tool in _TOOLS if tool in found.text.split()]
        if found.code != 0:
            return Check("tools", Verdict.FAIL, "sh does not work there", "install a POSIX shell there")
        if not missing:
            return Check("tools", Verdict.OK, f"sh, {', '.join(_TOOLS)}")
        text = "; ".join(f"no {tool}: {_TOOLS[tool]}" for tool in missing)
        verdict = Verdict.FAIL if _NEEDED.intersection(missing) else Verdict.WARN
        return Check("tools", verdict, text, f"install there: {', '.join(missing)}")

    def _look_at_clock(self) -> Check | None:
        section = self._section.model_copy(update={"gpu_command": ()})
        look = take_look(self._host, section, clock=self._clock) if self._shell else None
        if look is None or look.skew is None:
            return None
        return Check("clock", Verdict.FAIL, look.problem, "") if look.problem else clock_check("clock", look.skew)

    def _look_at_gpus(self) -> Check | None:
        look = take_look(self._host, self._section, clock=self._clock) if self._shell else None
        return gpu_check("GPUs", look.gpus) if look and look.gpus is not None else None
