"""One child of the supervisor: its process, its two pipes, and its history."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mqi_cli.child import NAME_VARIABLE, PID_VARIABLE, SOCKET_VARIABLE
from mqi_cli.clock import Clock
from mqi_cli.crew import BROKEN, ChildSpec, ChildState
from mqi_cli.daemon import ChildStatus
from mqi_cli.errors import EXIT_CONFIG, describe_os_error
from mqi_cli.forked import Forked, fork, may_fork
from mqi_cli.logfile import Lines
from mqi_cli.restarts import HEALTHY_AFTER, Restarts

_READ_AT_ONCE = 64 * 1024
_READS_A_TURN = 16  # so that a child that never stops writing leaves the others their turn
_DUMP_TIME = 5.0  # seconds that a hung child has for writing its stacks
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Running:
    """What belongs to one process rather than to the child."""

    process: subprocess.Popen[bytes] | Forked
    connection: socket.socket
    started: float
    last_beat: float
    lines: Lines = field(default_factory=Lines)
    killed_for: str = ""  # why the supervisor ended it
    replace: bool = False  # to be started again at once
    fault: bool = False  # it is replaced for something it did
    kill_at: float | None = None


class Supervised:
    """Starts a process, hears it, ends it, and decides when it is started again. Times are `Clock.elapsed`.

    `call` is this program's own main function: a child that is this program too is forked where that is safe.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        environment: Mapping[str, str],
        clock: Clock,
        random: Random,
        log: Callable[[str], None],
        call: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self.spec = spec
        self._call = call
        self.state = ChildState.STOPPED
        self.since = clock.now()
        self.restarts = 0
        self.last_exit = ""
        self.exit_code: int | None = None
        self.memory: int | None = None
        self.due: float | None = clock.elapsed()  # when it is to be started; None for never
        self.wanted = True
        self._environment = environment
        self._clock = clock
        self._log = log
        self._restarts = Restarts(random)
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return self._running.process.pid if self._running else None

    def descriptors(self) -> list[int]:
        """Return what to wait on for its output and its signs of life."""
        if self._running is None or self._running.process.stdout is None:
            return []
        stdout, connection = self._running.process.stdout, self._running.connection.fileno()
        return [*([connection] if connection >= 0 else []), *([] if stdout.closed else [stdout.fileno()])]

    def start(self) -> None:
        """Start the process. A start that fails counts as an exit. Call it from the main thread only.

        The main thread, because the parent-death signal comes when the *thread* that started the child ends.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        environment = {
            **self._environment,
            SOCKET_VARIABLE: str(theirs.fileno()),
            PID_VARIABLE: str(os.getpid()),
            NAME_VARIABLE: self.spec.name,
            "PYTHONUNBUFFERED": "1",
        }
        now = self._clock.elapsed()
        self.due = None
        try:
            process = self._begin(environment, theirs.fileno())
        except OSError as error:
            ours.close()
            self.exit_code = None
            self._ended(f"it could not be started: {describe_os_error(error)}", lived=0.0)
            return
        finally:
            theirs.close()
        output = process.stdout
        if output is not None:  # it was asked for above
            os.set_blocking(output.fileno(), False)
        self._running = _Running(process, ours, started=now, last_beat=now)
        self._become(ChildState.STARTING)

    def _begin(self, environment: Mapping[str, str], connection: int) -> subprocess.Popen[bytes] | Forked:
        arguments, call = self.spec.arguments, self._call
        if arguments is not None and call is not None and may_fork():
            return fork(
                lambda: call(arguments),
                name=self.spec.name,
                argv=self.spec.argv,
                environment=environment,
                keep=connection,
            )
        return subprocess.Popen(
            self.spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=environment,
            pass_fds=(connection,),
            process_group=0,  # so that what it starts itself can be ended with it, and Ctrl-C reaches only us
        )

    def hear(self) -> None:
        """Take in what it wrote and whether it gave a sign of life."""
        if self._running is None:
            return
        with contextlib.suppress(OSError):
            if not self._running.connection.recv(256):
                self._running.connection.close()  # else the closed socket would wake us for ever
            else:
                self._running.last_beat = self._clock.elapsed()
                if self.state is ChildState.STARTING:
                    self._become(ChildState.RUNNING)
        self._read()

    def excuse(self) -> None:
        """Count its silence anew: it was the supervisor that stood still, not the child."""
        if self._running is not None:
            self._running.last_beat = self._clock.elapsed()

    def stop(self, within: float, *, why: str = "", replace: bool = False, fault: bool = False) -> None:
        """Ask it to end within so many seconds; a group that has not ended by then is killed.

        `replace`: start it again when it has ended; `fault`: for something that it did, so that a quick repetition
        backs off.
        """
        self.due = None
        if self._running is None:
            if self.state is not ChildState.STOPPED:
                self._become(ChildState.STOPPED)
            return
        deadline = self._clock.elapsed() + within
        if self.state is ChildState.STOPPING:
            self._running.replace = replace  # the last word counts
            self._running.kill_at = min(self._running.kill_at or deadline, deadline)
            return
        self._running.killed_for, self._running.replace, self._running.fault = why, replace, fault
        self._running.kill_at = deadline
        self._signal(signal.SIGTERM)
        self._become(ChildState.STOPPING)

    def kill(self) -> None:
        """End it and everything in its process group now."""
        self.due = None
        if self._running is not None:
            self._running.kill_at = None
            self._running.replace = False
            self._kill_group()

    def watch(self) -> None:
        """End it where it is hung, or has not ended in time."""
        running = self._running
        if running is None:
            return
        now = self._clock.elapsed()
        if running.kill_at is not None:
            if now >= running.kill_at:
                running.kill_at = None
                self._kill_group()
        elif not running.killed_for and now - running.last_beat > self.spec.beat_limit:
            running.killed_for = f"it hung: no sign of life for {now - running.last_beat:.0f} s"
            self._signal(signal.SIGABRT)  # faulthandler writes every thread's stack into the log
            running.kill_at = now + _DUMP_TIME

    def measure(self) -> None:
        """Look how much resident memory it uses, where the system tells; see `memory`."""
        self.memory = None
        if self._running is not None:
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{self._running.process.pid}/statm").read_text().split()
                self.memory = int(fields[1]) * _PAGE

    def status(self) -> ChildStatus:
        """Return what others may know of it."""
        in_seconds = self.due - self._clock.elapsed() if self.due is not None and self.state in BROKEN else None
        return ChildStatus(
            name=self.spec.name,
            state=self.state,
            pid=self.pid,
            restarts=self.restarts,
            since=round(self.since, 3),
            last_exit=self.last_exit,
            exit_code=self.exit_code,
            next_start=round(self._clock.now() + in_seconds) if in_seconds is not None else None,
            memory=self.memory,
        )

    def reap(self) -> bool:
        """Look whether it ended, clean up after it, and decide what follows. Return whether it did."""
        running = self._running
        if running is None or not _has_ended(running.process.pid):
            return False
        # It is still a zombie, which keeps its process group's id from being used again: only now is it safe to kill
        # what it left behind.
        self._kill_group()
        code = running.process.wait()
        self._read(last=True)
        if running.process.stdout is not None:
            running.process.stdout.close()
        running.connection.close()
        self._running = None
        lived = self._clock.elapsed() - running.started
        self.exit_code = code
        stopped = self.state is ChildState.STOPPING
        text = running.killed_for or _describe_exit(code)
        replace = running.replace and self.wanted
        if stopped and not (replace and running.fault and lived < HEALTHY_AFTER):
            self.last_exit = text
            self._become(ChildState.STOPPED)
            if replace:
                self.restarts += 1
                self.due = self._clock.elapsed()
        else:
            self._ended(text, lived=lived)
        return True

    def revive(self) -> None:
        """Forget its failures and start it soon: a person asked for it."""
        self._restarts.forgive()
        if self._running is None and self.wanted:
            self.due = self._clock.elapsed()

    def _ended(self, text: str, *, lived: float) -> None:
        self.last_exit = text
        self.restarts += 1
        now = self._clock.elapsed()
        if not self.wanted:
            self._become(ChildState.STOPPED)
        elif self.exit_code == EXIT_CONFIG:
            self._become(ChildState.REFUSED)
        else:
            restart = self._restarts.ended(now, lived=lived)
            self.due = now + restart.delay
            self._become(ChildState.FATAL if restart.fatal else ChildState.BACKING_OFF)

    def _become(self, state: ChildState) -> None:
        self.state = state
        self.since = self._clock.now()

    def _read(self, *, last: bool = False) -> None:
        running = self._running
        if running is None or running.process.stdout is None or running.process.stdout.closed:
            return
        for _ in range(_READS_A_TURN):
            try:
                data = os.read(running.process.stdout.fileno(), _READ_AT_ONCE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                running.process.stdout.close()  # else the closed pipe would wake us for ever
                break
            for line in running.lines.feed(data):
                self._log(line)
        if last:
            for line in running.lines.end():
                self._log(line)

    def _signal(self, number: signal.Signals) -> None:
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running.process.pid, number)

    def _kill_group(self) -> None:
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
                os.killpg(self._running.process.pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether the child ended, without taking its exit status: until that is taken its ids can't be used again."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # somebody else took it; `wait` copes with that


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
