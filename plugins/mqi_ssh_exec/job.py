"""One attempt's run on its host: submit, look, end, examine. Every call may be repeated after a lost reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mqi_cli import Batch, Call, GiveUp, Host, QueueState, Refusal, Scheduler
from mqi_ssh_exec import quick
from mqi_ssh_exec.asking import NO_PATTERN, HelperFault, ask, make, nonsense
from mqi_ssh_exec.helper_calls import (
    Order,
    Place,
    enqueue_call,
    helper_call,
    kill_call,
    runner_command,
    status_call,
    submit_call,
)
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus, read_report
from mqi_ssh_exec.lookout import MOST, Lookout, lookout_of, survey
from mqi_ssh_exec.queue_view import ENDS, LISTED, asks_queue, with_queue

SEARCH_TIMEOUT = 300.0  # seconds; logs and work directories may be large
_MARGIN = 64 * 1024  # bytes; more was written by no queue and no runner
FORCE_AFTER = 20  # seconds over its grace after which a run in a queue is ended with all it started


@dataclass(frozen=True)
class Output:
    """What one output pattern matches. An empty directory matches no file."""

    files: int
    empty: int
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether files are there, and none of them is empty."""
        return self.files > 0 and not self.empty


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
    """A run on a host. Nothing of it need be there yet. `name` is what it is called in a queue, but for its attempt."""

    host: Host
    place: Place
    scheduler: Scheduler
    name: str

    @property
    def tag(self) -> str:
        """What this attempt is called in a queue."""
        return f"{self.name}-{self.place.attempt}"

    @property
    def lookout(self) -> Lookout:
        """What this process knows of the host's runs."""
        return lookout_of(self.host)

    def of_attempt(self, attempt: int) -> Job:
        """Return the same part's run of another attempt."""
        return replace(self, place=replace(self.place, attempt=attempt))

    def submit(self, order: Order, *, wait: int = 0, outputs: Sequence[str] = ()) -> JobStatus:
        """Start it, unless it was started before, and wait up to `wait` seconds for its end where there is no queue.

        Not started but `busy` when an earlier attempt still runs, or may. Once it has ended, what `outputs` match is counted.
        """
        self.lookout.forget(self.place)
        if self._program(order, PurePosixPath("/")) is None:
            status = self._start(order, wait=wait, outputs=outputs)
            self.lookout.learn(self.place, status)
            return status
        return self._enqueue(order)

    def _start(self, order: Order, *, wait: int, outputs: Sequence[str]) -> JobStatus:
        report, begun = quick.submit(self.host, self.place, order, wait=wait, outputs=outputs)
        if report:
            return self._read(report)
        wait = 0 if begun else wait
        return self._report(lambda helper: submit_call(helper, self.place, order, wait=wait, outputs=outputs))

    def status(
        self, *, wait: int = 0, interval: Callable[[JobStatus], float] | None = None, tail: bool = False
    ) -> JobStatus:
        """Look at it; while it goes on, wait up to `wait` seconds for its end.

        With `interval`, the last look at all runs of the host will do when it is not older than what
        `interval` says for the state that was seen then (seconds); with `tail`, the end of its log comes along.
        """
        if interval is None:
            status = self._report(lambda helper: status_call(helper, self.place, wait=wait))
        else:
            status = self.lookout.status(self.host, self.place, interval=interval, tail=tail)
        return self.asked_of_queue(status, age=interval(status) if interval else 0.0)

    def kill(self, *, grace: int, reason: str, wait: int) -> JobStatus:
        """Ask it to end, force it `grace` seconds after the first such call; wait up to `wait` seconds."""
        self.lookout.forget(self.place)
        status = self._report(lambda helper: kill_call(helper, self.place, grace=grace, reason=reason, wait=wait))
        if not status.sent:
            return status
        look = self.lookout.queue(self.host, self.scheduler, self.tag, fresh=True)
        found = look.find(self.tag)
        if found is not None and found.state in LISTED and status.state is not JobState.RUNNING:
            late = bool(status.asked_at) and status.now - status.asked_at > grace + FORCE_AFTER
            make(self.host, self.scheduler.cancel([found], force=late or status.state in OVER))
        if status.state in OVER and look.known is None:
            return status  # its records prove its end; why, the queue may say to whom it matters
        return with_queue(status, look, self.tag) if asks_queue(status) else status

    def node_answers(self, node: str) -> bool | None:
        """Whether the machine that it began on answers to its scheduler; None where the scheduler can't tell."""
        call = self.scheduler.look_at_node(node) if node else None
        return self.scheduler.node_answers(make(self.host, call)) if call else None

    def settle(self, reason: str) -> JobStatus:
        """Write down for good that it is over, as its queue says; nothing of it ever begins after this."""
        self.lookout.forget(self.place)
        return self._report(lambda helper: helper_call(helper, "settle", self.place, reason))

    def outputs(self, patterns: Sequence[str], *, pause: int = 1) -> Outputs:
        """Count what patterns match in its work directory, in two looks `pause` seconds apart."""
        lines = self._lines("outputs", str(pause), *patterns)
        matched = [tuple(map(int, value.split())) for name, value in lines if name == "output"]
        if len(matched) != len(patterns) or any(len(each) != 3 for each in matched):
            raise self._nonsense()
        return Outputs(tuple(Output(*each) for each in matched), ("stable", "1") in lines)

    def search(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether its log contains it. Raises `GiveUp` where the host's grep can't read one as a pattern."""
        try:
            found = [value == "1" for name, value in self._lines("search", *texts) if name == "found"]
        except HelperFault as fault:
            if fault.kind != NO_PATTERN:
                raise
            raise GiveUp(
                f"its log can't be judged: grep on {self.host.name} understands no such pattern",
                hint="log_must_contain and log_must_not_contain take extended regular expressions (POSIX) between slashes",
            ) from fault
        if len(found) != len(texts):
            raise self._nonsense()
        return found

    def margin(self) -> bytes:
        """Return the ends of what its queue and its runner wrote beside its log: why it could not begin, mostly."""
        found = b""
        with self.host.files() as files:
            for name in ("queue.log", "runner.log"):
                path = self.place.records / name
                there = files.stat(path)
                if there is not None and there.is_file and there.size <= _MARGIN:
                    found += files.read_bytes(path, limit=_MARGIN)
        return found

    def end_by_log(self) -> str:
        """Return why it ended by what its queue wrote beside its log; "" where that does not tell."""
        found = self.scheduler.read_log(self.margin().decode("utf-8", "replace"))
        return ENDS[found] if found else ""

    def line_with(self, text: str) -> tuple[int, str]:
        """Return the number and the text of the first line of its log that contains a text; 0 where it can't be found again."""
        for name, value in self._lines("line", text):
            number, _, line = value.partition(" ")
            if name == "line" and number.isdigit():
                return int(number), line
        return 0, ""

    def log(self, start: int, *, size: int) -> LogPiece:
        """Read up to `size` bytes of its log from byte `start`, or from where it goes on after what was left out."""
        answer = ask(self.host, lambda helper: helper_call(helper, "log", self.place, str(start), str(size)))
        head, _, data = answer.partition(b"\n\n")
        name, _, value = head.decode("ascii", "replace").partition("=")
        if name != "from" or not value.isdigit():
            raise self._nonsense()
        return LogPiece(int(value), data)

    def _enqueue(self, order: Order) -> JobStatus:
        """Look it up in the queue, then put it there. A claim on the host sees to it that one alone does."""
        look = self.lookout.queue(self.host, self.scheduler, self.tag, fresh=True)
        status = self._report(lambda helper: status_call(helper, self.place, wait=0))
        if look.find(self.tag) is not None:  # its records may be gone, or its id was lost on the way here
            return with_queue(replace(status, sent=status.sent or "?"), look, self.tag)
        if look.known is None or status.state not in (JobState.NONE, JobState.CLAIMED):
            unanswered = replace(status, answered=False, silence=look.why)
            return with_queue(status, look, self.tag) if asks_queue(status) else unanswered
        return self._send(order)

    def _send(self, order: Order) -> JobStatus:
        def build(helper: PurePosixPath) -> Call:
            program = self._program(order, helper)
            assert program is not None  # noqa: S101  asked before
            batch = self._batch(order, helper)
            script = self.scheduler.script(batch)
            return enqueue_call(helper, self.place, order, script=script, program=program)

        try:
            status = self._report(build)
        finally:
            self.lookout.sent()
        if status.refused and self.scheduler.refusal(status.refused) is not Refusal.UNKNOWN:
            ask(self.host, lambda helper: helper_call(helper, "unsend", self.place))
            status = replace(status, sent="")
        return status

    def _program(self, order: Order, helper: PurePosixPath) -> tuple[str, ...] | None:
        return self.scheduler.launch(self._batch(order, helper))

    def _batch(self, order: Order, helper: PurePosixPath) -> Batch:
        log = self.place.records / "queue.log"
        return Batch(self.tag, runner_command(helper, self.place, order), log, order.resources)

    def asked_of_queue(self, status: JobStatus, *, age: float) -> JobStatus:
        """Return what its records say with what its queue does, where they leave that open."""
        if not asks_queue(status):
            return status
        look = self.lookout.queue(self.host, self.scheduler, self.tag, age=age)
        found = look.find(self.tag)
        over = status.state in OVER or (status.state is JobState.UNKNOWN and status.started is not None)
        if over and found is not None and found.state is QueueState.PENDING:
            # put back, or the look is older than its beginning: only a new one can tell
            look = self.lookout.queue(self.host, self.scheduler, self.tag, fresh=True)
        return with_queue(status, look, self.tag)

    def _report(self, build: Callable[[PurePosixPath], Call]) -> JobStatus:
        return self._read(ask(self.host, build))

    def _read(self, report: bytes) -> JobStatus:
        try:
            return read_report(report.decode("utf-8", "replace"))
        except ValueError:
            raise self._nonsense() from None

    def _lines(self, verb: str, *arguments: str) -> list[tuple[str, str]]:
        answer = ask(
            self.host, lambda helper: helper_call(helper, verb, self.place, *arguments, timeout=SEARCH_TIMEOUT)
        )
        parts = (line.partition("=") for line in answer.decode("utf-8", "replace").splitlines())
        return [(name, value) for name, _, value in parts]

    def _nonsense(self) -> HelperFault:
        return nonsense(self.host.name)


def look_at_all(jobs: Sequence[Job], *, tail: bool) -> list[JobStatus]:
    """Look at runs of one host: in one call for many of them, and one of its queue. With `tail`, at the ends of their logs."""
    found: list[JobStatus] = []
    for first in range(0, len(jobs), MOST):
        places = [each.place for each in jobs[first : first + MOST]]
        found += survey(jobs[0].host, places, places if tail else (), whole=True)
    both = list(zip(jobs, found, strict=True))
    if asking := [job.tag for job, status in both if asks_queue(status)]:
        jobs[0].lookout.mention(asking)
    return [job.asked_of_queue(status, age=0.0) for job, status in both]
