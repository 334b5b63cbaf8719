"""Load and check the config: one call, every problem at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from mqi_cli.config import crosscheck
from mqi_cli.config.as_written import as_written
from mqi_cli.config.document import Document
from mqi_cli.config.environment import Environment
from mqi_cli.config.find import default_state_path
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import (
    DIRECT,
    NAME,
    BrokerSection,
    CoreSections,
    DaemonSection,
    HostSection,
    LaneSection,
    PluginsSection,
    SourceSection,
    StateSection,
)
from mqi_cli.config.problems import KeyPath, Problems, clipped, nearest, shown, unknown
from mqi_cli.config.section import SectionReader
from mqi_cli.config.workflows import NAME_RULE, Offer, WorkflowReader
from mqi_cli.errors import ConfigError

_M = TypeVar("_M", bound=BaseModel)
_NAME = re.compile(NAME)
_WITH_PLUGINS = frozenset({"hosts", "workflows"})  # core keys whose values are read by the plugins' models


def load_config(file: Path | None, plugins: Offer | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Load a config and check everything about it. `file` None gives the defaults.

    Without `plugins` only the core's sections are read, and hosts, workflows and plugin sections stay empty: enough
    to find the state. Raises `ConfigError` with all problems, one line each.
    """
    problems = Problems(file)
    document = Document(file, problems)
    document.read()
    if not any(each.syntax for each in problems.found):
        loading = _Loading(document, problems, plugins, environ)
        config = loading.load()
        if not problems.found:
            return config
    lines = problems.lines()
    many = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    raise ConfigError(f"the config {shown(file)} has {many}", problems=lines, hint="mend it, then: mqi config check")


