"""Compile the workflows: every step's stage, options, name and host, and the stage's own check."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from mqi_cli.config.model import NAME, STEP_NAME
from mqi_cli.config.problems import KeyPath, Problems, clipped, unknown
from mqi_cli.config.section import SectionReader
from mqi_cli.stage import Stage, Step, Workflow

_NAME = re.compile(NAME)
_STEP_NAME = re.compile(STEP_NAME)


class Offer(Protocol):
    """What the config needs to know of the plugins; `mqi_cli.plugins.Plugins` has it."""

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Every stage by its name."""

    @property
    def sections(self) -> Mapping[str, Any]:
        """Every plugin's config section by name."""

    @property
    def host_types(self) -> Mapping[str, Any]:
        """Every kind of host by its name."""

    @property
    def schedulers(self) -> Mapping[str, Any]:
        """Every way of starting runs by its name."""

    @property
    def found(self) -> Sequence[Any]:
        """All plugins that are installed."""

    @property
    def missing(self) -> Sequence[Any]:
        """Those that are switched off or broken."""

    def lanes(self) -> Sequence[str]:
        """The lanes of all stages and patrols."""


class WorkflowReader:
    """Compiles workflows. `hosts` are the names that the file gives; `host_configs` those that are in order."""

    def __init__(
        self, reader: SectionReader, offer: Offer, *, hosts: Collection[str], host_configs: Mapping[str, Any]
    ) -> None:
        self._reader = reader
        self._problems: Problems = reader.problems
        self._offer = offer
        self._hosts = hosts
        self._host_configs = host_configs

    def read(self, raw: Any) -> dict[str, Workflow]:
        """Return the workflows that are in order."""
        path: KeyPath = ("workflows",)
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self._problems.add(path, "named lists of steps are wanted: `default_qa: [upload: {…}, …]`")
            return {}
        workflows = {}
        for name, steps in raw.items():
            if not _NAME.match(name):
                self._problems.add((*path, name), NAME_RULE)
            if (workflow := self._workflow(name, steps, (*path, name))) is not None:
                workflows[name] = workflow
        return workflows

    def _workflow(self, name: str, raw: Any, path: KeyPath) -> Workflow | None:
        if raw is None or raw == []:
            self._problems.add(path, "the workflow has no steps")
            return None
        if not isinstance(raw, list):
            self._problems.add(path, "a list of steps is wanted, each `- stage: {options}`")
            return None
        steps = [self._step(each, (*path, index)) for index, each in enumerate(raw)]
        self._names([step for step in steps if step is not None], steps, path)
        whole = tuple(step for step in steps if step is not None)
        if len(whole) < len(steps):
            return None
        if len(self._host_configs) == len(self._hosts):  # else a stage would be told of hosts that it can't find
            self._ask_stages(whole, path)
        return Workflow(name, whole)

    def _step(self, raw: Any, path: KeyPath) -> Step | None:
        if isinstance(raw, str):
            return self._compile(raw, {}, path)
        if not isinstance(raw, dict) or not raw:
            self._problems.add(path, "a step is a stage's name, or `stage: {options}`")
            return None
        if len(raw) == 1:
            name, options = next(iter(raw.items()))
            return self._compile(name, options, (*path, name))
        first, *others = raw
        keys = f"`{clipped(others[0])}`" if len(others) == 1 else f"`{clipped(others[0])}` and what follows"
        self._problems.add(path, f"a step is one stage: indent {keys} below `{clipped(first)}:`, or begin a new `- `")
        return None

    def _compile(self, name: str, options: Any, path: KeyPath) -> Step | None:
        stage = self._offer.stages.get(name)
        if stage is None:
            off = ", ".join(f"{each.name} ({each.state})" for each in self._offer.missing)
            text = unknown(f"there is no stage '{clipped(name)}'", name, self._offer.stages)
            self._problems.add(path, f"{text}; plugins that take no part: {off}" if off else text)
            return None
        named = options.get("host") if isinstance(options, dict) and "host" in stage.options.model_fields else None
        self._host(named, path)
        read = self._reader.read(stage.options, options, path)
        if read is None:
            return None
        step = Step(read.name or stage.name, stage, read)
        if not _STEP_NAME.match(step.name):
            self._problems.add((*path, "name"), f"'{clipped(step.name)}' can't name a step: {STEP_NAME_RULE}")
            return None
        self._host(step.host, path)
        return step

    def _host(self, name: Any, path: KeyPath) -> None:
        if isinstance(name, str) and name and name not in self._hosts:
            what = unknown(f"there is no host '{clipped(name)}'", name, self._hosts)
            self._problems.add((*path, "host"), what)

    def _names(self, known: Sequence[Step], steps: Sequence[Step | None], path: KeyPath) -> None:
        seen: dict[str, int] = {}
        for index, step in enumerate(steps):
            if step is None:
                continue
            if step.name in seen:
                first = self._problems.place((*path, seen[step.name]))
                line = f" (the other in line {first.line})" if first else ""
                self._problems.add(
                    (*path, index), f"two steps are called '{step.name}'{line}; give one of them another `name`"
                )
            seen.setdefault(step.name, index)

    def _ask_stages(self, steps: Sequence[Step], path: KeyPath) -> None:
        for index, step in enumerate(steps):
            if step.stage.check is None:
                continue
            here = (*path, index, step.stage.name)
            try:
                texts = list(step.stage.check(steps, index, self._host_configs))
            except Exception as error:  # noqa: BLE001 a plugin's own code; the other problems must still be told
                texts = [f"the stage's own check failed ({type(error).__name__}); this is a bug of its plugin"]
            for text in texts:
                self._problems.add(here, str(text))


NAME_RULE = "a name has 1 to 64 of A-Z a-z 0-9 _ . -, beginning with a letter or a digit"
STEP_NAME_RULE = "1 to 32 of a-z 0-9 _ -, beginning with a letter or a digit"
