"""Runs patrols: each in its interval, on the machine that has the state database, through the same intake as by hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mqi_cli.case import CaseState
from mqi_cli.clock import Clock
from mqi_cli.config.loaded import Config
from mqi_cli.errors import MqiError
from mqi_cli.host_pool import HostPool
from mqi_cli.hosts.base import Host
from mqi_cli.intake import Intake
from mqi_cli.patrol import CaseView, Finding, KnownCase, Patrol, SourceView
from mqi_cli.plugins import Plugins
from mqi_cli.stage import Workflow
from mqi_cli.store import Store

log = logging.getLogger("mqi.patrol")


class Round:
    """The context of one round of a patrol (`PatrolContext`)."""

    def __init__(
        self,
        patrol: Patrol,
        *,
        config: Config,
        plugins: Plugins,
        hosts: HostPool,
        intake: Intake,
        store: Store,
        clock: Clock,
        stopping: Callable[[], bool],
        sources: Sequence[SourceView] | None = None,
        hosts_named: Sequence[str] | None = None,
        reported: Callable[[Finding], None] = lambda finding: None,
    ) -> None:
        self.config: Any = config.sections.get(plugins.section_of(patrol))
        self.log = logging.LoggerAdapter(log, {"step": patrol.name})
        self.clock = clock
        self.sources: Sequence[SourceView] = config.source_views() if sources is None else sources
        self.hosts: Sequence[str] = tuple(config.hosts if hosts_named is None else hosts_named)
        self.workflows: Mapping[str, Workflow] = config.workflows
        self.owner = store.owner
        self._data_dir = config.state_dir / "plugins" / plugins.owner_of("patrol", patrol.name)
        self._hosts = hosts
        self._intake = intake
        self._store = store
        self._stopping = stopping
        self._reported = reported

    @property
    def data_dir(self) -> Path:
        """Return the plugin's own directory on this machine."""
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._data_dir

    def host(self, name: str) -> Host:
        """Return a host of the config."""
        return self._hosts.get(name)

    def known(self, source: str, names: Iterable[str]) -> Mapping[str, KnownCase]:
        """Return what is known of these names below a source."""
        return self._intake.known(source, names)

    def settling(self, source: str) -> Sequence[str]:
        """Return the names below a source that were seen and are not complete."""
        return self._store.cases.settling(source)

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        """Return the cases in these states, oldest first."""
        return self._intake.views(*states)

    def case(self, key: str) -> CaseView | None:
        """Return the case with this key; None when there is none."""
        return self._intake.view_of(key)

    def report(self, finding: Finding) -> None:
        """Apply a finding; durable when it returns."""
        self._intake.take(finding)
        self._reported(finding)

    def backup_state(self, directory: Path, *, keep: int) -> Path:
        """Write a checked copy of the state database and keep the newest `keep`."""
        from mqi_cli.store.backup import backup

        return backup(self._store.path, directory, keep=keep, now=self.clock.now())

    def stopping(self) -> bool:
        """Whether the process is asked to end."""
        return self._stopping()


class PatrolLoop:
    """Goes its rounds in a thread of its own. A round that fails is logged; the next one comes all the same."""

    def __init__(
        self,
        patrol: Patrol,
        make_round: Callable[[Callable[[Finding], None]], Round],
        *,
        interval: float,
        stop: threading.Event,
        wake_conductor: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self._patrol = patrol
        self._make_round = make_round
        self._interval = interval
        self._stop = stop
        self._wake_conductor = wake_conductor
        self._close = close

    def run(self) -> None:
        """Go rounds until the process is asked to end."""
        try:
            while not self._stop.is_set():
                self.once()
                self._stop.wait(self._interval)
        finally:
            self._close()

    def once(self) -> None:
        """Go one round, and ring the conductor's bell when it found something."""
        found: list[Finding] = []
        try:
            self._patrol.run(self._make_round(found.append))
        except MqiError as error:
            log.warning("patrol %s: %s", self._patrol.name, error.message)
        except Exception:
            log.exception("a bug in patrol %s", self._patrol.name)
        if found:
            self._wake_conductor()
