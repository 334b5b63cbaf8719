"""`mqi plugin new` writes a plugin that keeps the contract, and `mqi plugin test` tells one that doesn't."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mqi_cli.errors import UsageError
from mqi_cli.plugin_trial import try_plugin
from mqi_cli.scaffold import write_plugin


@pytest.fixture
def clean_imports(monkeypatch):
    """A trial makes a directory importable; give both back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("mqi_greet", "odd")):
            del sys.modules[name]


def findings(target):
    return {each.text: each for each in try_plugin(str(target), taken=["status"])}


def failures(target):
    return [each.text for each in try_plugin(str(target), taken=["status"]) if not each.ok]


@pytest.mark.usefixtures("clean_imports")
def test_a_new_plugin_keeps_the_contract(tmp_path):
    write_plugin("greet-all", tmp_path / "new", taken=())

    found = findings(tmp_path / "new")

    assert all(each.ok for each in found.values()), found
    assert "greet-all: stage greet-all" in found
    assert "greet-all: command greet-all" in found
    assert "greet-all: section greet-all" in found
    assert "greet-all: hooks mqi_checks, mqi_commands, mqi_config, mqi_stages" in found


def test_the_tests_of_a_new_plugin_pass(tmp_path):
    write_plugin("greet", tmp_path, taken=())

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["", "Greet", "a b", "../x", "x" * 33, "cli", "taken"])
def test_a_name_that_cannot_be_had_writes_nothing(tmp_path, name):
    with pytest.raises(UsageError):
        write_plugin(name, tmp_path / "new", taken=["taken"])
    assert not (tmp_path / "new").exists()


def test_a_directory_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "kept").write_text("kept")

    with pytest.raises(UsageError, match="holds something already"):
        write_plugin("greet", tmp_path, taken=())
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


PROJECT = '[project.entry-points."mqi.plugins"]\nodd = "odd"\n'


@pytest.fixture
def odd(tmp_path, clean_imports):
    def write(text):
        (tmp_path / "pyproject.toml").write_text(PROJECT)
        (tmp_path / "odd.py").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("import nowhere_at_all", "odd: can't be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1", "odd: no function of odd is marked @hookimpl"),
        (
            "from mqi_cli import hookimpl, Stage, Done\n@hookimpl\ndef mqi_stages():\n"
            "    return [Stage('upload', lambda case, ctx: Done(), 'odd')]",
            "the plugins 'sftp' and 'odd' both offer a stage named 'upload'",
        ),
        (
            "from mqi_cli import hookimpl, ConfigSection, Section\nclass C(Section):\n    url: str\n"
            "@hookimpl\ndef mqi_config():\n    return ConfigSection('odd', C)",
            "odd: section odd can't be left out",
        ),
        (
            "from mqi_cli import hookimpl, ConfigSection, Section\nclass C(Section):\n    url: str = ''\n"
            "@hookimpl\ndef mqi_config():\n    return ConfigSection('odd', C)",
            "odd: section odd: without a description: url",
        ),
        (
            "from mqi_cli import hookimpl\nfrom mqi_cli.case import CaseState\n@hookimpl\ndef mqi_stages():\n    return []",
            "odd: odd.py:2 imports mqi_cli.case",
        ),
        (
            "from mqi_cli import hookimpl\n@hookimpl\ndef mqi_commands(app):\n    app.command('status')(lambda: None)",
            "plugin 'odd': the command 'status' is mqi's own",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_told(odd, text, failure):
    assert failure in failures(odd(text))


def test_a_directory_without_a_plugin_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"pyproject\.toml: No such file"):
        try_plugin(str(tmp_path))
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(UsageError, match="names no plugin"):
        try_plugin(str(tmp_path))
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(UsageError, match="is not TOML"):
        try_plugin(str(tmp_path))


@pytest.mark.parametrize("plugin", ["mqi_archiver", "mqi_curator", "mqi_scanner", "mqi_sftp", "mqi_ssh_exec"])
def test_the_plugins_of_the_box_keep_the_contract(plugin):
    assert failures(f"{plugin}.plugin") == []
