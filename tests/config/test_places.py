"""Which file is taken, where its relative paths begin, and that sources and results are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqi_cli.config.find import disabled_plugins, find_config
from mqi_cli.config.load import load_config
from mqi_cli.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_config_that_is_found_wins(here):
    named, by_environment, of_user = here / "a.yaml", here / "b.yaml", here / "user/mqi/mqi.yaml"
    of_user.parent.mkdir(parents=True)
    environ = {"MQI_CONFIG": str(by_environment), "XDG_CONFIG_HOME": str(here / "user")}
    for file in (named, by_environment, Path("mqi.yaml"), of_user):
        file.write_text("")

    assert find_config(named, environ) == named
    assert find_config(None, environ) == by_environment
    del environ["MQI_CONFIG"]
    assert find_config(None, environ) == Path("mqi.yaml")
    Path("mqi.yaml").unlink()
    assert find_config(None, environ) == of_user
    assert find_config(None, {"HOME": str(here)}) is None or Path("/etc/mqi/mqi.yaml").exists()


def test_the_users_config_lies_below_home_without_xdg(here):
    file = here / ".config/mqi/mqi.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("")

    assert find_config(None, {"HOME": str(here), "MQI_CONFIG": ""}) == file


@pytest.mark.parametrize("by", ["--config", "$MQI_CONFIG"])
def test_a_config_that_was_asked_for_and_is_not_there_is_an_error(here, by):
    (here / "mqi.yaml").write_text("")
    gone = here / "gone.yaml"

    with pytest.raises(ConfigError, match=r"gone\.yaml: there is no such file"):
        find_config(gone if by == "--config" else None, {"MQI_CONFIG": str(gone)})


def test_problems_name_the_file_as_it_can_be_opened_from_here(here, plugins):
    file = here / "sub/mqi.yaml"
    file.parent.mkdir()
    file.write_text("x: 1\n")

    for named in (file, Path("sub/mqi.yaml")):
        with pytest.raises(ConfigError) as caught:
            load_config(named, plugins, {})
        assert caught.value.problems[0].startswith("sub/mqi.yaml:1: x: ")


def test_relative_paths_begin_at_the_files_directory(desk, monkeypatch):
    monkeypatch.chdir("/")

    config = desk.load("""\
        state: {path: state/state.db}
        broker: {url: "amqps://b/", tls: {ca_file: ca.pem}}
        sources: [{path: ./in, workflow: qa}]
        workflows: {qa: [archive: {to: archive}]}
        archiver: {backup: {directory: ../backup}}
        """)

    assert config.state_path == desk.directory / "state/state.db"
    assert config.broker.tls.ca_file == desk.directory / "ca.pem"
    assert config.sources[0].path == desk.directory / "in"
    assert config.workflows["qa"].steps[0].options.to == desk.directory / "archive"
    assert config.sections["archiver"].backup.directory == desk.directory / "../backup"


def test_a_tilde_is_the_home_directory(desk, monkeypatch):
    monkeypatch.setenv("HOME", "/home/operator")

    config = desk.load("state: {path: ~/state.db}\n")

    assert config.state_path == Path("/home/operator/state.db")
    assert "there is no home directory" in desk.problems("state: {path: ~nobody-of-that-name/x}\n")[0]


def test_the_states_directory_follows_xdg(desk):
    desk.environ = {"XDG_STATE_HOME": "/var/lib/me"}

    assert desk.load("").state_path == Path("/var/lib/me/mqi/state.db")


SOURCES = """\
sources:
  - {path: /data/incoming, workflow: qa}
  - {path: %s, workflow: qa}
hosts: {here: {type: local, base_dir: %s}}
workflows:
  qa: [archive: {to: %s}]
state: {path: %s/state.db}
"""


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (("/data/other", "/scratch", "/archive", "/state"), ""),
        (("/data/incoming-2", "/data/incoming-3", "/data", "/state"), "FILE:6: workflows.qa[0].archive.to: /data holds"),
        (("/data/incoming/", "/scratch", "/archive", "/state"), "sources[1]: two sources are called 'incoming'"),
        (("/data/x/../incoming", "/scratch", "/archive", "/state"), "sources[1].path: is the source /data/incoming"),
        (("/data/incoming/a", "/scratch", "/archive", "/state"), "sources[1].path: lies in the source /data/incoming"),
        (("/data", "/scratch", "/archive", "/state"), "sources[1].path: holds the source /data/incoming"),
        (("/x", "/data/incoming/work", "/archive", "/state"), "hosts.here.base_dir: /data/incoming/work lies in"),
        (("/x", "/data/incoming", "/archive", "/state"), "hosts.here.base_dir: /data/incoming is the source"),
        (("/x", "/scratch", "/data/incoming/archive", "/state"), "archive.to: /data/incoming/archive lies in"),
        (("/x", "/scratch", '"/data/incoming/{case_name}"', "/state"), "archive.to: /data/incoming is the source"),
        (("/x", "/scratch", '"/data/incoming_{case_name}"', "/state"), "archive.to: /data holds the source"),
        (("/x", "/scratch", "/archive", "/data/incoming"), "state.path: /data/incoming/state.db lies in the source"),
    ],
)  # fmt: skip
def test_sources_results_and_work_are_kept_apart(desk, values, problem):
    problems = desk.problems(SOURCES % values)

    assert any(problem in each for each in problems) if problem else problems == [], problems


def test_two_sources_of_one_name_and_one_without_any_are_told(desk):
    problems = desk.problems("""\
        sources:
          - {path: /a/cases, workflow: qa}
          - {path: /b/cases, workflow: qa}
          - {path: "/c/My Cases", workflow: qa}
          - {path: "/d/My Cases", workflow: qa, name: mine}
        workflows: {qa: [archive: {to: /x}]}
        """)

    assert problems == [
        "FILE:3: sources[1]: two sources are called 'cases' (the other in line 2); give one of them another `name`",
        "FILE:4: sources[2]: its path's last part can't name it; give it a `name`",
    ]


def test_the_plugins_that_are_switched_off_are_known_whatever_else_is_wrong(desk):
    assert disabled_plugins(None) == ()
    assert disabled_plugins(desk.directory / "none") == ()
    assert disabled_plugins(desk.write("a: [")) == ()
    assert disabled_plugins(desk.write("plugins: x")) == ()
    assert disabled_plugins(desk.write("plugins: {disable: x}")) == ()
    assert disabled_plugins(desk.write("plugins: {disable: [x, 5]}\nnonsense: 1\n")) == ("x",)
