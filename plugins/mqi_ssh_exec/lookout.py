"""One look at all runs of a host, shared by every turn of this process: however many runs, one call and one of the queue.

Whoever asks for a run's state says how often it wants a new one. The first to find its own too old looks for all those
that are about to be.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mqi_cli import Completed, Host, Queued, Scheduler
from mqi_ssh_exec.asking import ask, make, nonsense
from mqi_ssh_exec.helper_calls import Place, survey_call
from mqi_ssh_exec.job_status import OVER, JobState, JobStatus, read_survey
from mqi_ssh_exec.queue_view import QueueLook

QUEUE_AGE = 5.0  # seconds; a queue is not asked more often, whatever is in doubt
QUEUE_FORGET = 600.0  # seconds after which a tag that nobody asked for is left out
NOT_FOUND = 127  # a shell's exit code
_LONGEST = 160  # characters of what a queue's program wrote
# A run that nobody asked for is left out after so many of its intervals, so many seconds, and so many for each run: the
# more there are, the rarer their turns.
FORGET, FORGET_LEAST, FORGET_EACH = 3.0, 60.0, 0.3
MOST = 1000  # runs in one look


@dataclass
class _Watched:
    asked_at: float
    interval: float = 1.0
    tail: bool = False  # the end of its log is wanted too
    looked_at: float = float("-inf")
    status: JobStatus | None = None


class Lookout:
    """What this process knows of a host's runs."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._runs: dict[Place, _Watched] = {}
        self._known: Mapping[str, Queued] | None = None
        self._past: Mapping[str, Queued] | None = None
        self._past_of: frozenset[str] = frozenset()  # what the records of the past were asked for since the last look
        self._why = ""
        self._tags: dict[str, float] = {}  # what was asked for, and when last
        self._known_at = self._sent_at = float("-inf")

    def __len__(self) -> int:
        return len(self._runs)

    def status(
        self, host: Host, place: Place, *, interval: Callable[[JobStatus], float], tail: bool = False
    ) -> JobStatus:
        """Return a run's state, not older than the seconds that `interval` gives for the state last seen.

        With `tail`, the end of its log with it.
        """
        with self._lock:
            now = self._elapsed()
            watched = self._runs.setdefault(place, _Watched(asked_at=now))
            watched.asked_at, watched.tail = now, tail
            if watched.status is not None:  # looks for others' sake have kept it up to date: it is older by now
                watched.interval = interval(watched.status)
            if watched.status is None or now - watched.looked_at >= watched.interval * 0.9:
                self._look(host, place)
                assert watched.status is not None  # noqa: S101
                watched.interval = interval(watched.status)
            status = watched.status
            assert status is not None  # noqa: S101  the look filled it
            if status.state in OVER:
                del self._runs[place]
            age = max(0.0, self._elapsed() - watched.looked_at)
        return status.later(int(age))

    def forget(self, place: Place) -> None:
        """Take no old word for a run that was just acted upon."""
        with self._lock:
            self._runs.pop(place, None)

    def learn(self, place: Place, status: JobStatus) -> None:
        """Take in what was heard of a run that was just begun: from now on looks for others' sake keep it up to date.

        Else the next turn of each run would cost a look of its own.
        """
        if status.state is JobState.RUNNING:
            with self._lock:
                now = self._elapsed()
                self._runs[place] = _Watched(asked_at=now, looked_at=now, status=status)

    def mention(self, tags: Iterable[str]) -> None:
        """Have the next look at the records of the past ask for all these runs, not for each by itself."""
        with self._queue_lock:
            self._tags |= dict.fromkeys(tags, self._elapsed())

    def sent(self) -> None:
        """Take an older look at the queue for no word on what has just been put there."""
        self._sent_at = self._elapsed()

    def queue(
        self, host: Host, scheduler: Scheduler, tag: str, *, fresh: bool = False, age: float = QUEUE_AGE
    ) -> QueueLook:
        """Ask a host's queue, and the records of the past for what it does not know: once for all runs of the host.

        The answer is not older than `age` seconds. A queue that gave none is left alone for a while, also by `fresh`.
        """
        with self._queue_lock:
            now = self._elapsed()
            self._tags[tag] = now
            since = now - self._known_at
            silent = self._known is None and since < QUEUE_AGE
            if not silent and (fresh or since >= max(age, QUEUE_AGE) or self._known_at <= self._sent_at):
                self._ask_queue(host, scheduler, now)
            if self._known is None or tag not in self._known:
                self._ask_past(host, scheduler, tag, now)
            return QueueLook(self._known, self._past, self._why)

    def _ask_queue(self, host: Host, scheduler: Scheduler, now: float) -> None:
        answer = make(host, scheduler.look())
        self._known = scheduler.read_look(answer)
        self._why = "" if self._known is not None else first_words(answer)
        # What was sent since it began may be missing from an answer. A queue that has none takes its time to say so.
        self._known_at = self._elapsed() if self._known is None else now
        self._past, self._past_of = None, frozenset()

    def _ask_past(self, host: Host, scheduler: Scheduler, tag: str, now: float) -> None:
        if tag in self._past_of:
            return
        self._tags = {each: at for each, at in self._tags.items() if now - at < QUEUE_FORGET}
        lacking = sorted(self._tags.keys() - (self._known or {}).keys())
        call = scheduler.look_back(lacking)
        self._past = scheduler.read_look_back(make(host, call)) if call else None
        self._past_of = frozenset(lacking)

    def _look(self, host: Host, wanted: Place) -> None:
        now = self._elapsed()
        for place, run in list(self._runs.items()):
            if now - run.asked_at > FORGET * run.interval + FORGET_LEAST + FORGET_EACH * len(self._runs):
                del self._runs[place]
        due = [each for each, run in self._runs.items() if each != wanted and now - run.looked_at >= run.interval / 2]
        places = [wanted, *due[: MOST - 1]]
        tails = [each for each in places if self._runs[each].tail]
        found = survey(host, places, tails)
        now = self._elapsed()
        for place, status in zip(places, found, strict=True):
            self._runs[place].status, self._runs[place].looked_at = status, now


def survey(host: Host, places: Sequence[Place], tails: Sequence[Place] = (), *, whole: bool = False) -> list[JobStatus]:
    """Look at runs of a host in one call: at most `MOST`."""
    answer = ask(host, lambda helper: survey_call(helper, places, tails, whole=whole)).decode("utf-8", "replace")
    try:
        seen = read_survey(answer)
        return [seen[str(place.part), place.attempt] for place in places]
    except (ValueError, KeyError):
        raise nonsense(host.name) from None


def first_words(answer: Completed) -> str:
    """Return what a program wrote when it failed, in one line."""
    if answer.code == NOT_FOUND:
        return "its programs are not in the PATH of a login without a terminal"
    text = answer.stderr.decode("utf-8", "replace") or answer.text
    line = next((each.strip() for each in text.splitlines() if each.strip()), "")
    return "".join(each for each in line if each.isprintable())[:_LONGEST]


_lookouts: weakref.WeakKeyDictionary[Host, Lookout] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def lookout_of(host: Host) -> Lookout:
    """Return the one lookout of a host in this process."""
    with _making:
        return _lookouts.setdefault(host, Lookout())
