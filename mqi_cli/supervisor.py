"""The daemon's main process: starts, watches, restarts and drains the others, and alone writes their logs.

A plain loop in one thread. Signal handlers only set flags, which the loop acts upon; nothing here touches a case.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TextIO

from mqi_cli import __version__
from mqi_cli.announce import Announcer
from mqi_cli.clock import Clock
from mqi_cli.crew import ALIVE, BROKEN, ChildSpec, ChildState, Plan
from mqi_cli.daemon import OWN_LOG, DaemonFiles, DaemonStatus
from mqi_cli.errors import ConfigError, MqiError
from mqi_cli.logbook import Logbook
from mqi_cli.logs import crashes_logged
from mqi_cli.notify import Notifier
from mqi_cli.signals import waking_signals
from mqi_cli.supervised import Supervised

_TURN = 0.5  # seconds; the longest that the loop sleeps
_CALM_TURN = 2.5  # seconds; the same while every process runs: signals, output and ends wake the loop by themselves
_STOOD_STILL = 10.0  # a turn that took longer: we were stopped or suspended, and so, perhaps, were the children
_LOOK_EVERY = 5.0  # at memory and lock
_LAST_GRACE = 5.0  # seconds for those that stop last, on top of `stop_within`

log = logging.getLogger("mqi.supervisor")


class Supervisor:
    """Runs a plan until it is told to stop. `reload` makes a new plan or raises `ConfigError`.

    `alone` says whether the lock that the caller holds still keeps a second daemon away.
    """

    def __init__(
        self,
        plan: Plan,
        files: DaemonFiles,
        *,
        reload: Callable[[], Plan],
        alone: Callable[[], bool],
        environment: Mapping[str, str],
        notifier: Notifier,
        clock: Clock,
        random: Random,
        echo: TextIO | None = None,
        call: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self.children: dict[str, Supervised] = {}
        self.orphaned = False  # ended because its state directory was taken away
        self._plan = plan
        self._call = call
        self._reload_plan = reload
        self._alone = alone
        self._environment = environment
        self._manager = notifier.manager
        self._calm_turn = min(_CALM_TURN, (notifier.watchdog_every or _CALM_TURN) / 2)
        self._announcer = Announcer(files, notifier, clock)
        self._clock = clock
        self._random = random
        self._logbook = Logbook(files.logs, clock=clock, echo=echo)
        self._stop_signals = 0
        self._reload_asked = False
        self._reloads = 0
        self._reload_problem = ""
        self._stop_deadline: float | None = None
        self._ready = False
        self._started_at = clock.now()
        self._last_turn = self._last_look = clock.elapsed()

    def run(self) -> None:
        """Run until every child has ended after a stop. The caller holds the lock."""
        self.adopt(self._plan)
        log.info("the daemon starts: %d processes", len(self.children))
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.ask_stop,
            signal.SIGINT: self.ask_stop,
            signal.SIGHUP: self.ask_reload,
            signal.SIGCHLD: lambda: None,  # it only wakes the loop
        }
        with crashes_logged(), waking_signals(handlers) as wake:
            try:
                while not self.turn(wake):
                    pass
            finally:  # whatever happens here, no child is left
                self.end_all()
                self._announcer.end()
        log.info("the daemon has ended")
        self._logbook.close()

    def ask_stop(self) -> None:
        """Drain and end; asked again, end at once."""
        self._stop_signals += 1

    def ask_reload(self) -> None:
        """Read the config again."""
        self._reload_asked = True

    def turn(self, wake: socket.socket | None = None, *, longest: float | None = None) -> bool:
        """Do what is due, once. Return whether everything has ended."""
        self._sleep(wake, self._patience() if longest is None else longest)
        self._excuse_after_standstill()
        for each in self._all():
            each.hear()
            if each.reap():
                self._tell_exit(each)
        if self._reload_asked and not self._stop_signals:
            self._reload()
        self._act_on_stop()
        self._start_due()
        for each in self._all():
            each.watch()
        if self._clock.elapsed() - self._last_look >= _LOOK_EVERY:
            self._last_look = self._clock.elapsed()
            self._watch_memory()
            self._watch_lock()
        self._tell()
        return self._stop_signals > 0 and not any(each.pid for each in self._all())

    # -- the turn's parts, in order ---------------------------------------------------------------------------------

    def _sleep(self, wake: socket.socket | None, longest: float) -> None:
        waiting = [descriptor for each in self._all() for descriptor in each.descriptors()]
        if wake is not None:
            waiting.append(wake.fileno())
        now = self._clock.elapsed()
        due = [each.due - now for each in self._all() if each.due is not None]
        poller = select.poll()  # not select(): that can't watch descriptors beyond 1023
        for descriptor in waiting:
            poller.register(descriptor, select.POLLIN)
        poller.poll(max(0.0, min([longest, *due])) * 1000)
        if wake is not None:
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)

    def _patience(self) -> float:
        if self._stop_signals or any(each.state is not ChildState.RUNNING for each in self._all()):
            return _TURN
        return min([self._calm_turn, *(each.spec.beat_limit for each in self._all())])

    def _excuse_after_standstill(self) -> None:
        now = self._clock.elapsed()
        if now - self._last_turn > _STOOD_STILL:
            for each in self._all():
                each.excuse()
        self._last_turn = now

    def _reload(self) -> None:
        self._reload_asked = False
        self._reloads += 1
        self._reload_problem = ""
        self._announcer.reloading()
        try:
            plan = self._reload_plan()
        except MqiError as error:
            problems = error.problems if isinstance(error, ConfigError) else ()
            self._reload_problem = error.message
            for line in (error.message, *problems):
                log.error("not reloaded, the old config stays: %s", line)
        except Exception:
            self._reload_problem = "a bug; see: mqi daemon logs daemon"
            log.exception("not reloaded, the old config stays")
        else:
            self.adopt(plan)
        self._announcer.reloaded(self._status())

    def adopt(self, plan: Plan) -> None:
        """Go over to a plan: replace only the processes that it changes, and give up on none that failed before."""
        self._plan = plan
        self._logbook.adjust(plan.log, plan.secrets, own=OWN_LOG)
        specs = {each.name: each for each in plan.children}
        for name in self.children.keys() - specs.keys():
            log.info("%s is no longer wanted", name)
            self.children[name].wanted = False
            self.children[name].stop(plan.stop_within)
        for name, spec in specs.items():
            child = self.children.get(name)
            if child is None:
                self.children[name] = self._new_child(spec)
                continue
            changed = not child.spec.same_process(spec) or child.state is ChildState.STOPPING
            child.spec, child.wanted = spec, True
            if changed and child.pid is not None:
                log.info("%s is replaced: the config has changed", name)
                child.stop(plan.stop_within, why="its config changed", replace=True)
            elif child.pid is None:
                child.revive()

    def _act_on_stop(self) -> None:
        if not self._stop_signals:
            return
        now = self._clock.elapsed()
        if self._stop_deadline is None:
            self._stop_deadline = now + self._plan.stop_within
            log.info("the daemon stops: its processes have %.0f s", self._plan.stop_within)
            for each in self._all():
                each.wanted = False
                if not each.spec.last:
                    each.stop(self._plan.stop_within)
                elif each.pid is None:
                    each.stop(0)
        if not any(each.pid for each in self._all() if not each.spec.last):
            for each in self._all():
                each.stop(max(_LAST_GRACE, self._stop_deadline - now))
        if self._stop_signals > 1:
            for each in self._all():
                each.kill()

    def _start_due(self) -> None:
        for each in self._all():
            if each.due is not None and self._clock.elapsed() >= each.due and each.pid is None and each.wanted:
                each.start()
                if each.pid is None:
                    self._tell_exit(each)
        for name in [name for name, each in self.children.items() if not each.wanted and each.pid is None]:
            if not self._stop_signals:
                del self.children[name]

    def _watch_memory(self) -> None:
        for each in self._all():
            each.measure()
            used, limit = each.memory, each.spec.memory_limit
            if used is not None and limit is not None and used > limit and each.state is not ChildState.STOPPING:
                why = f"it grew to {used // 1_000_000} MB, its limit is {limit // 1_000_000} MB"
                log.warning("%s is replaced: %s", each.spec.name, why)
                each.stop(self._plan.stop_within, why=why, replace=True, fault=True)

    def _watch_lock(self) -> None:
        if not self._stop_signals and not self._alone():
            self.orphaned = True
            log.critical("the lock file was removed under the daemon, and another one could start: it ends")
            self.ask_stop()

    def _tell(self) -> None:
        if not self._ready and all(each.state in ALIVE - {ChildState.STARTING} | BROKEN for each in self._all()):
            self._ready = True
            log.info("the daemon is up: %s", self._status().headline)
        self._announcer.tell(self._status())

    # -- smaller things ---------------------------------------------------------------------------------------------

    def _all(self) -> Sequence[Supervised]:
        return list(self.children.values())

    def _new_child(self, spec: ChildSpec) -> Supervised:
        return Supervised(
            spec,
            environment=self._environment,
            clock=self._clock,
            random=self._random,
            log=lambda line: self._logbook.write(spec.name, line),
            call=self._call,
        )

    def _tell_exit(self, child: Supervised) -> None:
        name, why = child.spec.name, child.last_exit
        if child.state is ChildState.STOPPED:
            log.info("%s has ended: %s", name, why)
        elif child.state is ChildState.REFUSED:
            log.error("%s refuses its config and is not started again; mend it, then: mqi daemon reload", name)
        else:
            delay = (child.due or 0.0) - self._clock.elapsed()
            text = (
                "%s ends again and again (%s); next try in %.0f s"
                if child.state is ChildState.FATAL
                else ("%s ended by itself (%s); it is started again in %.1f s")
            )
            log.log(logging.ERROR if child.state is ChildState.FATAL else logging.WARNING, text, name, why, delay)

    def _status(self) -> DaemonStatus:
        state = "stopping" if self._stop_signals else "running" if self._ready else "starting"
        return DaemonStatus(
            pid=os.getpid(),
            version=__version__,
            config_file=self._plan.config_file,
            managed_by=self._manager,
            started_at=round(self._started_at, 3),
            state=state,
            ready=self._ready,
            reloads=self._reloads,
            reload_problem=self._reload_problem,
            children=tuple(each.status() for each in self._all()),
        )

    def end_all(self) -> None:
        for each in self._all():
            each.wanted = False
            each.kill()
        deadline = self._clock.elapsed() + _LAST_GRACE
        while any(each.pid for each in self._all()) and self._clock.elapsed() < deadline:
            self._sleep(None, 0.05)
            for each in self._all():
                each.hear()
                each.reap()
