"""Asks the helper on a host: puts it there where it is missing, and turns what it refuses into errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from mqi_cli import Call, Completed, Host, HostError, HostFault, HostFull, HostUnreachable
from mqi_ssh_exec.helper import install

MOST_ANSWER = 4 << 20
_NO_SPACE = (b"No space left on device", b"Disk quota exceeded")
NO_PATTERN = "no_pattern"  # a text to look for in a log
_FAULTS = {
    "write": ("it can't write below base_dir", "look at base_dir's owner and mode"),
    "processes": ("it can't look at its processes", ""),
    "proc": ("it has no /proc", "runs need Linux"),
    NO_PATTERN: ("its grep understands no such pattern", ""),
    "no_work": ("the run's work directory is gone", ""),
}


class HelperFault(HostFault):
    """The helper said no. `kind` is its word for it; the empty one is an answer that makes no sense."""

    def __init__(self, message: str, *, host: str, kind: str, hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.kind = kind


def ask(host: Host, build: Callable[[PurePosixPath], Call]) -> bytes:
    """Make a call whose argv needs to know where the helper lies; put the helper there again if it is gone."""
    completed = make(host, build(install(host)))
    if completed.code and not completed.stdout:  # the helper answers always: it was not there to answer
        completed = make(host, build(install(host, again=True)))
    if completed.code:
        raise _fault(host.name, completed)
    return completed.stdout


def make(host: Host, call: Call) -> Completed:
    """Make a call. Raises `HostUnreachable` where it was cut off before its answer."""
    completed = host.run(call.argv, stdin=call.stdin, timeout=call.timeout, limit=MOST_ANSWER)
    if completed.code is None:
        raise HostUnreachable(f"host {host.name} ended the call before its answer", host=host.name)
    return completed


def nonsense(name: str) -> HelperFault:
    """Return the error for an answer that can't be read."""
    return HelperFault(
        f"host {name} gives an answer that makes no sense",
        host=name,
        kind="",
        hint="mqi doctor; a login script that prints something, say, spoils every answer",
    )


def _fault(name: str, completed: Completed) -> HostError:
    _, _, kind = completed.text.partition("error=")
    kind = kind.strip()
    if any(text in completed.stderr for text in _NO_SPACE):
        return HostFull(f"host {name} has no space left for a run's records", host=name)
    if kind == "incomplete":  # its input ended early
        return HostUnreachable(f"the connection to host {name} broke while a run was sent", host=name)
    if kind not in _FAULTS:
        return nonsense(name)
    what, hint = _FAULTS[kind]
    return HelperFault(f"host {name} can't do a run's work: {what}", host=name, kind=kind, hint=hint)
