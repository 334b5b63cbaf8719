"""The operator's door: what commands, the core's and the plugins', do their work through.

It opens the config, the state database and hosts when they are first needed, runs stages and patrols in the foreground
with the code of the daemon, and needs neither daemon nor broker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqi_cli.clock import Clock
from mqi_cli.errors import CaseError, UsageError
from mqi_cli.invocation import options

if TYPE_CHECKING:
    from mqi_cli.case import CaseRef, CaseState
    from mqi_cli.config.loaded import Config
    from mqi_cli.message import EventKind, Facts
    from mqi_cli.patrol import CaseView, Finding
    from mqi_cli.stage import StageContext
    from mqi_cli.store.records import CaseRow


class Operator:
    """One command's work. Use it as a context manager, or let the process's end close it."""

    def __init__(self, config: Config | None, plugins: Any, *, light: bool = False, file: Path | None = None) -> None:
        self._config = config
        self._plugins = plugins
        self._light = light
        self._file = file
        self.clock = Clock()

    @classmethod
    def open(cls, *, light: bool = False) -> Operator:
        """Load the config of the root options. `light` leaves plugins aside, for commands that only read the state,
        and loads the config when something of it is asked for.

        Raises `ConfigError` with every problem at once.
        """
        from mqi_cli.config.find import disabled_plugins, find_config

        file = find_config(options().config)
        if light:
            return cls(None, None, light=True, file=file)
        from mqi_cli.config.load import load_config
        from mqi_cli.plugins import load_plugins

        plugins = load_plugins(disabled_plugins(file))
        return cls(load_config(file, plugins), plugins)

    @cached_property
    def config(self) -> Config:
        """The config; with `light`, only the core's own sections of it."""
        from mqi_cli.config.load import load_config

        return self._config or load_config(self._file, None)

    @cached_property
    def state_path(self) -> Path:
        """Where the state database lies. Looking at cases needs no more of the config, and loading it whole is slow."""
        from mqi_cli.config.find import plain_state_path

        plain = plain_state_path(self._file) if self._config is None else None
        return plain or self.config.state_path

    @cached_property
    def plugins(self) -> Any:
        """The plugins, loaded when first asked for."""
        from mqi_cli.plugins import load_plugins

        return self._plugins or load_plugins(self.config.plugins.disable)

    @cached_property
    def store(self) -> Any:
        """The state database; made when there is none yet, unless this operator only looks."""
        from mqi_cli.store import open_store

        return open_store(self.state_path, read_only=self._light)

    @cached_property
    def conductor(self) -> Any:
        """The conductor's code over this store."""
        from mqi_cli.conductor import Conductor

        return Conductor(self.store, self.config, clock=self.clock)

    @cached_property
    def intake(self) -> Any:
        """What takes findings in."""
        from mqi_cli.intake import Intake

        return Intake(self.conductor)

    @cached_property
    def acts(self) -> Any:
        """What an operator can do to cases."""
        from mqi_cli.acts import Acts

        return Acts(self.conductor, actor=self.actor)

    @cached_property
    def claims(self) -> Any:
        """What takes a step into the operator's own hands."""
        from mqi_cli.claims import Claims

        return Claims(self.conductor, actor=self.actor)

    @cached_property
    def _hosts(self) -> Any:
        from mqi_cli.host_pool import HostPool

        return HostPool(self.config, self.plugins)

    @property
    def actor(self) -> str:
        """Who is at the keyboard."""
        import getpass

        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a uid without a name
            return str(os.getuid())

    @property
    def daemon_pid(self) -> int | None:
        """The daemon's process id while one runs over this state."""
        from mqi_cli.daemon import DaemonFiles

        return DaemonFiles(self.config.state_dir).running()

    # ---- looking ----

    @property
    def owner(self) -> str:
        """This installation's mark in the names of its directories on hosts."""
        owner: str = self.store.owner
        return owner

    def section(self, name: str) -> Any:
        """Return a plugin's config section."""
        return self.config.sections[name]

    def host(self, name: str) -> Any:
        """Return a host of the config. Raises `UsageError` for another name."""
        return self._hosts.get(name)

    def row(self, text: str) -> CaseRow:
        """Find a case by name, key, a unique prefix of either, or its directory.

        Raises `CaseError` when there is none, `UsageError` that lists the candidates when there are several.
        """
        from mqi_cli.cli.named_case import find_case

        return find_case(self.store, text, lambda: self.config)

    def find(self, text: str) -> CaseView:
        """Find a case as `row` does, and return what plugins may see of it."""
        view: CaseView = self.intake.view(self.row(text))
        return view

    def case(self, key: str) -> CaseView | None:
        """Return the case with exactly this key; None when there is none."""
        view: CaseView | None = self.intake.view_of(key)
        return view

    def report(self, finding: Finding) -> None:
        """Apply what a command has found or done, as a patrol's report; durable when it returns."""
        self.intake.take(finding)

    def cases(self, *states: CaseState) -> Iterator[CaseView]:
        """Return the cases in these states (all, without any), oldest first."""
        yield from self.intake.views(*states)

    def hosts(self) -> list[dict[str, Any]]:
        """Return the config's hosts with what was last seen of each."""
        from mqi_cli.cli.inventory import listed_hosts

        return listed_hosts(self.config, self.store)

    def gpus(self) -> list[dict[str, Any]]:
        """Return every GPU with what was last seen of it, and who has it."""
        from mqi_cli.cli.inventory import listed_gpus

        return listed_gpus(self.store)

    def hold_gpu(self, uuid: str, hold: bool) -> None:
        """Hold a GPU back from new leases, or give it free again."""
        self.acts.hold_gpu(uuid, held=hold)

    def pause_host(self, name: str, reason: str = "") -> None:
        """Pause a host until it is resumed by hand."""
        self._hosts.get(name)
        self.acts.hold_host(name, reason)

    def resume_host(self, name: str) -> None:
        """Take a host into use again."""
        self._hosts.get(name)
        self.acts.release_host(name)

    def drain(self, drain: bool, reason: str = "") -> None:
        """Begin no new work, or begin it again."""
        self.acts.drain((reason or "an operator drains") if drain else "")

    # ---- doing ----

    def add(self, directory: Path, *, workflow: str = "") -> CaseRow:
        """Take a directory in. Below a source its rule decides when it is complete; elsewhere, and where the rule is
        `manual`, naming it here is the rule.

        Raises `UsageError` for a place where no case begins, `CaseError` for a directory that can't be one.
        """
        from mqi_cli.cli.named_case import place_of

        if not directory.is_dir():
            raise UsageError(f"{directory} is no directory")
        source, name = place_of(self.config, directory)
        view = self.config.source(source)
        if workflow and workflow not in self.config.workflows:
            raise UsageError(
                f"the config has no workflow {workflow}", hint=f"it has: {', '.join(self.config.workflows) or 'none'}"
            )
        if view is not None and not view.complete_when.manual:
            self.patrol("scan", only=source)
            row: CaseRow | None = self.store.cases.newest(source, name)
            if row is None:
                raise CaseError("the scan passed it over: its name is hidden or that of a temporary directory")
            return row
        if not source and not workflow:
            if len(self.config.workflows) != 1:
                raise UsageError("it lies outside every source: which workflow?", hint="name one with --workflow")
            workflow = next(iter(self.config.workflows))
        return self._add_by_word(directory.resolve(), source, name, workflow)

    def _add_by_word(self, directory: Path, source: str, name: str, workflow: str) -> CaseRow:
        from mqi_cli.manifest import Unfit, build_manifest, snapshot, survey
        from mqi_cli.patrol import CaseSeen

        try:
            entries = survey(directory)
            looked_at = snapshot(entries)
            manifest = build_manifest(directory, entries=entries)
        except Unfit as error:
            listed = "".join(f"\n  {entry}" for entry in error.entries[:10])
            raise CaseError(f"the directory can't be a case: {error.reason}{listed}") from error
        except OSError as error:
            raise CaseError(f"the directory can't be read: {error.strerror}") from error
        if not manifest.files:
            raise CaseError("the directory holds no file")
        seen = CaseSeen(
            source,
            name,
            directory,
            looked_at,
            fingerprint=manifest.fingerprint,
            files=len(manifest.files),
            size=manifest.size,
        )
        row: CaseRow = self.intake.accept_by_hand(seen, workflow=workflow)
        return row

    def patrol(self, name: str, *, only: str = "", host: str = "") -> list[Finding]:
        """Go one round of a patrol, and return what it found; `only` restricts it to one source, `host` to one host."""
        from mqi_cli.cli.interruption import Interruption
        from mqi_cli.patrolling import Round

        patrol = self.plugins.patrols.get(name)
        if patrol is None:
            raise UsageError(f"no plugin brings a patrol {name}", hint="mqi plugin list")
        found: list[Finding] = []
        views = [each for each in self.config.source_views() if only in ("", each.name)]
        with Interruption() as stop:
            patrol.run(
                Round(
                    patrol,
                    config=self.config,
                    plugins=self.plugins,
                    hosts=self._hosts,
                    intake=self.intake,
                    store=self.store,
                    clock=self.clock,
                    stopping=stop.is_set,
                    sources=views,
                    hosts_named=[host] if host else None,
                    reported=found.append,
                )
            )
        return found

    def part_names(self, stage: str, text: str, *, step: str = "") -> list[str]:
        """Return the parts of a step of a stage in their order; `[""]` where it does not fan out."""
        names: list[str] = self.claims.part_names(self.row(text).id, stage, step=step)
        return names

    def stage_context(self, stage: str, text: str, *, step: str = "", part: str = "") -> tuple[CaseRef, StageContext]:
        """Return a case and a context for a step of a stage, to look with and not to work with: nothing is claimed.

        Of a step with several parts, one must be named.
        """
        from mqi_cli.turn import make_turn

        row = self.row(text)
        command = self.claims.look(row.id, stage, step=step, part=part)
        turn = make_turn(
            command,
            config=self.config,
            plugins=self.plugins,
            hosts=self._hosts,
            report=_nothing_to_report,
            stopping=lambda: False,
            clock=self.clock,
        )
        return row.ref, turn

    def perform(
        self, stage: str, text: str, *, step: str = "", part: str = "", overrides: Mapping[str, Any] | None = None
    ) -> Facts:
        """Run a step of a stage in the foreground, under the case's lease, and return what it reports.

        Of a step that fans out, the part that is named, or one after the other all that are not done; then `parts` says
        how many that were.

        Shows progress on stderr. Refuses with a `UsageError` that names the holder while a worker has the step; raises
        what the stage raised when it fails, after the conductor has taken note of it.
        """
        from mqi_cli.cli.by_hand import ByHand

        return ByHand(self).perform(stage, self.row(text), step=step, part=part, overrides=overrides or {})

    def end_step(self, text: str, step: str) -> list[str]:
        """Begin nothing more of the step that a case stands at; return the parts whose runs are to be ended on their host.

        The case is held once all have ended. Whoever ends them here tells each by `ended`.
        """
        parts: list[str] = self.acts.end_step(self.row(text).id, step)
        return parts

    def ended(self, text: str, step: str, part: str, *, attempts: Sequence[int] = ()) -> None:
        """Take note that nothing lives any more, nor ever will, of a part that `end_step` has returned, or of its attempts
        that `in_doubt` has.
        """
        self.acts.ended(self.row(text).id, step, part, attempts=attempts)

    def in_doubt(self, text: str, step: str, part: str) -> list[int]:
        """Return the attempts of a part that have ended for mqi while their runs may live; say by `ended` that they don't."""
        attempts: list[int] = self.claims.in_doubt(self.row(text).id, step, part)
        return attempts

    def hand(self) -> str:
        """Name this process as the holder of a lease."""
        from mqi_cli.machine import machine_name

        return f"hand:{self.actor}@{machine_name()}-{os.getpid()}"


def _nothing_to_report(kind: EventKind, data: Facts) -> None:
    raise UsageError(f"a context that only looks can't report {kind}")
