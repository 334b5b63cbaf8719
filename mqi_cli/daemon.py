"""The daemon as the rest of mqi sees it: what it leaves in the state directory, and how it is spoken to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mqi_cli.crew import BROKEN, ChildState
from mqi_cli.errors import StateError, UsageError, describe_os_error
from mqi_cli.lock import holder

LOCK_NAME = "daemon.lock"
STATUS_NAME = "daemon.json"
OWN_LOG = "daemon"


@dataclass(frozen=True)
class ChildStatus:
    """One child. Times are wall seconds; `next_start` is set while it waits to be started again."""

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    since: float
    last_exit: str
    exit_code: int | None
    next_start: float | None
    memory: int | None  # bytes of resident memory


@dataclass(frozen=True)
class DaemonStatus:
    """The daemon and its children. `ready`: each child has given a sign of life, or failed to, since the start.

    `reloads` counts the times it was asked to read its config again, `reload_problem` says why the last one failed.
    """

    pid: int
    version: str
    config_file: str | None
    managed_by: str  # "systemd", or empty
    started_at: float
    state: str  # starting, running, stopping
    ready: bool
    reloads: int
    reload_problem: str
    children: tuple[ChildStatus, ...]

    @property
    def broken(self) -> tuple[ChildStatus, ...]:
        """The children that do not run and should."""
        return tuple(each for each in self.children if each.state in BROKEN)

    @property
    def headline(self) -> str:
        """How many of its processes run, and which do not."""
        text = f"{sum(each.pid is not None for each in self.children)} of {len(self.children)} processes run"
        return f"{text}; not running: {', '.join(each.name for each in self.broken)}" if self.broken else text

    def differs(self, other: DaemonStatus) -> bool:
        """Whether more than memory and expected times have changed."""
        return self._bare() != other._bare()

    def _bare(self) -> DaemonStatus:
        return replace(self, children=tuple(replace(each, memory=None, next_start=None) for each in self.children))


class DaemonFiles:
    """Where the daemon of one state directory keeps its lock, its status and its logs."""

    def __init__(self, state_dir: Path) -> None:
        self.lock = state_dir / LOCK_NAME
        self.status = state_dir / STATUS_NAME
        self.logs = state_dir / "logs"

    def log(self, name: str) -> Path:
        """Return the log of the daemon itself (`daemon`) or of a child."""
        return self.logs / f"{name}.log"

    def log_names(self) -> list[str]:
        """Return the names that have a log, the daemon's own first."""
        names = sorted(path.stem for path in self.logs.glob("*.log"))
        return sorted(names, key=lambda name: name != OWN_LOG)

    def running(self) -> int | None:
        """Return the daemon's process id, or None where none runs. Asks the lock: a daemon that was killed is gone."""
        return holder(self.lock)

    def read_status(self) -> DaemonStatus | None:
        """Return what the running daemon says of itself; None where none runs or it has not said anything yet."""
        pid = self.running()
        if pid is None:
            return None
        try:
            status = decode_status(self.status.read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return status if status.pid == pid else None

    def write_status(self, status: DaemonStatus) -> None:
        """Replace the status file in one step. Raises `OSError`."""
        temporary = self.status.with_name(f".{self.status.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(encode_status(status))
            temporary.replace(self.status)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def signal(self, number: signal.Signals) -> int | None:
        """Send the daemon a signal and return its process id; None where none runs."""
        pid = self.running()
        if not pid:
            return None
        with contextlib.suppress(ProcessLookupError):
            handle = _open_pid(pid)
            try:
                # The id is only certain if the lock is still held by it now that its process can't be another's.
                if self.running() == pid:
                    _send(handle, pid, number)
                    return pid
            except PermissionError as error:
                raise UsageError(
                    f"the daemon (process {pid}) belongs to another user", hint="run this as the daemon's user"
                ) from error
            finally:
                if handle is not None:
                    os.close(handle)
        return None


def _open_pid(pid: int) -> int | None:
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None


def _send(handle: int | None, pid: int, number: signal.Signals) -> None:
    if handle is None:
        os.kill(pid, number)
    else:
        signal.pidfd_send_signal(handle, number)


def encode_status(status: DaemonStatus) -> str:
    """Return the status as JSON."""
    return json.dumps(asdict(status), indent=1) + "\n"


def decode_status(text: str) -> DaemonStatus:
    """Read a status. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    body: dict[str, Any] = json.loads(text)
    children: Sequence[dict[str, Any]] = body.pop("children")
    return DaemonStatus(
        **body, children=tuple(ChildStatus(**{**each, "state": ChildState(each["state"])}) for each in children)
    )


def check_state_dir(state_dir: Path) -> None:
    """Make the state directory where it is missing. Raises `StateError` where that fails or it can't be written."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"cannot make the state directory {state_dir}: {describe_os_error(error)}",
            hint="set state.path in the config to a place that this user may write to",
        ) from error
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise StateError(
            f"cannot write to the state directory {state_dir}",
            hint=f"it must belong to the daemon's user (now: user id {os.getuid()})",
        )
