"""One look at all runs of a host, shared by every turn of this process: however many runs, one call and one of the queue.

Whoever asks for a run's state says how often it wants a new one. The first to find its own too old looks for all those
that are about to be.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mqi_cli import Host, Queued, Scheduler
from mqi_ssh_exec.asking import ask, make, nonsense
from mqi_ssh_exec.helper_calls import Place, survey_call
from mqi_ssh_exec.job_status import OVER, JobStatus, read_survey
from mqi_ssh_exec.queue_view import QueueLook

QUEUE_AGE = 5.0  # seconds; a queue is not asked more often, whatever is in doubt
FORGET = 3.0  # intervals after which a run that nobody asked for is left out
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
        return replace(status, now=status.now + int(age))

    def forget(self, place: Place) -> None:
        """Take no old word for a run that was just acted upon."""
        with self._lock:
            self._runs.pop(place, None)

    def sent(self) -> None:
        """Take an older look at the queue for no word on what has just been put there."""
        self._sent_at = self._elapsed()

    def queue(self, host: Host, scheduler: Scheduler, tag: str, *, fresh: bool = False) -> QueueLook:
        """Ask a host's queue, and the records of the past for one that it does not know."""
        with self._queue_lock:
            now = self._elapsed()
            if fresh or now - self._known_at >= QUEUE_AGE or self._known_at <= self._sent_at:
                self._known = scheduler.read_look(make(host, scheduler.look()))
                self._known_at = now  # when it was begun: what was sent meanwhile may be missing from it
            known = self._known
        if known is not None and tag in known:
            return QueueLook(known)
        call = scheduler.look_back([tag])
        return QueueLook(known, scheduler.read_look_back(make(host, call)) if call else None)

    def _look(self, host: Host, wanted: Place) -> None:
        now = self._elapsed()
        for place, run in list(self._runs.items()):
            if now - run.asked_at > FORGET * run.interval + 60.0:
                del self._runs[place]
        due = [each for each, run in self._runs.items() if each != wanted and now - run.looked_at >= run.interval / 2]
        places = [wanted, *due[: MOST - 1]]
        tails = [each for each in places if self._runs[each].tail]
        answer = ask(host, lambda helper: survey_call(helper, places, tails)).decode("utf-8", "replace")
        try:
            seen = read_survey(answer)
            found = [(place, seen[str(place.part), place.attempt]) for place in places]
        except (ValueError, KeyError):
            raise nonsense(host.name) from None
        now = self._elapsed()
        for place, status in found:
            self._runs[place].status, self._runs[place].looked_at = status, now


_lookouts: weakref.WeakKeyDictionary[Host, Lookout] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def lookout_of(host: Host) -> Lookout:
    """Return the one lookout of a host in this process."""
    with _making:
        return _lookouts.setdefault(host, Lookout())
