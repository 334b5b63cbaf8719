"""`mqi scan` and `mqi archive …` as an operator calls them: processes of their own, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
state: {{path: {base}/state/state.db}}
sources:
  - {{path: {base}/in, complete_when: {{quiet_for: 10ms}}, workflow: file}}
workflows:
  file:
    - archive: {{to: {base}/archive}}
scanner: {{interval: 100ms}}
archiver: {{retention: 180d}}
"""


class Shell:
    """A config and a case, and `mqi` to call."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config = base / "mqi.yaml"
        self.config.write_text(CONFIG.format(base=base))
        (base / "in" / "c1").mkdir(parents=True)
        (base / "in" / "c1" / "a.ptn").write_bytes(b"spots")

    def mqi(self, *words: str | Path, code: int = 0) -> str:
        """Call mqi and return what it prints; its exit code must be `code`."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-m", "mqi_cli", "--config", self.config, *words]
        ended = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def json(self, *words: str | Path, code: int = 0) -> Any:
        """Call mqi with --json."""
        return json.loads(self.mqi(*words, "--json", code=code))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_case_is_scanned_archived_listed_restored_and_pruned_by_hand(shell: Shell) -> None:
    assert "settling" in shell.mqi("scan")
    (seen,) = shell.json("scan", "--wait")
    assert (seen["name"], seen["stand"], seen["files"]) == ("c1", "complete", 1)
    assert "1 case is as it was" in shell.mqi("scan")
    assert "there is no source 'nowhere'" in shell.mqi("scan", "--source", "nowhere", code=2)

    (made,) = shell.json("archive", "run", "c1")
    assert made["state"] == "proven"
    (listed,) = shell.json("archive", "list", "--verify")
    assert (listed["state"], listed["sha256"]) == ("proven", made["sha256"])
    assert "1 file, each proven" in shell.mqi("archive", "restore", "c1", "--to", shell.base / "back")
    assert (shell.base / "back/input/a.ptn").read_bytes() == b"spots"
    assert "not empty" in shell.mqi("archive", "restore", "c1", "--to", shell.base / "back", code=2)
    assert "1 file" in shell.mqi("archive", "restore", made["path"], "--to", shell.base / "by-path")

    assert shell.json("archive", "prune") == []
    assert shell.json("archive", "prune", "--older-than", "1ms", "--dry-run")[0]["state"] == "would be removed"
    assert "--yes" in shell.mqi("archive", "prune", "--older-than", "1ms", code=2)
    assert "a number with a unit" in shell.mqi("archive", "prune", "--older-than", "180", code=2)
    assert shell.json("archive", "prune", "--older-than", "1ms", "--yes")[0]["state"] == "removed"
    assert not Path(made["path"]).exists()


def test_a_damaged_archive_is_named_and_leaves_with_exit_code_1(shell: Shell) -> None:
    shell.mqi("scan", "--wait")
    (made,) = shell.json("archive", "run", "c1")
    data = bytearray(Path(made["path"]).read_bytes())
    data[len(data) // 2] ^= 1
    Path(made["path"]).write_bytes(data)
    (listed,) = shell.json("archive", "list", "--verify", code=1)
    assert listed["state"].startswith("damaged")
    assert "can't be trusted" in shell.mqi("archive", "restore", "c1", "--to", shell.base / "back", code=1)
    assert not (shell.base / "back").exists()


def test_a_directory_that_cannot_be_a_case_leaves_with_exit_code_1(shell: Shell) -> None:
    (shell.base / "in/c1/link").symlink_to("a.ptn")
    (seen,) = shell.json("scan", "--wait", code=1)
    assert (seen["stand"], seen["note"]) == ("problem", "it holds 1 symbolic link")
