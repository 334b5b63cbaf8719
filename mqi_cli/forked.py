"""A process forked from this one: what is imported here already is there at once, in memory that both share.

The daemon's processes are the same program with other arguments, and most of what each takes is code. Begun anew, seven
of them take three times the memory and half a second of CPU time each. Forked, they keep what isolation is for: each has
its own address space, process group, environment and end. What must not cross a fork doesn't: the caller has one
thread (`may_fork`), no database and no connection; each descriptor but those named is replaced in the child; the child
never returns into its parent's stack.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

_BUG = 70
_PR_SET_NAME = 15  # linux/prctl.h


class Forked:
    """The child, as its parent sees it; what `Supervised` uses of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: BinaryIO) -> None:
        self.pid = pid
        self.stdout = stdout

    def wait(self) -> int:
        """Take its exit status: a code, or the negative number of the signal that ended it."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else took it
            return 0


def may_fork() -> bool:
    """Whether a fork is safe here: Linux, and no other thread, whose locks would stay locked in the child for ever."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def fork(
    main: Callable[[], None], *, name: str, argv: Sequence[str], environment: Mapping[str, str], keep: int
) -> Forked:
    """Run `main` in a child with this environment and one descriptor of ours, `keep`; its output comes through a pipe.

    `argv` is what `ps` shows of it, as far as there is room. Raises `OSError`. Call it from the main thread only.
    """
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # A signal that came between the fork and the child's own handlers would be handled as the parent's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run(main, name=name, argv=argv, environment=environment, output=writing, keep=keep, mask=before)
    except OSError:
        os.close(reading)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
    with contextlib.suppress(OSError):  # the child does the same: whoever comes first
        os.setpgid(pid, pid)
    return Forked(pid, os.fdopen(reading, "rb", buffering=0))


def _run(
    main: Callable[[], None],
    *,
    name: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    keep: int,
    mask: set[int | signal.Signals],
) -> NoReturn:
    code = _BUG
    try:
        _part_from_parent(output=output, keep=keep)
        os.environ.clear()
        os.environ.update(environment)
        _show_as(name, argv)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001  nothing may return into the parent's stack
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but for what belongs to the parent: its exit functions, its objects."""
    try:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001, S110  it ends in any case
        pass
    os._exit(code)


def _part_from_parent(*, output: int, keep: int) -> None:
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    inherited = {int(each.name) for each in Path("/proc/self/fd").iterdir()} - {0, 1, 2, nothing, output, keep}
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for descriptor in inherited:
        # Replaced, not closed: an object of the parent's that closes its number later must not close a new file of ours.
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            os.dup2(nothing, descriptor, inheritable=False)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    logging.getLogger().handlers[:] = []
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]


def _show_as(name: str, argv: Sequence[str]) -> None:
    """Show this process under its own name and arguments: they lie in memory of its own, where `ps` reads them."""
    with contextlib.suppress(OSError, AttributeError, ValueError, IndexError):
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_NAME, ctypes.c_char_p(f"mqi {name}".encode()[:15]), 0, 0, 0)
        # proc(5): fields 48 and 49 of `stat`, of which the second may hold blanks
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        text = b"\0".join(each.encode() for each in argv)[: end - start - 1]
        if start and text:
            ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
