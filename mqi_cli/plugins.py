"""Find the plugins, check them against the contract, switch some off, index what they offer, call observers one by one.

Three ends for a plugin: *ok*; *disabled* by the operator; *broken*, when its import or a hook raises: it is left out
with its reason and everything else goes on. A plugin that breaks the contract (a hook that doesn't exist, a name that
another one has, a wrong type) is a `PluginError`: going on would mean guessing which of two was meant.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import logging
import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from mqi_cli import contract, hookspecs
from mqi_cli.contract import breach
from mqi_cli.discovery import PluginInfo, discover
from mqi_cli.errors import PluginError

if TYPE_CHECKING:
    import typer

    from mqi_cli.check import Check, CheckContext
    from mqi_cli.hookspecs import ConfigSection, HostType, RecordedEvent
    from mqi_cli.patrol import Patrol
    from mqi_cli.scheduler import Scheduler
    from mqi_cli.stage import Stage

CORE = "mqi"  # the owner of what the core itself brings

_log = logging.getLogger(__name__)


@dataclass
class _Offers:
    """What all plugins together offer, each kind by name; and who offers it, by kind and name."""

    sections: dict[str, ConfigSection] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    patrols: dict[str, Patrol] = field(default_factory=dict)
    host_types: dict[str, HostType] = field(default_factory=dict)
    schedulers: dict[str, Scheduler] = field(default_factory=dict)


class Plugins:
    """The plugins of this process. Their hooks are asked when something of theirs is first wanted, and only once."""

    def __init__(self, manager: pluggy.PluginManager, found: Iterable[PluginInfo], *, debug: bool = False) -> None:
        self.found = list(found)
        self._manager = manager
        self._debug = debug
        self._owners: dict[tuple[str, str], str] = {}
        self._offers: _Offers | None = None
        self._observers: list[tuple[str, Callable[..., Any]]] | None = None

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Return every stage by its name."""
        return self._offered().stages

    @property
    def sections(self) -> Mapping[str, ConfigSection]:
        """Return the plugins' config sections by name."""
        return self._offered().sections

    @property
    def patrols(self) -> Mapping[str, Patrol]:
        """Return every patrol by its name."""
        return self._offered().patrols

    @property
    def host_types(self) -> Mapping[str, HostType]:
        """Return every kind of host by its name, the core's `ssh` and `local` among them."""
        return self._offered().host_types

    @property
    def schedulers(self) -> Mapping[str, Scheduler]:
        """Return every way of starting runs by its name."""
        return self._offered().schedulers

    def lanes(self) -> list[str]:
        """Return the lanes of all stages and patrols, each once, in an order that stays the same."""
        offers = self._offered()
        return list(
            dict.fromkeys(
                [each.lane for each in offers.stages.values()] + [each.lane for each in offers.patrols.values()]
            )
        )

    def owner_of(self, kind: str, name: str) -> str:
        """Return the plugin that offers a stage, section, patrol, host type or command; "" when none does."""
        self._offered()
        return self._owners.get((kind, name), "")

    def section_of(self, owner: Stage | Patrol | str) -> str:
        """Return the name of the config section of the plugin that owns this; "" when it has none.

        A text is looked up as a plugin's name, then a stage's, then a patrol's.
        """
        self._offered()
        if isinstance(owner, str):
            names = [each.name for each in self.found]
            plugin = owner if owner in names else self.owner_of("stage", owner) or self.owner_of("patrol", owner)
        else:
            from mqi_cli.patrol import Patrol

            plugin = self.owner_of("patrol" if isinstance(owner, Patrol) else "stage", owner.name)
        return next((name for (kind, name), by in self._owners.items() if kind == "section" and by == plugin), "")

    def brings(self, plugin: str) -> dict[str, list[str]]:
        """Return what a plugin offers: kind -> names."""
        self._offered()
        brought: dict[str, list[str]] = {}
        for (kind, name), owner in self._owners.items():
            if owner == plugin:
                brought.setdefault(kind, []).append(name)
        return brought

    @property
    def broken(self) -> list[PluginInfo]:
        """Return the plugins that do not work, each with its `problem`."""
        return [each for each in self.found if each.state == "broken"]

    @property
    def missing(self) -> list[PluginInfo]:
        """Return the plugins that are installed and take no part: what they bring is unknown."""
        return [each for each in self.found if each.state != "ok"]

    def checks(
        self,
        ctx_factory: Callable[[str], CheckContext],
        *,
        guard: Callable[[str, Callable[[], list[Check]]], list[Check]] = lambda plugin, ask: ask(),
    ) -> Iterator[Check]:
        """Ask every plugin for its lines of `mqi doctor`, one after the other. Never raises for one.

        `ctx_factory` takes the plugin's name. `guard` takes it and what asks the plugin, and may give up waiting.
        """
        self._offered()
        for info, call in self._callers("mqi_checks"):
            yield from guard(info.name, partial(self._ask_for_checks, info, call, ctx_factory))

    def _ask_for_checks(
        self, info: PluginInfo, call: Callable[..., Any], ctx_factory: Callable[[str], CheckContext]
    ) -> list[Check]:
        from mqi_cli.check import Check, Verdict

        try:
            return [check for value in call(ctx=ctx_factory(info.name)) for check in contract.checks(value, info.name)]
        except Exception as error:  # noqa: BLE001 a plugin's own code: its failure is one line of the doctor
            self._trace(error)
            text = f"its check failed: {contract.one_line(error)}"
            return [Check(f"plugin {info.name}", Verdict.WARN, text, info.hint)]

    def add_commands(self, app: typer.Typer, *, taken: Collection[str] = ()) -> None:
        """Add every plugin's commands to the command line.

        Each plugin fills an app of its own first, so that one that raises half-way leaves nothing behind. `taken` are
        names of commands that `app` has without listing them yet.
        """
        import typer

        for name in (*taken, *_command_names(app)):
            self._owners.setdefault(("command", name), CORE)
        for info, call in self._callers("mqi_commands"):
            own = typer.Typer()
            try:
                call(app=own)
            except Exception as error:  # noqa: BLE001 a plugin's own code must not take the command line down
                self._break(info, "mqi_commands", error)
                continue
            for name in _command_names(own):
                self._claim("command", name, info.name)
            app.registered_commands += own.registered_commands
            app.registered_groups += own.registered_groups

    @property
    def observed(self) -> bool:
        """Whether there is any observer."""
        return bool(self._watching())

    def _watching(self) -> list[tuple[str, Any]]:
        if self._observers is None:
            self._observers = [(info.name, call) for info, call in self._callers("mqi_on_event")]
        return self._observers

    def notify(self, event: RecordedEvent) -> None:
        """Show an event to every observer. One that fails is logged, and neither stops the others nor changes anything."""
        for name, call in self._watching():
            try:
                call(event=event)
            except Exception as error:  # noqa: BLE001 a plugin's own code
                # Only the kind of error: its text is the plugin's own and may hold an address with a token in it.
                _log.warning("plugin %s: its observer failed on %s: %s", name, event.kind, type(error).__name__)
                self._trace(error)

    def _offered(self) -> _Offers:
        if self._offers is None:
            offers = _Offers(host_types=_core_host_types())
            self._owners.update({("host type", name): CORE for name in offers.host_types})
            for info in self.found:
                if info.state == "ok":
                    self._collect(info, offers)
            self._offers = offers
        return self._offers

    def _collect(self, info: PluginInfo, offers: _Offers) -> None:
        answers: dict[str, list[Any]] = {}
        for hook in ("mqi_config", "mqi_stages", "mqi_patrols", "mqi_host_types", "mqi_schedulers"):
            try:
                answers[hook] = self._caller(hook, info)() if hook in info.hooks else []
            except Exception as error:  # noqa: BLE001 a plugin's own code: it is left out, whole
                self._break(info, hook, error)
                return
        for value in answers["mqi_config"]:
            for section in contract.sections(value, info.name):
                self._claim("section", section.name, info.name)
                offers.sections[section.name] = section
        for value in answers["mqi_stages"]:
            for stage in contract.stages(value, info.name):
                self._claim("stage", stage.name, info.name)
                offers.stages[stage.name] = stage
        for value in answers["mqi_patrols"]:
            for patrol in contract.patrols(value, info.name):
                self._claim("patrol", patrol.name, info.name)
                offers.patrols[patrol.name] = patrol
        for value in answers["mqi_host_types"]:
            for host_type in contract.host_types(value, info.name):
                self._claim("host type", host_type.name, info.name)
                offers.host_types[host_type.name] = host_type
        for value in answers["mqi_schedulers"]:
            for scheduler in contract.schedulers(value, info.name):
                self._claim("scheduler", scheduler.name, info.name)
                offers.schedulers[scheduler.name] = scheduler

    def _claim(self, kind: str, name: str, plugin: str) -> None:
        if kind == "section" and name in _core_sections():
            raise breach(plugin, f"the section '{name}' of the config is mqi's own")
        owner = self._owners.setdefault((kind, name), plugin)
        if owner == CORE:
            raise breach(plugin, f"the {kind} '{name}' is mqi's own")
        if owner != plugin:
            raise PluginError(
                f"the plugins '{owner}' and '{plugin}' both offer a {kind} named '{name}'",
                hint=f"switch one of them off: `plugins: {{disable: [{plugin}]}}` in mqi.yaml, "
                f"or MQI_DISABLE_PLUGINS={plugin}",
            )

    def _callers(self, hook: str) -> Iterator[tuple[PluginInfo, Callable[..., Any]]]:
        for info in self.found:
            if info.state == "ok" and hook in info.hooks:
                yield info, self._caller(hook, info)

    def _caller(self, hook: str, info: PluginInfo) -> Callable[..., Any]:
        others = [module for name, module in self._manager.list_name_plugin() if name != info.name]
        return self._manager.subset_hook_caller(hook, [each for each in others if each is not None])

    def _break(self, info: PluginInfo, where: str, error: Exception) -> None:
        info.state, info.problem = "broken", f"{where}: {contract.one_line(error)}"
        self._trace(error)

    def _trace(self, error: BaseException) -> None:
        if self._debug:
            traceback.print_exception(error)


