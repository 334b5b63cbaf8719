"""A first config that works as it is, with every other key behind a `#`: its meaning and its default."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from mqi_cli.config import shape
from mqi_cli.config.model import (
    BrokerSection,
    CoreSections,
    DaemonSection,
    LaneSection,
    PluginsSection,
    SourceSection,
    StateSection,
)
from mqi_cli.config.workflows import Offer

WIDTH = 120
RESULTS = "results"  # below the config's directory
HEAD = """\
## The config of mqi, begun by `mqi config init`. It works as it is: {source} is watched, and each directory
## that appears in it and then keeps still for 30 s is taken as a case, worked on here, and its results filed.
##
##   mqi config check      after every change      mqi doctor      checks what the config names
##
## Keys behind one # show their defaults: take the # and the blank after it away. Durations: 500ms 30s 10m 2h 7d;
## sizes: 500MB 2GiB. Relative paths begin at this file's directory, ${{NAME}} in a text comes from the environment
## ($$ is a dollar; in a run's `command` both are left to the host's shell), and a secret stands in a file of its own
## that nobody else may read.
"""

# What the first workflow does: enough to see a case go through, with nothing but this machine's own programs.
_STEPS: dict[str, dict[str, Any]] = {
    "upload": {"host": "here"},
    "run": {"host": "here", "command": "cp -R {input_dir}/. {work_dir}/copy", "outputs": ["copy/*"]},
    "download": {"host": "here", "from": "copy", "to": f"{RESULTS}/{{case_name}}"},
}


def sample_config(offer: Offer, directory: Path, *, source: str = "incoming") -> str:
    """Return the text of a first config for a file in `directory`.

    It names one source, one host (this machine) and one workflow of the stages that are there.
    """
    steps = dict(itertools.takewhile(lambda step: step[0] in offer.stages, _STEPS.items()))
    parts = [
        HEAD.format(source=source),
        *_section("state", StateSection, {}),
        *_section("broker", BrokerSection, {}),
        *_hosts(offer, directory, used=bool(steps)),
        *_sources(source, used=bool(steps)),
        *_workflows(offer, steps),
        *_lanes(offer),
        *_section("daemon", DaemonSection, {}),
        *_section("plugins", PluginsSection, {}),
    ]
    for name, each in offer.sections.items():
        parts += _section(name, each.model, {})
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    """Write a section of the top level; commented out, name and all, where nothing of it is given."""
    field = CoreSections.model_fields.get(name)
    about = (field.description if field else None) or (model.__doc__ or "").strip().partition("\n")[0]
    mark = "" if given else "# "
    return [f"## {about}", f"{mark}{name}:", *_keys(model, given, "  "), ""]


def _hosts(offer: Offer, directory: Path, *, used: bool) -> list[str]:
    lines = [f"## {CoreSections.model_fields['hosts'].description}", "hosts:" if used else "# hosts:"]
    for name, each in sorted(offer.host_types.items(), key=lambda item: item[0] != "local"):
        given = {"type": "local", "base_dir": str(directory / "work")} if name == "local" and used else {}
        label = "here" if given else f"my_{name.replace('-', '_')}_host"
        lines.append(f"  {label}:" if given else f"# {label}:".replace("# ", "  # ", 1))
        lines += _keys(each.model, given or {"type": name}, "    ", live=bool(given))
    return [*lines, ""]


def _sources(source: str, *, used: bool) -> list[str]:
    lines = [f"## {CoreSections.model_fields['sources'].description}", "sources:" if used else "# sources:"]
    keys = list(_keys(SourceSection, {"path": source, "workflow": "first"}, "    ", live=used))
    first = next(index for index, line in enumerate(keys) if "path:" in line)
    keys[first] = keys[first].replace("    path", "  - path", 1).replace("    # path", "  # - path", 1)
    return [*lines, *keys, ""]


def _workflows(offer: Offer, steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"## {CoreSections.model_fields['workflows'].description}", "workflows:" if steps else "# workflows:"]
    lines.append("  first:" if steps else "  # first:")
    names = [*steps, *(name for name in offer.stages if name not in steps)]
    for name in names:
        given = steps.get(name, {})
        stage = offer.stages[name]
        if stage.summary:
            lines.append(f"    ## {stage.summary}")
        lines.append(f"    - {name}:" if given else f"    # - {name}:")
        lines += _keys(stage.options, given, "        ")
    return [*lines, ""]


def _lanes(offer: Offer) -> list[str]:
    lines = [f"## {CoreSections.model_fields['workers'].description}", "# workers:"]
    for lane in offer.lanes():
        lines += [f"  # {lane}:", *_keys(LaneSection, {}, "    ")]
    return [*lines, ""]


def _keys(
    model: type[BaseModel],
    given: Mapping[str, Any],
    indent: str,
    *,
    live: bool = True,
    default: BaseModel | None = None,
) -> Iterator[str]:
    """Write a model's keys: those given as they are, the others behind a `#` with their defaults.

    `live` False puts those given behind a `#` as well, as examples. `default` is the whole section's default.
    """
    secrets, names = shape.secrets_of(model), shape.names_of(model)
    for key, field in shape.keys_of(model).items():
        mark = "" if key in given and live else "# "
        value = getattr(default, names[key]) if default is not None else _default(field)
        inner = [type(value)] if isinstance(value, BaseModel) else shape.models_in(field.annotation)
        if key in given:
            yield from _described(f"{indent}{mark}{key}: {_text(given[key])}", field)
        elif key in secrets:
            yield from _described(f"{indent}{mark}{key}_file:", field)
        elif inner:
            yield from _described(f"{indent}{mark}{key}:", field)
            yield from _keys(inner[0], {}, indent + "  ", default=value)
        else:
            yield from _described(f"{indent}{mark}{key}:{_written(field, value)}", field)


def _described(line: str, field: FieldInfo) -> list[str]:
    """Put a key's meaning behind it or, where that would be too wide, above it."""
    if not field.description:
        return [line]
    text = f"{field.description}{' Needed.' if field.is_required() else ''}"
    if len(line) + len(text) + 4 <= WIDTH:
        return [f"{line}  # {text}"]
    indent = line[: len(line) - len(line.lstrip())]
    return [*textwrap.wrap(text, WIDTH, initial_indent=f"{indent}## ", subsequent_indent=f"{indent}## "), line]


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _written(field: FieldInfo, value: Any) -> str:
    """Write a default as the file would give it: `30s`, not 30.0; nothing for an empty one."""
    if value is None or value == "":
        return ""
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    text = _text(adapter.dump_python(value, mode="json"))
    home = str(Path("~").expanduser())
    return f" ~{text.removeprefix(home)}" if text.startswith(f"{home}/") else f" {text}"


def _text(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
