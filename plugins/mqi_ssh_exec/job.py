"""One attempt's run on its host: submit, look, end, examine. Every call may be repeated after a lost reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mqi_cli import Completed, Host, HostError, HostFault, HostFull, HostUnreachable
from mqi_ssh_exec.helper import install
from mqi_ssh_exec.job_status import JobStatus, read_report
from mqi_ssh_exec.scheduler import Call, Order, Place, Scheduler, helper_call, scheduler_named

SEARCH_TIMEOUT = 300.0  # seconds; logs and work directories may be large
MOST_ANSWER = 4 << 20
_NO_SPACE = (b"No space left on device", b"Disk quota exceeded")
_FAULTS = {
    "write": ("it can't write below base_dir", "look at base_dir's owner and mode"),
    "processes": ("it can't look at its processes", ""),
    "proc": ("it has no /proc", "runs need Linux"),
    "no_work": ("the run's work directory is gone", ""),
}


class HelperFault(HostFault):
    """The helper said no. `kind` is its word for it; the empty one is an answer that makes no sense."""

    def __init__(self, message: str, *, host: str, kind: str, hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.kind = kind


@dataclass(frozen=True)
class Output:
    """What one output pattern matches. An empty directory matches no file."""

    files: int
    empty: int
    size: int


@dataclass(frozen=True)
class Outputs:
    """What all output patterns match, in their order. `stable` is False while anything still changed between two looks."""

    matched: tuple[Output, ...]
    stable: bool


@dataclass(frozen=True)
class LogPiece:
    """A gapless stretch of a run's log that begins at byte `start`."""

    start: int
    data: bytes


@dataclass(frozen=True)
class Job:
    """A run on a host. Nothing of it need be there yet."""

    host: Host
    place: Place

    def of_attempt(self, attempt: int) -> Job:
        """Return the same part's run of another attempt."""
        return replace(self, place=replace(self.place, attempt=attempt))

    def submit(self, order: Order, *, wait: int = 0) -> JobStatus:
        """Start it, unless it was started before, and wait up to `wait` seconds for its end.

        Not started but `busy` when an earlier attempt still runs, or may.
        """
        return self._report(lambda helper: self._scheduler(helper).submit(self.place, order, wait=wait))

    def status(self, *, wait: int = 0) -> JobStatus:
        """Look at it; while it goes on, wait up to `wait` seconds for its end."""
        return self._report(lambda helper: self._scheduler(helper).status(self.place, wait=wait))

    def kill(self, *, grace: int, reason: str, wait: int) -> JobStatus:
        """Ask it to end, force it `grace` seconds after the first such call; wait up to `wait` seconds."""
        return self._report(
            lambda helper: self._scheduler(helper).kill(self.place, grace=grace, reason=reason, wait=wait)
        )

    def outputs(self, patterns: Sequence[str], *, pause: int = 1) -> Outputs:
        """Count what patterns match in its work directory, in two looks `pause` seconds apart."""
        lines = self._lines("outputs", str(pause), *patterns)
        matched = [tuple(map(int, value.split())) for name, value in lines if name == "output"]
        if len(matched) != len(patterns) or any(len(each) != 3 for each in matched):
            raise self._nonsense()
        return Outputs(tuple(Output(*each) for each in matched), ("stable", "1") in lines)

    def search(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether its log contains it."""
        found = [value == "1" for name, value in self._lines("search", *texts) if name == "found"]
        if len(found) != len(texts):
            raise self._nonsense()
        return found

    def log(self, start: int, *, size: int) -> LogPiece:
        """Read up to `size` bytes of its log from byte `start`, or from where it goes on after what was left out."""
        answer = self._ask(lambda helper: helper_call(helper, "log", self.place, str(start), str(size)))
        head, _, data = answer.partition(b"\n\n")
        name, _, value = head.decode("ascii", "replace").partition("=")
        if name != "from" or not value.isdigit():
            raise self._nonsense()
        return LogPiece(int(value), data)

    def _scheduler(self, helper: PurePosixPath) -> Scheduler:
        return scheduler_named(self.host.config.scheduler, helper)

    def _report(self, build: Callable[[PurePosixPath], Call]) -> JobStatus:
        try:
            return read_report(self._ask(build).decode("utf-8", "replace"))
        except ValueError:
            raise self._nonsense() from None

    def _lines(self, verb: str, *arguments: str) -> list[tuple[str, str]]:
        answer = self._ask(lambda helper: helper_call(helper, verb, self.place, *arguments, timeout=SEARCH_TIMEOUT))
        parts = (line.partition("=") for line in answer.decode("utf-8", "replace").splitlines())
        return [(name, value) for name, _, value in parts]

    def _ask(self, build: Callable[[PurePosixPath], Call]) -> bytes:
        """Make a call whose argv needs to know where the helper lies; put the helper there again if it is gone."""
        completed = self._make(build(install(self.host)))
        if completed.code and not completed.stdout:  # the helper answers always: it was not there to answer
            completed = self._make(build(install(self.host, again=True)))
        if completed.code:
            raise self._fault(completed)
        return completed.stdout

    def _make(self, call: Call) -> Completed:
        completed = self.host.run(call.argv, stdin=call.stdin, timeout=call.timeout, limit=MOST_ANSWER)
        if completed.code is None:
            raise HostUnreachable(f"host {self.host.name} ended the call before its answer", host=self.host.name)
        return completed

    def _fault(self, completed: Completed) -> HostError:
        name = self.host.name
        _, _, kind = completed.text.partition("error=")
        kind = kind.strip()
        if any(text in completed.stderr for text in _NO_SPACE):
            return HostFull(f"host {name} has no space left for a run's records", host=name)
        if kind == "incomplete":  # its input ended early
            return HostUnreachable(f"the connection to host {name} broke while a run was sent", host=name)
        if kind not in _FAULTS:
            return self._nonsense()
        what, hint = _FAULTS[kind]
        return HelperFault(f"host {name} can't do a run's work: {what}", host=name, kind=kind, hint=hint)

    def _nonsense(self) -> HelperFault:
        return HelperFault(
            f"host {self.host.name} gives an answer that makes no sense",
            host=self.host.name,
            kind="",
            hint="mqi doctor; a login script that prints something, say, spoils every answer",
        )
