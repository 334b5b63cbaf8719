"""Programs on this machine, with the manners of programs over SSH: in the home directory, in a session of their own."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mqi_cli.errors import HostFault, HostUnreachable, describe_os_error
from mqi_cli.hosts.base import Completed
from mqi_cli.hosts.streams import Deadline, ErrorTail, Incoming, Kept, Outgoing, drain, pass_on

_CHUNK = 256 * 1024
_AFTER_EXIT = 2.0  # seconds that output may still be in the pipe when the program has ended
_NOT_FOUND = 127  # a shell's exit codes for a program that isn't there and for one that can't be started
_NOT_RUNNABLE = 126
_PASSED = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR"})


def converse(name: str, argv: Sequence[str], stdin: bytes, *, timeout: float, limit: int) -> Completed:
    """Run a program, feed it, read both its streams to the end and return what it left."""
    deadline = Deadline(timeout)
    child = _spawn(name, argv)
    if isinstance(child, Completed):
        return child
    out, err = Kept(limit), Kept(limit)
    try:
        with selectors.DefaultSelector() as selector:
            to_child, from_child, errors = _pipes(child)
            selector.register(from_child, selectors.EVENT_READ, out)
            selector.register(errors, selectors.EVENT_READ, err)
            left = memoryview(stdin)
            if left:
                os.set_blocking(to_child.fileno(), False)
                selector.register(to_child, selectors.EVENT_WRITE)
            else:
                to_child.close()
            _pump(name, child, selector, left, deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return Completed(_exit_code(child.wait(deadline.remaining())), bytes(out), bytes(err))
        raise _late(name, deadline)
    finally:
        _end(child, signal.SIGKILL)


def _pump(
    name: str,
    child: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    left: memoryview,
    deadline: Deadline,
) -> None:
    """Move bytes both ways until both outputs end, or the program has ended and left nothing for a while."""
    after_exit: Deadline | None = None
    while any(key.data is not None for key in selector.get_map().values()):
        if not deadline.remaining():
            raise _late(name, deadline)
        if after_exit is None and child.poll() is not None:
            after_exit = Deadline(_AFTER_EXIT)  # what it left running may hold its output open for ever
        elif after_exit is not None and not after_exit.remaining():
            return
        for key, _ in selector.select(min(0.1, deadline.remaining())):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]  # what was registered above
            if key.data is None:
                left = _feed(stream, left)
                done = not left
            else:
                data = os.read(stream.fileno(), _CHUNK)
                key.data.add(data)
                done = not data
            if done:
                selector.unregister(stream)
                stream.close()


def _feed(stream: IO[bytes], left: memoryview) -> memoryview:
    try:
        return left[os.write(stream.fileno(), left[:_CHUNK]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]  # it took no more; its exit code tells whether that is an error


def _spawn(name: str, argv: Sequence[str]) -> subprocess.Popen[bytes] | Completed:
    if not argv or any("\0" in item for item in argv):
        raise HostFault(f"host {name}: a command needs a program, and no item may hold a NUL", host=name)
    try:
        return subprocess.Popen(
            list(argv),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=_home(),
            env=plain_environment(os.environ),
            start_new_session=True,  # a Ctrl-C at our terminal is not for it, and its whole group can be ended
        )
    except (FileNotFoundError, PermissionError) as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE
        return Completed(code, b"", f"{describe_os_error(error)}\n".encode())
    except OSError as error:
        raise HostFault(f"host {name}: a program can't be started: {describe_os_error(error)}", host=name) from error


def plain_environment(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what a program may know of our environment: as over SSH, nothing of the daemon's own, secrets least of all."""
    return {name: value for name, value in whole.items() if name in _PASSED or name.startswith("LC_")}


def _home() -> Path:
    home = Path.home()
    return home if os.access(home, os.X_OK) else Path("/")  # a service's account may have none


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise AssertionError("a program is started with three pipes")
    return child.stdin, child.stdout, child.stderr


def _exit_code(code: int) -> int | None:
    return code if code >= 0 else None  # negative: ended by a signal


def _late(name: str, deadline: Deadline) -> HostUnreachable:
    return HostUnreachable(f"host {name}: a command gave no end within {deadline.seconds:g} s", host=name)


def _end(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program that still runs, and to its group; reap it and close its streams."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        try:
            child.wait(2.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


class LocalProcess:
    """A running program with open streams."""

    bulk = True  # there is one way
    way = "this machine"

    def __init__(self, name: str, argv: Sequence[str], *, limit: int = 1 << 20) -> None:
        child = _spawn(name, argv)
        if isinstance(child, Completed):
            raise HostFault(f"host {name}: a program can't be started: {child.stderr.decode().strip()}", host=name)
        to_child, self._output, errors = _pipes(child)
        self._input = to_child
        self._name = name
        self._child = child
        self._limit = limit
        self._aborted = False
        self._raw = Incoming(self._receive)
        self._reader = io.BufferedReader(self._raw, _CHUNK)
        self._writer = io.BufferedWriter(Outgoing(self._send, to_child.close), _CHUNK)
        self.stdout: IO[bytes] = self._reader
        self.stdin: IO[bytes] = self._writer
        self._errors = ErrorTail(errors.read, name=f"stderr-{name}")

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Write bytes of an open file."""
        return pass_on(source, size, self.stdin)

    def wait(self, timeout: float) -> Completed:
        """Close standard input, read what is left of the output, and return the end."""
        deadline = Deadline(timeout)
        with contextlib.suppress(HostFault):
            self._writer.close()
        kept = drain(self._reader, self._raw, limit=self._limit, remaining=deadline.remaining)
        try:
            code = _exit_code(self._child.wait(deadline.remaining()))
        except subprocess.TimeoutExpired:
            raise _late(self._name, deadline) from None
        return Completed(code, kept, self._errors.finish(deadline.remaining()))

    def abort(self) -> None:
        """Break it off, from any thread."""
        self._aborted = True
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the program if it still runs, with a hang-up as at the end of an SSH channel."""
        self._aborted = True  # flushing could wait for a program that reads nothing any more
        with contextlib.suppress(HostFault):
            self._writer.close()
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGHUP)
        self._errors.finish(2.0)
        _end(self._child, signal.SIGKILL)

    def _receive(self, size: int, within: float | None) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if not selector.select(within):
                raise HostUnreachable(f"host {self._name}: a command's output did not end in time", host=self._name)
        return os.read(self._output.fileno(), size)

    def _send(self, data: memoryview) -> int:
        if self._aborted:
            raise HostFault(f"host {self._name}: the program was broken off", host=self._name)
        try:
            return os.write(self._input.fileno(), data)
        except OSError as error:
            raise HostFault(f"host {self._name}: the program reads no further", host=self._name) from error
