"""What a plugin's hooks may give back, and what is wrong with what one did give: the checks behind `plugins.py`.

Each function takes what a hook returned and the plugin's name, and returns it typed, or raises `PluginError`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mqi_cli.discovery import switch_off
from mqi_cli.errors import PluginError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mqi_cli.check import Check
    from mqi_cli.hookspecs import ConfigSection, HostType
    from mqi_cli.patrol import Patrol
    from mqi_cli.scheduler import Scheduler
    from mqi_cli.stage import Stage

# Stage names become step names and lanes become queue names, so both take the narrow form of the config's names.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
NAME_RULE = "1 to 32 of a-z 0-9 _ -, beginning with a letter or a digit"

_SCHEDULER_CALLS = {
    "launch": 1,
    "script": 1,
    "read_id": 1,
    "refusal": 1,
    "look": 0,
    "read_look": 1,
    "look_back": 1,
    "read_look_back": 1,
    "look_at_node": 1,
    "node_answers": 1,
}

_T = TypeVar("_T")


def breach(plugin: str, what: str) -> PluginError:
    """Build the error for a plugin that breaks the contract, with the way to go on without it."""
    return PluginError(f"plugin '{plugin}': {what}", hint=switch_off(plugin))


def sections(value: Any, plugin: str) -> tuple[ConfigSection, ...]:
    """Check what `mqi_config` returned."""
    from mqi_cli.hookspecs import ConfigSection
    from mqi_cli.stage import Section

    if value is None:
        return ()
    if not isinstance(value, ConfigSection):
        raise breach(plugin, f"mqi_config must return a ConfigSection, not {_kind(value)}")
    _check_name(value.name, "config section", plugin)
    _check_model(value.model, Section, f"the model of section '{value.name}'", plugin)
    return (value,)


def stages(value: Any, plugin: str) -> tuple[Stage, ...]:
    """Check what `mqi_stages` returned."""
    from mqi_cli.stage import Stage, StepOptions

    found = _sequence(value, Stage, "mqi_stages", plugin)
    for stage in found:
        _check_name(stage.name, "stage", plugin)
        _check_name(stage.lane, f"lane of stage '{stage.name}'", plugin)
        _check_model(stage.options, StepOptions, f"the options of stage '{stage.name}'", plugin)
        _check_call(stage.run, 2, f"run(case, ctx) of stage '{stage.name}'", plugin)
        if stage.alone and stage.job:  # with the host's last place it would wait for those who wait for a place
            raise breach(plugin, f"stage '{stage.name}' can't be both `alone` and a `job`")
        if stage.cancel is not None:
            _check_call(stage.cancel, 2, f"cancel(case, ctx) of stage '{stage.name}'", plugin)
        if stage.check is not None:
            _check_call(stage.check, 3, f"check(steps, index, hosts) of stage '{stage.name}'", plugin)
    return found


def patrols(value: Any, plugin: str) -> tuple[Patrol, ...]:
    """Check what `mqi_patrols` returned."""
    from mqi_cli.patrol import Patrol

    found = _sequence(value, Patrol, "mqi_patrols", plugin)
    for patrol in found:
        _check_name(patrol.name, "patrol", plugin)
        _check_name(patrol.lane, f"lane of patrol '{patrol.name}'", plugin)
        _check_call(patrol.run, 1, f"run(ctx) of patrol '{patrol.name}'", plugin)
        _check_call(patrol.interval, 1, f"interval(section) of patrol '{patrol.name}'", plugin)
    return found


def host_types(value: Any, plugin: str) -> tuple[HostType, ...]:
    """Check what `mqi_host_types` returned."""
    from mqi_cli.config.model import HostSection
    from mqi_cli.hookspecs import HostType

    found = _sequence(value, HostType, "mqi_host_types", plugin)
    for each in found:
        _check_name(each.name, "host type", plugin)
        _check_model(each.model, HostSection, f"the model of host type '{each.name}'", plugin)
        _check_call(each.open, 3, f"open(name, section, state_dir) of host type '{each.name}'", plugin)
    return found


def schedulers(value: Any, plugin: str) -> tuple[Scheduler, ...]:
    """Check what `mqi_schedulers` returned."""
    from mqi_cli.scheduler import Scheduler

    found: tuple[Scheduler, ...] = _sequence(value, Scheduler, "mqi_schedulers", plugin)  # type: ignore[type-abstract]
    for each in found:
        _check_name(each.name, "scheduler", plugin)
        for method, arguments in _SCHEDULER_CALLS.items():
            _check_call(getattr(each, method), arguments, f"{method} of scheduler '{each.name}'", plugin)
    return found


def checks(value: Any, plugin: str) -> tuple[Check, ...]:
    """Check what `mqi_checks` returned."""
    from mqi_cli.check import Check

    return _sequence(value, Check, "mqi_checks", plugin)


def one_line(error: BaseException) -> str:
    """Say what an error of a plugin's own code is, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _sequence(value: Any, wanted: type[_T], hook: str, plugin: str) -> tuple[_T, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence | Iterable) or isinstance(value, str | bytes):
        raise breach(plugin, f"{hook} must return a list of {wanted.__name__}, not {_kind(value)}")
    found = tuple(value)
    for each in found:
        if not isinstance(each, wanted):
            raise breach(plugin, f"{hook} must return a list of {wanted.__name__}; it holds {_kind(each)}")
    return found


def _check_name(name: Any, what: str, plugin: str) -> None:
    if not isinstance(name, str) or not NAME.match(name):
        raise breach(plugin, f"{name!r} can't name a {what}: {NAME_RULE}")


def _check_model(model: Any, base: type[BaseModel], what: str, plugin: str) -> None:
    if not isinstance(model, type) or not issubclass(model, base):
        raise breach(plugin, f"{what} must be a subclass of {base.__name__}, not {_kind(model)}")
    if model.model_config.get("extra") != "forbid":
        raise breach(plugin, f"{what} must refuse unknown keys: leave `extra` as Section sets it")


def _check_call(function: Any, arguments: int, what: str, plugin: str) -> None:
    if not callable(function):
        raise breach(plugin, f"{what} is no function but {_kind(function)}")
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        raise breach(plugin, f"{what} can't be called like this; it takes {inspect.signature(function)}") from None
    except ValueError:
        return  # a builtin that tells no signature
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise breach(plugin, f"{what} must be a plain function, neither async nor a generator")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
