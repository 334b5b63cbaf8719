"""Start-up: what a quick command must not load. Structure, not time; the time is measured by `make bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mqi_cli.store import open_store

HEAVY = {
    "paramiko", "pika", "rich.table", "tabulate", "yaml",
    "mqi_cli.config.model", "mqi_cli.config.load", "mqi_cli.hosts.ssh", "mqi_cli.broker.rabbitmq", "mqi_cli.stage",
    "mqi_sftp.upload", "mqi_sftp.download", "mqi_sftp.options", "mqi_ssh_exec.run", "mqi_ssh_exec.options",
    "mqi_archiver.archive", "mqi_archiver.config", "mqi_scanner.scan", "mqi_scanner.config",
    "mqi_curator.hosts_patrol", "mqi_curator.config",
}  # fmt: skip
SHOW_MODULES = """
import sys
from mqi_cli.cli.main import main
sys.argv = ["mqi", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("\\nMODULES", *sys.modules)
"""


def loaded_by(place: Path, *arguments: str) -> set[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MQI_", "XDG_"))}
    environment |= {"HOME": str(place), "XDG_STATE_HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--help")
    assert "mqi_sftp.plugin" in modules  # else nothing was looked at
    assert not modules & (HEAVY | {"peewee", "rich", "pydantic"})


def test_listing_cases_without_a_store_loads_no_database(tmp_path: Path) -> None:
    assert not loaded_by(tmp_path, "case", "list") & (HEAVY | {"peewee", "rich"})


def test_listing_cases_of_an_empty_store_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "mqi").mkdir()
    open_store(tmp_path / "mqi" / "state.db").close()
    modules = loaded_by(tmp_path, "case", "list")
    assert "peewee" in modules
    assert not modules & (HEAVY | {"rich", "mqi_sftp.plugin"})


@pytest.mark.parametrize("state", ["state: {path: here/state.db}", "state: {path: '${PLACE}/state.db'}"])
def test_a_plain_state_path_is_the_one_that_the_whole_config_gives(tmp_path: Path, state: str) -> None:
    from mqi_cli.cli.operator import Operator
    from mqi_cli.config.find import plain_state_path
    from mqi_cli.config.load import load_config

    file = tmp_path / "mqi.yaml"
    file.write_text(f"{state}\n")
    environ = {"PLACE": "/somewhere", "HOME": str(tmp_path)}
    plain = plain_state_path(file, environ)
    assert plain == (None if "$" in state else load_config(file, None, environ).state_path)
    if plain:
        assert Operator(None, None, light=True, file=file).state_path == plain
