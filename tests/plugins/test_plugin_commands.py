"""`mqi plugin` and `mqi config` as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def mqi(tmp_path):
    def call(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "mqi_cli", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_plugins_are_listed_with_what_they_bring(mqi):
    done = mqi("plugin", "list", "--json", MQI_DISABLE_PLUGINS="scanner")

    rows = {each["name"]: each for each in json.loads(done.stdout)}
    assert rows["sftp"]["brings"] == {"command": ["transfer"], "section": ["sftp"], "stage": ["upload", "download"]}
    assert (rows["scanner"]["state"], rows["scanner"]["brings"]) == ("disabled", {})
    assert rows["sftp"]["distribution"] == "mqi-cli"
    assert done.returncode == 0


def test_a_first_config_is_written_once_and_passes_its_check(mqi, tmp_path):
    written = mqi("config", "init")
    again = mqi("config", "init")
    checked = mqi("config", "check")

    assert written.returncode == 0, written.stderr
    assert (tmp_path / "incoming").is_dir()
    assert (again.returncode, again.stderr.splitlines()[0]) == (2, "mqi: mqi.yaml is there already")
    assert checked.stdout.startswith("ok: 1 host, 1 source, 1 workflow, 3 steps, ")
    (tmp_path / "mqi.yaml").write_text("x: 1\n")
    assert mqi("config", "init", "--force").returncode == 0
    assert mqi("config", "check").returncode == 0


def test_a_bad_config_is_told_in_lines_or_as_json_with_exit_code_3(mqi, tmp_path):
    (tmp_path / "mqi.yaml").write_text("daemn: {}\nhosts: [x]\n")

    plain, as_json = mqi("config", "check"), mqi("config", "check", "--json")

    assert (plain.returncode, as_json.returncode) == (3, 3)
    assert "  mqi.yaml:1: daemn: unknown key; did you mean 'daemon'?" in plain.stderr.splitlines()
    assert "Traceback" not in plain.stderr
    assert len(json.loads(as_json.stdout)["problems"]) == 2


def test_show_can_be_narrowed_and_hides_secrets(mqi, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    (tmp_path / "mqi.yaml").write_text("broker: {url: 'amqp://b/', password_file: secret}\n")

    done = mqi("config", "show", "broker", "--json")

    assert "hunter2" not in done.stdout
    rows = {each["key"]: each for each in json.loads(done.stdout)}
    assert rows["broker.password"] == {"key": "broker.password", "value": "****", "origin": str(secret)}
    assert all(key.startswith("broker.") for key in rows)
    assert mqi("config", "show", "nothing").returncode == 2


def test_the_schema_is_json(mqi):
    schema = json.loads(mqi("config", "schema").stdout)

    assert schema["$schema"].endswith("2020-12/schema")
    assert {"hosts", "archiver"} <= set(schema["properties"])


def test_a_broken_plugin_is_named_on_stderr_and_the_list_still_comes(mqi, tmp_path):
    site = tmp_path / "site/broken-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[mqi.plugins]\nbroken = nowhere_at_all\n")

    done = mqi("plugin", "list", PYTHONPATH=str(tmp_path / "site"))

    assert done.returncode == 0
    assert "broken" in done.stdout
    assert "plugin broken is left out: can't be imported: ModuleNotFoundError" in done.stderr
    assert "MQI_DISABLE_PLUGINS=broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_is_begun_and_tested(mqi, tmp_path):
    begun = mqi("plugin", "new", "greet")
    tested = mqi("plugin", "test", "mqi-greet")
    (tmp_path / "mqi-greet/mqi_greet/plugin.py").write_text("x = 1\n")
    broken = mqi("plugin", "test", "mqi-greet", "--json")

    assert begun.returncode == 0, begun.stderr
    assert tested.returncode == 0, tested.stdout
    assert broken.returncode == 4
    assert not all(each["ok"] for each in json.loads(broken.stdout))
    assert mqi("plugin", "new", "status").returncode == 2
