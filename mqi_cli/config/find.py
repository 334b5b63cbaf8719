"""Find the config, and read from it what a quick command needs, without the models that check everything else."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mqi_cli.errors import ConfigError


def find_config(explicit: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the config to use: `--config`, `$MQI_CONFIG`, `./mqi.yaml`, the user's, the system's; None without any.

    Raises `ConfigError` when one that was asked for by name is not there: to go on with another would surprise.
    """
    for named, by in ((explicit, "--config"), (environ.get("MQI_CONFIG"), "$MQI_CONFIG")):
        if named:
            file = Path(named).expanduser()
            if not file.exists():
                raise ConfigError(f"{file}: there is no such file ({by} names it)", hint="mqi config init writes one")
            return file
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else "")
    candidates = [Path("mqi.yaml"), *([Path(home) / "mqi/mqi.yaml"] if home else []), Path("/etc/mqi/mqi.yaml")]
    return next((each for each in candidates if each.is_file()), None)


def disabled_plugins(file: Path | None) -> Collection[str]:
    """Return the plugins that a config switches off, whatever else is wrong with it: `load_config` will tell that."""
    section = _plain(file).get("plugins")
    names = section.get("disable") if isinstance(section, dict) else None
    return tuple(each for each in names if isinstance(each, str)) if isinstance(names, list) else ()


def plain_state_path(file: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the state database lies, if the config says so in plain words; None where `load_config` must look:
    for a `${VARIABLE}`, for any other key of the section `state`, and for whatever is wrong.
    """
    if file is None:
        return default_state_path(environ)
    data = _plain(file)
    if not data:
        return None
    section = data.get("state")
    if section is None:
        return default_state_path(environ)
    path = section.get("path") if isinstance(section, dict) and section.keys() == {"path"} else None
    if not isinstance(path, str) or not path.strip() or "$" in path or "\0" in path:
        return None
    try:
        return local_path_from(path, file.absolute().parent).absolute()
    except ValueError:
        return None


def default_state_path(environ: Mapping[str, str]) -> Path:
    """Return where the state database lies without a word in the config."""
    home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME') or Path('/').absolute()}/.local/state"
    return Path(home).absolute() / "mqi" / "state.db"


def local_path_from(text: str, base: Path | None) -> Path:
    """Return a path of the config: `~` filled in, a relative one taken from `base`. Raises `ValueError`."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~somebody who has no account here
        raise ValueError("there is no home directory of that name") from error
    return base / path if base else path


def _plain(file: Path | None) -> Mapping[str, Any]:
    """Return a config's data as written; nothing where it can't be read or has a fault in its syntax."""
    if file is None:
        return {}
    from mqi_cli.config.document import Document
    from mqi_cli.config.problems import Problems

    problems = Problems(file)
    document = Document(file, problems)
    try:
        document.read()
    except ConfigError:
        return {}
    return {} if problems.found else document.data
