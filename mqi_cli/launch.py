"""Starts the daemon in the background and ends it, each until it is certain, and tells meanwhile what it waits for."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable

from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.crew import ALIVE, program
from mqi_cli.daemon import DaemonFiles, DaemonStatus, check_state_dir
from mqi_cli.errors import EXIT_ALREADY_RUNNING, EXIT_BUG, AlreadyRunning, MqiError
from mqi_cli.logfile import last_lines

UP_WITHIN = 30.0  # seconds until every process has given a sign of life
_POLL = 0.05
STOP_MARGIN = 10.0  # seconds beyond stop_within: the conductor ends after the workers
_NOW_GRACE = 10.0  # for a daemon that was told to end at once
_LINES = 5
_SAY_EVERY = 1.0  # seconds; a stop that is quicker needs no comment

Say = Callable[[str], None]


def foreground_command(config: Config) -> list[str]:
    """Return the command that runs the daemon in the foreground, with absolute paths."""
    return [*program(config), "daemon", "start", "--foreground"]


def worker_command(config: Config, lane: str) -> list[str]:
    """Return the command that runs one worker of a lane in the foreground, with absolute paths."""
    return [*program(config), "worker", "run", lane]


def start_in_background(config: Config, *, clock: Clock, within: float = UP_WITHIN) -> DaemonStatus:
    """Start the daemon detached from this terminal, and return when its processes are up.

    Raises `AlreadyRunning`, or `MqiError` with what the daemon or its broken processes said last; in the second case
    the daemon runs on and keeps trying.
    """
    check_state_dir(config.state_dir)
    files = DaemonFiles(config.state_dir)
    if (pid := files.running()) is not None:
        raise AlreadyRunning(f"the daemon is running already (process {pid})", hint="see: mqi daemon status")
    with tempfile.TemporaryFile() as said:
        # A new session, and this process ends soon: nothing ties the daemon to the terminal any more. What it says
        # before its log is open goes to a file without a name, which ends with the last of the two.
        process = subprocess.Popen(
            [*foreground_command(config), "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            cwd=config.state_dir,
        )
        deadline = clock.elapsed() + within
        while True:
            code = process.poll()
            status = files.read_status()
            if code is not None:
                said.seek(0)
                raise _not_started(code, said.read().decode("utf-8", "replace"), files)
            if status is not None and status.pid == process.pid and status.ready:
                break
            if clock.elapsed() > deadline:
                raise _not_up(process.pid, status, within)
            time.sleep(_POLL)
    process.returncode = 0  # it lives on, as it should: no warning about a forgotten child
    if status.broken:
        raise _partly_up(status, files)
    return status


def _not_started(code: int, said: str, files: DaemonFiles) -> MqiError:
    lines = said.strip().splitlines() or last_lines(files.log("daemon"), _LINES)
    text = "".join(f"\n  {line}" for line in lines[-2 * _LINES :])
    if code == EXIT_ALREADY_RUNNING:
        return AlreadyRunning(f"the daemon did not start:{text}")
    error = MqiError(f"the daemon did not start (exit code {code}):{text}", hint="see: mqi daemon logs daemon")
    error.exit_code = code if code > 0 else EXIT_BUG
    return error


def _not_up(pid: int, status: DaemonStatus | None, within: float) -> MqiError:
    silent = [each.name for each in status.children if each.state == "starting"] if status else ["the daemon itself"]
    return MqiError(
        f"the daemon was started (process {pid}), but gave no sign within {within:.0f} s: {', '.join(silent)}",
        hint="see: mqi daemon status, and mqi daemon logs",
    )


def _partly_up(status: DaemonStatus, files: DaemonFiles) -> MqiError:
    text = ""
    for each in status.broken:
        lines = "".join(f"\n    {line}" for line in last_lines(files.log(each.name), _LINES))
        text += f"\n  {each.name}: {each.last_exit}{lines}"
    error = MqiError(
        f"the daemon was started (process {status.pid}), but not all of it runs; it keeps trying:{text}",
        hint="see: mqi daemon status",
    )
    codes = [each.exit_code for each in status.broken if each.exit_code is not None and each.exit_code > 0]
    error.exit_code = codes[0] if codes else EXIT_BUG
    return error


def stop(files: DaemonFiles, *, within: float, clock: Clock, say: Say) -> bool:
    """Drain and end the daemon, after `within` seconds by force. Return False where none was running.

    Raises `MqiError` for one that even force does not end.
    """
    pid = files.signal(signal.SIGTERM)
    if pid is None:
        return False
    if _gone(files, pid, within, clock, say):
        return True
    say(f"not drained within {within:.0f} s: ending it now")
    files.signal(signal.SIGTERM)  # the second one means "now"
    if _gone(files, pid, _NOW_GRACE, clock, say):
        return True
    files.signal(signal.SIGKILL)  # its processes end with it
    if _gone(files, pid, _NOW_GRACE, clock, say):
        return True
    raise MqiError(f"the daemon (process {pid}) does not end", hint="it may wait for a disk that does not answer")


def _gone(files: DaemonFiles, pid: int, within: float, clock: Clock, say: Say) -> bool:
    began = said_at = clock.elapsed()
    told: list[str] = []
    while files.running() in (pid, 0):
        status, now = files.read_status(), clock.elapsed()
        left = [each.name for each in status.children if each.state in ALIVE] if status else []
        if left and left != told and now - said_at >= _SAY_EVERY:
            say(f"waiting for: {', '.join(left)}")
            told, said_at = left, now
        if now - began > within:
            return False
        time.sleep(_POLL)
    return True


def reload(files: DaemonFiles, *, clock: Clock, within: float = 15.0) -> DaemonStatus | None:
    """Have the daemon read its config again and wait for its answer. None where none runs.

    Raises `MqiError` when it kept the old one, or gave no answer.
    """
    before = files.read_status()
    if before is None or files.signal(signal.SIGHUP) is None:
        return None
    deadline = clock.elapsed() + within
    while clock.elapsed() < deadline:
        status = files.read_status()
        if status is not None and status.reloads > before.reloads:
            if status.reload_problem:
                raise MqiError(
                    f"the daemon keeps its old config: {status.reload_problem}", hint="see: mqi daemon logs daemon"
                )
            return status
        time.sleep(_POLL)
    raise MqiError(f"the daemon gave no answer within {within:.0f} s", hint="see: mqi daemon status")
