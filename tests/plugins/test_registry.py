"""The registry: what plugins offer, in what order, who owns it, and what happens to one that is broken or switched off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mqi_cli.check import Verdict
from mqi_cli.errors import PluginError
from mqi_cli.hookspecs import RecordedEvent
from mqi_cli.plugins import load_plugins

EVENT = RecordedEvent(0.0, "caaaaaaaaaa", "upload", "", 1, "done", "files are there")


def test_the_five_of_the_box_are_found_like_any_other():
    plugins = load_plugins(environ={})

    own = [each for each in plugins.found if each.distribution == "mqi-cli"]
    assert [each.name for each in own] == ["archiver", "curator", "scanner", "sftp", "ssh-exec"]
    assert plugins.found[: len(own)] == own
    assert {"upload", "run", "download", "archive"} <= set(plugins.stages)
    assert plugins.broken == []


def test_what_a_plugin_offers_is_indexed_with_its_owner(shelf):
    shelf.add(
        "greeter",
        """
        class Config(Section):
            word: str = "hello"

        @hookimpl
        def mqi_config():
            return ConfigSection("greeting", Config)

        @hookimpl
        def mqi_stages():
            return [Stage("greet", lambda case, ctx: Done(), "talk"), Stage("wave", lambda case, ctx: Done(), "move")]

        @hookimpl
        def mqi_patrols():
            return [Patrol("listen", lambda ctx: None, lambda section: 1.0, "ears")]

        @hookimpl
        def mqi_commands(app):
            import typer
            app.add_typer(typer.Typer(), name="greet")
            app.command("bow")(lambda: None)
        """,
    )

    plugins = shelf.load()

    assert plugins.owner_of("stage", "greet") == "greeter"
    assert plugins.owner_of("stage", "nothing") == ""
    assert plugins.section_of(plugins.stages["wave"]) == "greeting"
    assert plugins.section_of(plugins.patrols["listen"]) == "greeting"
    assert plugins.section_of("greeter") == plugins.section_of("greet") == plugins.section_of("listen") == "greeting"
    assert plugins.lanes() == ["talk", "move", "ears"]
    import typer

    app = typer.Typer()
    plugins.add_commands(app)
    assert plugins.brings("greeter") == {
        "section": ["greeting"],
        "stage": ["greet", "wave"],
        "patrol": ["listen"],
        "command": ["bow", "greet"],
    }
    assert sorted(typer.main.get_group(app).commands) == ["bow", "greet"]


def test_the_cores_hosts_open_its_own_classes(shelf, tmp_path):
    types = shelf.load().host_types

    section = types["local"].model(type="local", base_dir=str(tmp_path))
    host = types["local"].open("here", section, tmp_path)
    assert (host.name, type(host).__name__) == ("here", "LocalHost")
    host.close()
    section = types["ssh"].model(type="ssh", base_dir="/x", hostname="h", user="u")
    host = types["ssh"].open("there", section, tmp_path)
    assert type(host).__name__ == "SshHost"
    host.close()


def test_hooks_are_asked_once_and_not_before_they_are_wanted(shelf):
    shelf.add(
        "slow",
        """
        ASKED = []

        @hookimpl
        def mqi_stages():
            ASKED.append("stages")
            return []
        """,
    )

    plugins = shelf.load()
    asked = sys.modules["shelf_slow"].ASKED
    assert asked == []
    plugins.stages, plugins.patrols, plugins.lanes(), plugins.section_of("slow")
    assert asked == ["stages"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import nowhere_at_all", "can't be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit('bye')", "can't be imported: SystemExit: bye"),
        ("this is no Python", "can't be imported: SyntaxError: invalid syntax"),
        ("@hookimpl\ndef mqi_stages():\n    raise ValueError('first\\nsecond')", "mqi_stages: ValueError: first"),
        ("@hookimpl\ndef mqi_config():\n    raise RuntimeError", "mqi_config: RuntimeError"),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_go_on(shelf, stage_plugin, capsys, text, problem):
    shelf.add("broken", text)
    stage_plugin("well")

    plugins = shelf.load()

    assert list(plugins.stages) == ["well"]
    (info,) = plugins.broken
    assert (info.name, info.state) == ("broken", "broken")
    assert info.problem.startswith(problem)
    assert "MQI_DISABLE_PLUGINS=broken" in info.hint
    assert capsys.readouterr() == ("", "")


def test_a_broken_plugin_shows_its_traceback_to_those_who_ask_for_it(shelf, capsys):
    shelf.add("broken", "raise ValueError('look here')")

    shelf.load(environ={"MQI_DEBUG": "1"})

    assert "Traceback" in capsys.readouterr().err


def test_a_plugin_that_breaks_in_one_hook_takes_part_in_none(shelf):
    shelf.add(
        "half",
        """
        @hookimpl
        def mqi_stages():
            return [Stage("half", lambda case, ctx: Done(), "half")]

        @hookimpl
        def mqi_patrols():
            raise OSError("no")
        """,
    )

    assert dict(shelf.load().stages) == {}


@pytest.mark.parametrize("by", ["config", "environment"])
def test_a_plugin_that_is_switched_off_is_not_even_imported(shelf, stage_plugin, by):
    shelf.add("off", "raise SystemExit")
    stage_plugin("on")

    plugins = shelf.load("off") if by == "config" else shelf.load(environ={"MQI_DISABLE_PLUGINS": "x, off"})

    assert [(each.name, each.state) for each in plugins.found] == [("off", "disabled"), ("on", "ok")]
    assert plugins.broken == []
    assert [each.name for each in plugins.missing] == ["off"]
    assert "shelf_off" not in sys.modules


def test_a_plugin_whose_commands_fail_leaves_none_behind(shelf, stage_plugin):
    import typer

    shelf.add(
        "half",
        """
        @hookimpl
        def mqi_commands(app):
            app.command("first")(lambda: None)
            raise RuntimeError("second")
        """,
    )
    app = typer.Typer()

    plugins = shelf.load()
    plugins.add_commands(app)

    assert app.registered_commands == []
    assert plugins.broken[0].problem == "mqi_commands: RuntimeError: second"


def test_an_observer_that_fails_neither_stops_the_others_nor_tells_its_secret(shelf, caplog):
    shelf.add("a", "@hookimpl\ndef mqi_on_event(event):\n    raise OSError('https://hooks.example.org/token')")
    shelf.add("b", "SEEN = []\n@hookimpl\ndef mqi_on_event(event):\n    SEEN.append(event)")

    plugins = shelf.load()
    plugins.notify(EVENT)
    plugins.notify(EVENT)

    assert sys.modules["shelf_b"].SEEN == [EVENT, EVENT]
    assert "plugin a: its observer failed on done: OSError" in caplog.text
    assert "token" not in caplog.text


def test_a_check_that_fails_is_a_line_of_the_doctor(shelf):
    shelf.add("a", "@hookimpl\ndef mqi_checks(ctx):\n    raise OSError('no route')")
    shelf.add("b", "@hookimpl\ndef mqi_checks(ctx):\n    return [Check(ctx, Verdict.OK, 'well')]")
    shelf.add("c", "@hookimpl\ndef mqi_checks(ctx):\n    return ['well']")

    checks = list(shelf.load().checks(lambda name: f"context of {name}"))

    assert [(each.name, each.verdict) for each in checks] == [
        ("plugin a", Verdict.WARN),
        ("context of b", Verdict.OK),
        ("plugin c", Verdict.WARN),
    ]
    assert checks[0].text == "its check failed: OSError: no route"
    assert "MQI_DISABLE_PLUGINS=a" in checks[0].mend


def test_finding_the_plugins_imports_nothing_heavy():
    program = (
        "import sys; from mqi_cli.plugins import load_plugins; load_plugins();"
        "heavy = {'paramiko', 'pika', 'peewee', 'rich', 'yaml', 'mqi_cli.store', 'mqi_cli.hosts.ssh'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_the_contract_carries_exit_code_4(shelf, stage_plugin):
    stage_plugin("a", stage="same")
    stage_plugin("b", stage="same")

    with pytest.raises(PluginError) as caught:
        shelf.load().stages  # noqa: B018
    assert caught.value.exit_code == 4
