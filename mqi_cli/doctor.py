"""Runs the checks of `mqi doctor`: the core's, then each plugin's, every one with a deadline of its own.

A check may hang on a dead file server or a host that swallows packets. Its thread is then left behind: it ends with
the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mqi_cli.check import Check, Verdict
from mqi_cli.config.loaded import Config
from mqi_cli.core_checks import CORE_CHECKS
from mqi_cli.errors import MqiError, UsageError
from mqi_cli.host_pool import HostPool
from mqi_cli.hosts.base import Host
from mqi_cli.patrol import SourceView
from mqi_cli.plugins import Plugins
from mqi_cli.stage import Workflow

DEADLINE = 90.0  # seconds for each of the core's checks and for each plugin


@dataclass
class Context:
    """What a plugin's checks are given (`CheckContext`)."""

    config: Any
    sources: Sequence[SourceView]
    hosts: Sequence[str]
    workflows: Mapping[str, Workflow]
    pool: HostPool

    def host(self, name: str) -> Host:
        """Return a host of the config."""
        return self.pool.get(name)

    def host_config(self, name: str) -> Any:
        """Return a host's section of the config."""
        return self.pool.get(name).config


def run_checks(config: Config, plugins: Plugins, *, host: str = "", deadline: float = DEADLINE) -> list[Check]:
    """Run every check and return its lines. See `each_check`."""
    return list(each_check(config, plugins, host=host, deadline=deadline))


def each_check(config: Config, plugins: Plugins, *, host: str = "", deadline: float = DEADLINE) -> Iterator[Check]:
    """Run the checks one by one and yield their lines as they come; `host` leaves all other hosts alone.

    Raises `UsageError` for a host that the config does not have.
    """
    if host and host not in config.hosts:
        known = ", ".join(config.hosts) or "none"
        raise UsageError(f"the config has no host {host} (it has: {known})", hint="mqi config show")
    for name, check in CORE_CHECKS.items():
        yield from _within(deadline, name, lambda check=check: list(check(config, plugins)))  # type: ignore[misc]
    pool = HostPool(config, plugins)

    def context(plugin: str) -> Context:
        section = config.sections.get(plugins.section_of(plugin))
        hosts = (host,) if host else tuple(config.hosts)
        return Context(section, config.source_views(), hosts, config.workflows, pool)

    try:
        yield from plugins.checks(context, guard=lambda plugin, ask: _within(deadline, f"plugin {plugin}", ask))
    finally:
        pool.close()


def _within(deadline: float, name: str, ask: Callable[[], list[Check]]) -> list[Check]:
    answer: list[list[Check]] = []
    bugs: list[Exception] = []

    def work() -> None:
        try:
            answer.append(ask())
        except MqiError as error:
            answer.append([Check(name, Verdict.FAIL, error.message, error.hint)])
        except Exception as error:  # noqa: BLE001  carried to the thread that asked, which raises it
            bugs.append(error)

    thread = threading.Thread(target=work, name=f"check {name}", daemon=True)
    thread.start()
    thread.join(deadline)
    if bugs:
        raise bugs[0]
    if not answer:
        text = f"gave no answer within {deadline:g} s"
        return [Check(name, Verdict.WARN, text, "something it looks at hangs: a file server, a host, the broker")]
    return answer[0]