def load_plugins(
    disabled: Collection[str] = (),
    *,
    environ: Mapping[str, str] = os.environ,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> Plugins:
    """Find and import the plugins of the entry-point group `mqi.plugins`, without asking them for anything yet.

    `MQI_DISABLE_PLUGINS` (names with commas) adds to `disabled`; with `MQI_DEBUG` a broken plugin shows its traceback.
    Raises `PluginError` for one that breaks the contract.
    """
    off = {*disabled, *(each.strip() for each in environ.get("MQI_DISABLE_PLUGINS", "").split(","))}
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager, (), debug=bool(environ.get("MQI_DEBUG")))
    for info, point in discover(entry_points):
        plugins.found.append(info)
        if info.name in off:
            info.state = "disabled"
            continue
        try:
            module = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 whatever a third party's module does when imported
            info.state, info.problem = "broken", f"can't be imported: {contract.one_line(error)}"
            plugins._trace(error)
            continue
        _register(manager, module, info)
    return plugins


def _register(manager: pluggy.PluginManager, module: ModuleType, info: PluginInfo) -> None:
    try:
        manager.register(module, name=info.name)
    except pluggy.PluginValidationError as error:  # arguments that the hook doesn't have
        raise breach(info.name, str(error).splitlines()[-1]) from error
    except ValueError as error:
        other = manager.get_name(module)
        raise PluginError(f"the plugins '{other}' and '{info.name}' are one module, {info.module}") from error
    callers = manager.get_hookcallers(module) or []
    info.hooks = tuple(sorted(each.name for each in callers))
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = [name for name in vars(hookspecs) if name.startswith("mqi_")]
        name = next((each.name for each in callers if not each.has_spec()), "?")
        near = difflib.get_close_matches(name, hooks, 1)
        meant = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(hooks)}"
        raise breach(info.name, f"'{name}' is marked @hookimpl and is no hook{meant}") from error


def _command_names(app: typer.Typer) -> list[str]:
    """Name the commands and groups of an app, as Typer does."""
    names = []
    for command in app.registered_commands:
        names.append(command.name or getattr(command.callback, "__name__", "").lower().replace("_", "-"))
    for group in app.registered_groups:
        own = group.typer_instance.info.name if group.typer_instance else None
        names.append(next((each for each in (group.name, own) if isinstance(each, str)), ""))
    return [name for name in names if name]


def _core_sections() -> Collection[str]:
    from mqi_cli.config.model import CoreSections

    return CoreSections.model_fields


def _core_host_types() -> dict[str, HostType]:
    from mqi_cli.config.model import LocalHostSection, SshHostSection
    from mqi_cli.hookspecs import HostType

    def open_ssh(name: str, section: Any, state_dir: Path) -> Any:
        from mqi_cli.hosts.ssh import SshHost

        return SshHost(name, section, state_dir)

    def open_local(name: str, section: Any, state_dir: Path) -> Any:
        from mqi_cli.hosts.local import LocalHost

        return LocalHost(name, section, state_dir)

    return {
        "ssh": HostType("ssh", SshHostSection, open_ssh),
        "local": HostType("local", LocalHostSection, open_local),
    }
