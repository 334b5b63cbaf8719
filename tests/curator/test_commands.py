"""`mqi gpu …` and `mqi host …` as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator import captured
from curator.captured import A, B, C
from curator.machines import FakeSmi
from mqi_cli import UsageError
from mqi_cli.hosts.sshd import OpenSSHServer, make_key
from mqi_curator.gpu_commands import find_gpu

Mqi = Callable[..., str]


@pytest.fixture
def mqi(tmp_path: Path) -> Mqi:
    """`mqi` in a directory with a config; checks the exit code and returns what it printed."""

    def call(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mqi_cli", *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def configure(directory: Path, **changes: Any) -> None:
    """Write the config; JSON is YAML."""
    config: dict[str, Any] = {
        "state": {"path": str(directory / "state" / "state.db")},
        "hosts": {"here": {"type": "local", "base_dir": str(directory / "base")}},
        "workflows": {"qa": [{"upload": {"host": "here"}}]},
    }
    (directory / "mqi.yaml").write_text(json.dumps(config | changes))


def test_gpus_are_listed_held_and_released(mqi: Mqi, tmp_path: Path, smi: FakeSmi) -> None:
    configure(tmp_path, curator={"gpu_command": [str(smi.program)]})
    assert "No GPU" in mqi("gpu", "list")
    smi.answers(captured.TWO_A100_MIG_COLUMN, captured.APPS)
    listed = mqi("gpu", "list", "--look")
    assert "1423/40960" in listed
    assert "12033, 12034" in listed

    assert "goes to no run" in mqi("gpu", "hold", "here:1")
    assert "held already" in mqi("gpu", "hold", B[:10])
    held = {row["uuid"]: row["held"] for row in json.loads(mqi("gpu", "list", "--json"))}
    assert held == {A: False, B: True}
    assert "given to runs again" in mqi("gpu", "release", B)
    assert "not held" in mqi("gpu", "release", B)
    assert "mqi gpu list" in mqi("gpu", "hold", "here:7", code=2)

    smi.answers(captured.TWO_A100_MIG_COLUMN.replace(B, C))  # the card was replaced
    mqi("gpu", "list", "--look")
    assert "goes to no run until: mqi gpu release here:1" in mqi("gpu", "hold", "here:1")
    assert f"goes to no run until: mqi gpu release {B}" in mqi("gpu", "hold", B)
    held = {row["uuid"]: (row["held"], row["present"]) for row in json.loads(mqi("gpu", "list", "--json"))}
    assert held == {A: (False, True), B: (True, False), C: (True, True)}
    assert f"{B}, which is gone from here, is given to runs again" in mqi("gpu", "release", B)
    smi.answers(captured.TWO_A100_MIG_COLUMN.splitlines(keepends=True)[0])
    mqi("gpu", "list", "--look")
    assert f"GPU here:1 is gone: {B}, {C}" in mqi("gpu", "hold", "here:1", code=2)


def test_a_gpu_may_be_named_by_a_beginning_that_only_one_has() -> None:
    rows = [
        {"host": "a", "index": 0, "uuid": "GPU-12aa", "present": True},
        {"host": "b", "index": 0, "uuid": "GPU-12bb", "present": True},
    ]
    assert find_gpu("12B", rows)["host"] == "b"
    assert find_gpu("b:0", rows)["host"] == "b"
    with pytest.raises(UsageError, match="a:0"):
        find_gpu("GPU-12", rows)
    for text in ("", "GPU-", "c:0", "0"):
        with pytest.raises(UsageError):
            find_gpu(text, rows)


def test_a_host_is_paused_with_its_reason_and_resumed(mqi: Mqi, tmp_path: Path) -> None:
    configure(tmp_path)
    mqi("host", "pause", "here", "--reason", "disk is replaced")
    assert "disk is replaced" in mqi("host", "list")
    mqi("host", "resume", "here")
    (row,) = json.loads(mqi("host", "list", "--look", "--json"))
    assert (row["state"], row["reason"], row["type"]) == ("up", "", "local")
    assert row["total_bytes"]
    assert "no host nowhere" in mqi("host", "pause", "nowhere", code=2)


def test_a_local_host_is_tried_out_and_has_no_key_to_trust(mqi: Mqi, tmp_path: Path, smi: FakeSmi) -> None:
    configure(tmp_path, curator={"gpu_command": [str(smi.program)]})
    trials = {row["name"]: row for row in json.loads(mqi("host", "test", "here", "--json"))}
    assert list(trials) == ["log in", "base_dir", "tools", "clock", "GPUs"]
    assert {row["verdict"] for row in trials.values()} == {"ok"}
    assert trials["GPUs"]["text"] == "2 can be used"
    assert list((tmp_path / "base").iterdir()) == []
    assert "nothing to trust" in mqi("host", "trust", "here", code=2)


def test_a_base_dir_that_can_not_be_made_fails_the_trial(mqi: Mqi, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    configure(tmp_path, hosts={"here": {"type": "local", "base_dir": str(tmp_path / "file" / "base")}})
    said = mqi("host", "test", "here", code=7)
    assert "FAIL base_dir" in said
    assert "tools" not in said, "what needs it is not tried"


@pytest.mark.sshd
def test_a_host_key_goes_from_unknown_to_trusted_to_changed(mqi: Mqi, tmp_path: Path, own_sshd: OpenSSHServer) -> None:
    own_sshd.start()
    section = own_sshd.host_section(known_hosts=tmp_path / "known_hosts").model_dump(mode="json", exclude_none=True)
    configure(tmp_path, hosts={"hpc": section}, workflows={"qa": [{"upload": {"host": "hpc"}}]})

    unknown = mqi("host", "test", "hpc", code=7)
    assert "ok   connect" in unknown
    assert "FAIL key" in unknown
    assert "mqi host trust hpc" in unknown
    assert "nobody is here" in mqi("host", "trust", "hpc", code=2)
    assert fingerprint_of(own_sshd) in mqi("host", "trust", "hpc", "--yes")
    assert "ok   log in" in mqi("host", "test", "hpc")
    assert "trusted already" in mqi("host", "trust", "hpc")

    own_sshd.kill()
    for file in (own_sshd.host_key_file, own_sshd.host_key_file.with_suffix(".pub")):
        file.unlink()
    make_key(own_sshd.host_key_file)
    own_sshd.start()
    assert "has changed" in mqi("host", "test", "hpc", code=7)
    refused = mqi("host", "trust", "hpc", "--yes", code=2)
    assert "HAS CHANGED" in refused
    assert "--fingerprint" in refused
    mqi("host", "trust", "hpc", "--fingerprint", "SHA256:something+else", code=7)
    assert "FAIL key" in mqi("host", "test", "hpc", code=7), "nothing was changed"
    mqi("host", "trust", "hpc", "--fingerprint", fingerprint_of(own_sshd))
    assert "ok   log in" in mqi("host", "test", "hpc")


@pytest.mark.sshd
def test_a_server_that_is_down_fails_at_the_connection(mqi: Mqi, tmp_path: Path, own_sshd: OpenSSHServer) -> None:
    own_sshd.start()
    section = own_sshd.host_section().model_dump(mode="json", exclude_none=True)
    own_sshd.kill()
    configure(tmp_path, hosts={"hpc": section}, workflows={"qa": [{"upload": {"host": "hpc"}}]})
    said = mqi("host", "test", "hpc", code=7)
    assert "ok   resolve" in said
    assert "FAIL connect" in said
    assert "log in" not in said


def test_a_cancelled_case_is_cleaned_from_its_host_after_a_word(mqi: Mqi, tmp_path: Path) -> None:
    configure(tmp_path)
    for name in ("going", "staying"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.dat").write_text(name)
        mqi("case", "add", str(tmp_path / name))
        mqi("transfer", "upload", str(tmp_path / name))
    mqi("case", "rerun", str(tmp_path / "going"), "--yes")
    mqi("case", "cancel", str(tmp_path / "going"), "--yes")
    keys = {row["name"].rpartition("/")[2]: row["key"] for row in json.loads(mqi("case", "list", "--json", "--all"))}
    places = {each.name.partition("-")[0]: each for each in (tmp_path / "base").iterdir() if each.name.startswith("c")}
    assert set(places) == set(keys.values())
    going, staying = places[keys["going"]], places[keys["staying"]]
    stranger = going.with_name(f"{keys['going']}-ffffff")  # of an installation that knows a case of this name, too
    stranger.mkdir()

    planned = mqi("host", "clean", "here", "--dry-run")
    assert f"would go {keys['going']}  cancelled" in planned
    assert f"stays   {keys['staying']}  done, but not archived" in planned
    assert going.is_dir()
    assert "--yes" in mqi("host", "clean", "here", code=2)
    assert going.is_dir()
    assert "Removed on here: 1 case directory" in mqi("host", "clean", "here", "--yes")
    assert not going.exists() and stranger.is_dir()
    assert (staying / "input" / "a.dat").exists()
    assert "nothing to remove" in mqi("host", "clean", "here", "--yes")
    assert "nothing of it is left on here" in mqi("case", "log", keys["going"])


def fingerprint_of(server: OpenSSHServer) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-lf", str(server.host_key_file.with_suffix(".pub"))], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]
