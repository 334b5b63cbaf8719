"""A plugin that breaks the contract stops mqi with the plugins' names, before anything is guessed."""

from __future__ import annotations

import importlib.metadata

import pytest
import typer

from mqi_cli.discovery import GROUP
from mqi_cli.errors import PluginError

HOOK = "@hookimpl\n"
OFFER = {
    "stage": HOOK + "def mqi_stages():\n    return [Stage('same', lambda case, ctx: Done(), 'lane')]",
    "section": "class C(Section):\n    pass\n" + HOOK + "def mqi_config():\n    return ConfigSection('same', C)",
    "patrol": HOOK + "def mqi_patrols():\n    return [Patrol('same', lambda ctx: None, lambda section: 1.0, 'lane')]",
    "host type": "from mqi_cli.config.model import HostSection\n"
    + HOOK
    + "def mqi_host_types():\n    return [HostType('same', HostSection, lambda name, section, directory: None)]",
    "command": HOOK + "def mqi_commands(app):\n    app.command('same')(lambda: None)",
}


def everything(plugins, taken=()):
    app = typer.Typer()
    app.command("own")(lambda: None)
    plugins.add_commands(app, taken=taken)
    return plugins.stages


@pytest.mark.parametrize("kind", OFFER)
def test_two_plugins_that_offer_one_name_are_both_named(shelf, kind):
    shelf.add("first", OFFER[kind])
    shelf.add("second", OFFER[kind])

    with pytest.raises(PluginError) as caught:
        everything(shelf.load())

    assert caught.value.message == f"the plugins 'first' and 'second' both offer a {kind} named 'same'"
    assert "MQI_DISABLE_PLUGINS=second" in caught.value.hint


@pytest.mark.parametrize("kind", OFFER)
def test_either_of_them_can_be_switched_off(shelf, kind):
    shelf.add("first", OFFER[kind])
    shelf.add("second", OFFER[kind])

    plugins = shelf.load("first")
    everything(plugins)

    assert plugins.owner_of(kind, "same") == "second"


@pytest.mark.parametrize(
    ("kind", "name"), [("section", "hosts"), ("host type", "ssh"), ("command", "own"), ("command", "taken")]
)
def test_a_name_of_the_core_is_not_to_be_had(shelf, kind, name):
    shelf.add("greedy", OFFER[kind].replace("same", name))

    with pytest.raises(PluginError, match=rf"plugin 'greedy': the {kind} '{name}'.* is mqi's own"):
        everything(shelf.load(), taken=["taken"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HOOK + "def mqi_stage():\n    pass", "'mqi_stage' is marked @hookimpl and is no hook; did you mean 'mqi_stages'?"),
        (HOOK + "def qqq():\n    pass", "'qqq' is marked @hookimpl and is no hook; there are mqi_config, "),
        (HOOK + "def mqi_commands(cli):\n    pass", "'cli'"),
        (HOOK + "def mqi_stages():\n    return 5", "mqi_stages must return a list of Stage, not int"),
        (HOOK + "def mqi_stages():\n    return ['x']", "mqi_stages must return a list of Stage; it holds str"),
        (HOOK + "def mqi_config():\n    return {}", "mqi_config must return a ConfigSection, not dict"),
        (HOOK + "def mqi_patrols():\n    return 'ab'", "mqi_patrols must return a list of Patrol, not str"),
        (HOOK + "def mqi_host_types():\n    return [Stage]", "mqi_host_types must return a list of HostType; it holds the class"),
        (OFFER["stage"].replace("same", "My Stage"), "'My Stage' can't name a stage: 1 to 32 of"),
        (OFFER["stage"].replace("'lane'", "''"), "'' can't name a lane of stage 'same'"),
        (OFFER["stage"].replace("case, ctx", "case"), "run(case, ctx) of stage 'same' can't be called like this; it takes (case)"),
        (OFFER["stage"].replace("lambda case, ctx: Done()", "None"), "run(case, ctx) of stage 'same' is no function but NoneType"),
        (OFFER["stage"].replace("'lane'", "'lane', Section"), "the options of stage 'same' must be a subclass of StepOptions"),
        (OFFER["stage"].replace("'lane'", "'lane', check=len"), "check(steps, index, hosts) of stage 'same' can't be called"),
        (OFFER["stage"].replace("'lane'", "'lane', job=True, alone=True"), "stage 'same' can't be both `alone` and a `job`"),
        (OFFER["patrol"].replace("section: 1.0", ": 1.0"), "interval(section) of patrol 'same' can't be called"),
        (OFFER["section"].replace("C(Section)", "C"), "the model of section 'same' must be a subclass of Section"),
        (OFFER["section"].replace("pass", "model_config = {'extra': 'allow'}"), "must refuse unknown keys"),
        (OFFER["host type"].replace("HostSection", "Section"), "the model of host type 'same' must be a subclass of HostSection"),
        ("async def run(case, ctx): ...\n" + OFFER["stage"].replace("lambda case, ctx: Done()", "run"), "must be a plain function"),
    ],
)  # fmt: skip
def test_each_breach_is_told_with_the_plugin_and_a_way_on(shelf, text, message):
    shelf.add("odd-one", text)

    with pytest.raises(PluginError) as caught:
        everything(shelf.load())

    assert caught.value.message.startswith("plugin 'odd-one': ")
    assert message in caught.value.message
    assert "MQI_DISABLE_PLUGINS=odd-one" in caught.value.hint


def test_two_plugins_of_one_name_are_told_with_their_modules(shelf):
    shelf.add("same", "", module="shelf_one")
    shelf.add("same", "", module="shelf_two")

    with pytest.raises(PluginError, match=r"two plugins are named 'same': shelf_one .* and shelf_two"):
        shelf.load()


def test_one_module_under_two_names_is_told(shelf):
    shelf.add("one", "", module="shelf_one")
    shelf.points.append(importlib.metadata.EntryPoint("two", "shelf_one", GROUP))

    with pytest.raises(PluginError, match="the plugins 'one' and 'two' are one module, shelf_one"):
        shelf.load()


def test_a_plugin_that_is_found_twice_counts_once(shelf, stage_plugin):
    stage_plugin("a")
    shelf.points.append(shelf.points[0])

    assert [each.name for each in shelf.load().found] == ["a"]