class _Loading:
    """One load: what is read so far, and what is wrong with it."""

    def __init__(self, document: Document, problems: Problems, offer: Offer | None, environ: Mapping[str, str]) -> None:
        self._problems = problems
        self._offer = offer
        self._environ = environ
        self._file = document.file
        self._base = document.file.absolute().parent if document.file else None
        shell = as_written(document.data, offer) if offer else ()
        self._environment = Environment(environ, problems, as_written=shell)
        self._data = {
            key: self._environment.fill(value, (key,))
            for key, value in document.data.items()
            if offer or (key in CoreSections.model_fields and key not in _WITH_PLUGINS)
        }
        self._reader = SectionReader(problems, self._environment, environ=environ, base=self._base)

    def load(self) -> Config:
        self._top_level()
        state = self._section(StateSection, "state")
        broker = self._section(BrokerSection, "broker") if self._data.get("broker") is not None else None
        daemon, plugins = self._section(DaemonSection, "daemon"), self._section(PluginsSection, "plugins")
        sources, workers = self._sources(), self._workers()
        hosts, workflows, sections = {}, {}, {}
        if self._offer is not None:
            hosts = self._hosts(self._offer)
            named = self._data.get("hosts")
            names = tuple(named) if isinstance(named, dict) else ()
            reader = WorkflowReader(self._reader, self._offer, hosts=names, host_configs=hosts)
            workflows = reader.read(self._data.get("workflows"))
            sections = {
                name: section
                for name, each in self._offer.sections.items()
                if (section := self._reader.read(each.model, self._data.get(name), (name,))) is not None
            }
        state_path = self._state_path(state)
        if self._offer is not None:
            self._cross(self._offer, sources, hosts, workflows, sections, workers, plugins, state_path)
        salt = state.key_salt.get_secret_value() if state and state.key_salt else ""
        return Config(
            file=self._file,
            state_path=state_path,
            key_salt=salt,
            broker=broker,
            hosts=hosts,
            sources=tuple(source for _, source in sources),
            workflows=workflows,
            workers=workers,
            daemon=daemon or DaemonSection(),
            plugins=plugins or PluginsSection(),
            sections=sections,
            origins=self._origins(),
            warnings=tuple(self._problems.warning_lines()),
        )

    def _top_level(self) -> None:
        if self._offer is None:
            return
        known = {*CoreSections.model_fields, *self._offer.sections}
        for key in self._data:
            if key in known:
                continue
            off = ", ".join(each.name for each in self._offer.missing)
            if off and not nearest(key, known):
                # Switching a plugin off must be enough to go on; its section may stay for the day it comes back.
                self._problems.warn((key,), f"not read; it may belong to a plugin that takes no part ({off})")
            else:
                self._problems.add((key,), unknown("unknown key", key, known))

    def _section(self, model: type[_M], key: str) -> _M | None:
        return self._reader.read(model, self._data.get(key), (key,))

    def _sources(self) -> list[tuple[int, SourceSection]]:
        raw = self._data.get("sources")
        if raw is None:
            return []
        if not isinstance(raw, list):
            self._problems.add(("sources",), "a list is wanted, each `- path: …`")
            return []
        read = [
            (index, self._reader.read(SourceSection, each or {}, ("sources", index))) for index, each in enumerate(raw)
        ]
        return [(index, each) for index, each in read if each is not None]

    def _workers(self) -> dict[str, LaneSection]:
        raw = self._named("workers")
        read = {name: self._reader.read(LaneSection, each, ("workers", name)) for name, each in raw.items()}
        return {name: each for name, each in read.items() if each is not None}

    def _hosts(self, offer: Offer) -> dict[str, HostSection]:
        hosts = {}
        for name, raw in self._named("hosts").items():
            path: KeyPath = ("hosts", name)
            if not _NAME.match(name):
                self._problems.add(path, NAME_RULE)
            kind = raw.get("type") if isinstance(raw, dict) else None
            if not isinstance(raw, dict) or kind is None:
                self._problems.add(path, f"a host has a `type`: {', '.join(sorted(offer.host_types))}")
            elif not isinstance(kind, str) or kind not in offer.host_types:
                what = unknown(f"there is no host type '{clipped(str(kind))}'", str(kind), offer.host_types)
                self._problems.add((*path, "type"), what)
            elif (section := self._reader.read(offer.host_types[kind].model, raw, path)) is not None:
                self._check_scheduler(offer, section.scheduler, path)
                hosts[name] = section
        return hosts

    def _check_scheduler(self, offer: Offer, name: str, path: KeyPath) -> None:
        if name not in (known := {DIRECT, *offer.schedulers}):
            note = self._problems.warn if offer.missing and not nearest(name, known) else self._problems.add
            note((*path, "scheduler"), unknown(f"there is no scheduler '{clipped(name)}'", name, known))

    def _named(self, key: str) -> dict[str, Any]:
        raw = self._data.get(key)
        if raw is None or isinstance(raw, dict):
            return raw or {}
        self._problems.add((key,), "keys with values are wanted here, each a name of yours")
        return {}

    def _state_path(self, state: StateSection | None) -> Path:
        if state is not None and state.path is not None:
            return state.path.absolute()
        return default_state_path(self._environ)

    def _cross(
        self,
        offer: Offer,
        sources: crosscheck.Sources,
        hosts: Mapping[str, HostSection],
        workflows: Mapping[str, Any],
        sections: Mapping[str, Any],
        workers: Mapping[str, LaneSection],
        plugins: PluginsSection | None,
        state_path: Path,
    ) -> None:
        crosscheck.check_workflow_names(self._data.get("sources"), self._named_workflows(), self._problems)
        crosscheck.check_sources(sources, self._problems)
        places = [*crosscheck.option_places(workflows), (("state", "path"), state_path)]
        for name, section in sections.items():
            places += crosscheck.section_places(section, (name,))
        for name, host in hosts.items():
            if host.type == "local":
                places.append((("hosts", name, "base_dir"), Path(host.base_dir).expanduser()))
        crosscheck.check_places(sources, places, self._problems)
        lanes = offer.lanes()
        for lane in workers:
            if lane not in lanes:
                note = self._problems.warn if offer.missing else self._problems.add
                note(("workers", lane), unknown(f"there is no lane '{clipped(lane)}'", lane, lanes))
        installed = {each.name for each in offer.found}
        for index, name in enumerate(plugins.disable if plugins else ()):
            if name not in installed:
                what = unknown(f"there is no plugin '{clipped(name)}'", name, installed)
                self._problems.warn(("plugins", "disable", index), what)

    def _named_workflows(self) -> Mapping[str, Any]:
        raw = self._data.get("workflows")
        return raw if isinstance(raw, dict) else {}

    def _origins(self) -> dict[KeyPath, str]:
        origins = {}
        for path in self._problems.keys:
            origin = self._problems.origin(path)
            if names := self._environment.used.get(path):
                origin = f"{origin} {' '.join(f'${{{name}}}' for name in names)}"
            origins[path] = origin
        return origins | {path: str(file) for path, file in self._reader.secret_files.items()}
