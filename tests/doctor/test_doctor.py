"""`mqi doctor`: what it looks at, and that nothing which hangs or fails keeps it from the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mqi_cli import Alert, Check, CheckContext, UsageError, Verdict, hookimpl
from mqi_cli.config.load import load_config
from mqi_cli.config.loaded import Config
from mqi_cli.daemon import DaemonFiles
from mqi_cli.doctor import each_check, run_checks
from mqi_cli.lock import Lock
from mqi_cli.plugins import Plugins, load_plugins
from mqi_cli.store import open_store


class Point:
    """An entry point that loads a module made by a test."""

    group = "mqi.plugins"
    dist = None

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name = name
        self.value = module.__name__
        self._module = module

    def load(self) -> ModuleType:
        return self._module


def plugin(name: str, check: object) -> Point:
    """Return a plugin with one check."""
    module = ModuleType(f"plugin_{name}")
    module.mqi_checks = check  # type: ignore[attr-defined]
    return Point(name, module)


def plugins_of(*points: Point) -> Plugins:
    return load_plugins(environ={}, entry_points=points)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A config with one host of this machine."""
    file = tmp_path / "mqi.yaml"
    text = {
        "state": {"path": str(tmp_path / "state" / "state.db")},
        "hosts": {"here": {"type": "local", "base_dir": str(tmp_path / "base")}, "there": local_at(tmp_path / "there")},
    }
    file.write_text(json.dumps(text))
    file.chmod(0o600)
    return load_config(file, plugins_of())


def local_at(path: Path) -> dict[str, str]:
    return {"type": "local", "base_dir": str(path)}


def lines(config: Config, *points: Point, host: str = "", deadline: float = 20) -> dict[str, Check]:
    return {check.name: check for check in run_checks(config, plugins_of(*points), host=host, deadline=deadline)}


def test_a_fresh_machine_has_nothing_that_fails(config: Config) -> None:
    found = lines(config)
    assert [check for check in found.values() if check.verdict is Verdict.FAIL] == []
    assert found["daemon"].mend == "mqi daemon start"
    assert not config.state_dir.exists(), "looking changes nothing"


def test_a_config_that_a_group_may_change_is_a_warning(config: Config) -> None:
    assert config.file is not None
    config.file.chmod(0o660)
    check = lines(config)["config: mode"]
    assert check.verdict is Verdict.WARN
    assert check.mend.startswith(f"chmod g-w {config.file}")


def test_a_state_directory_that_others_may_look_into_is_a_warning(config: Config) -> None:
    config.state_dir.mkdir(mode=0o755)
    assert lines(config)["state directory: mode"].verdict is Verdict.WARN


def test_a_state_database_that_is_damaged_fails_and_the_rest_is_told(config: Config) -> None:
    config.state_dir.mkdir(mode=0o700)
    config.state_path.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    found = lines(config)
    assert found["state"].verdict is Verdict.FAIL
    assert found["state"].mend
    assert "daemon" in found


def test_alerts_that_stand_are_repeated(config: Config) -> None:
    store = open_store(config.state_path)
    with store.transaction():
        alert = Alert("disk:here", True, "little space", hint="make room")
        store.switches.raise_alert(alert.topic, text=alert.text, hint=alert.hint, now=1.0)
    store.close()
    check = lines(config)["alert"]
    assert (check.verdict, check.text, check.mend) == (Verdict.WARN, "little space", "make room")


def test_a_daemon_that_runs_is_seen(config: Config) -> None:
    lock = Lock(DaemonFiles(config.state_dir).lock)
    lock.acquire()
    try:
        assert "starting" in lines(config)["daemon"].text
    finally:
        lock.release()


def test_a_private_key_that_others_may_read_fails(config: Config, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("not a key, and nobody reads it here")
    key.chmod(0o644)
    file = tmp_path / "ssh.yaml"
    section = {"type": "ssh", "hostname": "127.0.0.1", "user": "mqi", "key_file": str(key), "base_dir": "/b"}
    file.write_text(json.dumps({"state": {"path": str(config.state_path)}, "hosts": {"hpc": section}}))
    check = lines(load_config(file, plugins_of()))["private key"]
    assert (check.verdict, check.mend) == (Verdict.FAIL, f"chmod 600 {key}")
    key.unlink()
    assert "ssh-keygen" in lines(load_config(file, plugins_of()))["private key"].mend


def test_a_plugin_that_does_not_load_is_named_with_the_way_to_go_on(config: Config) -> None:
    class Broken(Point):
        def load(self) -> ModuleType:
            raise ImportError("libfoo.so is missing")

    check = lines(config, Broken("third", ModuleType("third")))["plugin third"]
    assert check.verdict is Verdict.FAIL
    assert "libfoo.so is missing" in check.text
    assert "disable: [third]" in check.mend


def test_a_plugins_check_that_fails_is_one_line_and_the_next_plugin_is_asked(config: Config) -> None:
    @hookimpl
    def fails(ctx: CheckContext) -> list[Check]:
        raise RuntimeError("what a mess")

    @hookimpl
    def works(ctx: CheckContext) -> list[Check]:
        return [Check("fridge", Verdict.OK, "cold")]

    found = lines(config, plugin("a", fails), plugin("b", works))
    assert found["plugin a"].verdict is Verdict.WARN
    assert "what a mess" in found["plugin a"].text
    assert found["fridge"].text == "cold"


def test_a_check_that_hangs_is_given_up_and_the_next_one_is_asked(config: Config) -> None:
    release = threading.Event()

    @hookimpl
    def hangs(ctx: CheckContext) -> list[Check]:
        release.wait(30)
        return []

    @hookimpl
    def works(ctx: CheckContext) -> list[Check]:
        return [Check("fridge", Verdict.OK, "cold")]

    try:
        found = lines(config, plugin("a", hangs), plugin("b", works), deadline=1.0)
    finally:
        release.set()
    assert "no answer within 1 s" in found["plugin a"].text
    assert "fridge" in found


def test_a_plugin_is_shown_its_hosts_and_only_the_one_that_was_asked_for(config: Config) -> None:
    @hookimpl
    def counts(ctx: CheckContext) -> list[Check]:
        return [Check(name, Verdict.OK, ctx.host(name).describe()) for name in ctx.hosts]

    assert {"here", "there"} <= set(lines(config, plugin("a", counts)))
    only = lines(config, plugin("a", counts), host="there")
    assert "there" in only
    assert "here" not in only
    with pytest.raises(UsageError, match="here, there"):
        next(each_check(config, plugins_of(), host="nowhere"))


def call(directory: Path, *words: str) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "mqi_cli", "doctor", *words],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture
def directory(tmp_path: Path, config: Config) -> Iterator[Path]:
    return tmp_path


def test_the_command_says_ok_and_ends_with_0(directory: Path, config: Config) -> None:
    code, said = call(directory)
    assert code == 0, said
    assert "✓ ok   host here: answers" in said
    assert "→ mqi daemon start" in said


def test_the_command_ends_with_1_when_something_fails_and_names_it_in_json(directory: Path, config: Config) -> None:
    (directory / "there").write_text("in the way of a base_dir")
    code, said = call(directory, "--json", "--host", "there")
    failed = [line for line in json.loads(said) if line["verdict"] == "fail"]
    assert code == 1
    assert {line["name"].partition(":")[0] for line in failed} == {"host there"}


def test_a_config_with_problems_has_a_line_for_each(directory: Path, config: Config) -> None:
    assert config.file is not None
    config.file.write_text("stat: {}\nhosts: {here: {type: locul}}\n")
    code, said = call(directory)
    assert code == 1
    assert "stat" in said
    assert "locul" in said
