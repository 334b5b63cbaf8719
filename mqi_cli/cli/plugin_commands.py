"""The commands that plugins bring, found without asking a plugin for anything else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import typer

from mqi_cli.cli.output import complain


def plugin_commands(*, taken: Collection[str]) -> dict[str, Any]:
    """Return the plugins' commands by name. A broken plugin is named on stderr and left out."""
    from mqi_cli.config.find import disabled_plugins, find_config
    from mqi_cli.invocation import options
    from mqi_cli.plugins import load_plugins

    plugins = load_plugins(disabled_plugins(find_config(options().config)))
    app = typer.Typer(rich_markup_mode=None)
    plugins.add_commands(app, taken=taken)
    for info in plugins.broken:
        complain(f"mqi: plugin {info.name} is left out: {info.problem}")
        complain(
            f"  -> switch it off with plugins: {{disable: [{info.name}]}} in the config or MQI_DISABLE_PLUGINS={info.name}"
        )
    if not app.registered_commands and not app.registered_groups:
        return {}
    return dict(typer.main.get_group(app).commands)
