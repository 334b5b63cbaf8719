"""`mqi init`: a config that works, and the next steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def mqi(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MQI_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-m", "mqi_cli", *arguments],
        cwd=place,
        env=environment | {"HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_config_that_init_writes_passes_its_own_check(tmp_path: Path) -> None:
    done = mqi(tmp_path, "init")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "incoming").is_dir()
    assert all(command in done.stdout for command in ("host trust", "doctor", "daemon start", "watch"))
    checked = mqi(tmp_path, "config", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_next_steps_name_a_config_that_lies_elsewhere(tmp_path: Path) -> None:
    done = mqi(tmp_path, "init", "site", "--source", "cases")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "cases").is_dir()
    assert "mqi --config site/mqi.yaml doctor" in done.stdout


@pytest.mark.parametrize("arguments", [("init",), ("config", "init")])
def test_a_config_that_is_there_is_written_over_only_by_force(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    config = tmp_path / "mqi.yaml"
    config.write_text("# mine\n")
    refused = mqi(tmp_path, *arguments)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert config.read_text() == "# mine\n"
    assert not (tmp_path / "incoming").exists()
    forced = mqi(tmp_path, *arguments, "--force")
    assert forced.returncode == 0, forced.stderr
    assert config.read_text() != "# mine\n"
