"""`${VARIABLE}` and secrets: filled in, never in clear, never shown."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from mqi_cli import Section, ShellText
from mqi_cli.config.as_written import as_written
from mqi_cli.config.secret_file import read_secret
from mqi_cli.config.shown import settings

BROKER = "broker: {url: 'amqp://mqi@broker/mqi', "


def test_a_variable_is_filled_in_and_a_double_dollar_is_a_dollar(desk):
    desk.environ = {**desk.environ, "WHO": "mqi", "PORT": "2222"}

    config = desk.load("""\
        hosts:
          hpc: {type: ssh, hostname: "${WHO}.example.org", user: "${WHO}", port: "${PORT}", base_dir: "/x/$$1/$HOME/$${WHO}"}
        """)

    assert config.hosts["hpc"].hostname == "mqi.example.org"
    assert config.hosts["hpc"].port == 2222
    assert config.hosts["hpc"].base_dir == "/x/$1/$HOME/${WHO}"


def test_a_command_is_the_hosts_shells_and_nothing_of_it_is_filled_in_here(desk):
    desk.environ = {**desk.environ, "SCRATCH": "/here"}

    config = desk.load("""\
        hosts: {hpc: {type: local, base_dir: "${SCRATCH}"}}
        workflows:
          qa:
            - run:
                host: hpc
                command: "x $$ ${HOME} ${SCRATCH:-/tmp} ${NOWHERE}"
                environment: {PLACE: "${SCRATCH}"}
        """)

    options = config.workflows["qa"].steps[0].options
    assert options.command == "x $$ ${HOME} ${SCRATCH:-/tmp} ${NOWHERE}"
    assert options.environment == {"PLACE": "/here"}
    shown = {each.key: each for each in settings(config)}
    assert "${" not in shown["workflows.qa[0].run.command"].origin


class Task(Section):
    """Something with a command, of which a plugin may take many."""

    command: ShellText = ""
    place: str = ""
    after: Task | None = None


class Many(Section):
    """A plugin's section."""

    listed: list[Task]
    named: dict[str, tuple[Task, ...] | None]
    texts: list[ShellText]
    one: Task | None = None


def test_a_shells_text_is_found_in_lists_and_mappings_of_models():
    task = {"command": "$$", "place": "$$"}
    offer = SimpleNamespace(sections={"many": SimpleNamespace(model=Many)}, stages={}, host_types={})

    found = as_written(
        {
            "many": {
                "listed": [{}, {**task, "after": task}],
                "named": {"a": [task], "b": None, "c": "$$"},
                "texts": ["$$"],
                "one": task,
            }
        },
        offer,
    )

    assert {path[1:] for path in found} == {
        ("listed", 1, "command"),
        ("listed", 1, "after", "command"),
        ("named", "a", 0, "command"),
        ("texts",),
        ("one", "command"),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${WHOM}", "the environment has no variable WHOM; did you mean ${WHO}?"),
        ("${XYZZY}", "the environment has no variable XYZZY; set it"),
        ("${WHO:-x}", "${WHO:-x} is no variable; a literal `${` is written `$${`"),
        ("${WHO", "${WHO} is no variable"),
        ("${}", "${} is no variable"),
    ],
)
def test_a_variable_that_is_not_there_is_told(desk, text, problem):
    desk.environ = {**desk.environ, "WHO": "mqi"}

    problems = desk.problems(f"hosts: {{a: {{type: local, base_dir: '/x/{text}'}}}}\n")

    assert len(problems) == 1
    assert f"hosts.a.base_dir: {problem}" in problems[0]


def test_what_the_environment_holds_is_not_in_a_problem(desk):
    desk.environ = {**desk.environ, "LEVEL": "hunter2"}

    problems = desk.problems("daemon: {log: {level: '${LEVEL}'}}\nsources: [{path: /x, workflow: '${LEVEL}'}]\n")

    assert problems
    assert "hunter2" not in "".join(problems)
    assert "(from ${LEVEL})" in problems[0]


def test_a_secret_comes_from_a_file_without_its_newline(desk, secret_file):
    file = secret_file("hun ter2\n")

    config = desk.load(BROKER + f"password_file: {file}}}\n")

    assert config.broker.password.get_secret_value() == "hun ter2"


def test_a_secret_comes_from_the_environment(desk):
    desk.environ = {**desk.environ, "PW": "hunter2"}

    config = desk.load(BROKER + "password: '${PW}'}\nstate: {key_salt: '${PW}'}\n")

    assert config.broker.password.get_secret_value() == "hunter2"
    assert config.key_salt == "hunter2"


@pytest.mark.parametrize("value", ["hunter2", "hun${PW}", "12345678", "[hunter2]", "$$hunter2"])
def test_a_secret_in_clear_is_a_problem_that_does_not_repeat_it(desk, value):
    desk.environ = {**desk.environ, "PW": "hunter2"}

    problems = desk.problems(BROKER + f"password: {value if value[0] == '[' else repr(value)}}}\n")

    assert len(problems) == 1
    assert "broker.password: a secret never stands here in clear: write password_file: FILE" in problems[0]
    assert "hunter2" not in problems[0]
    assert "12345678" not in problems[0]


def test_a_password_in_the_brokers_url_is_a_problem_that_does_not_repeat_it(desk):
    for url in ("amqp://mqi:hunter2@broker/", "amqp://mqi:hunter2@broker:port/"):
        problems = desk.problems(f"broker: {{url: '{url}'}}\n")

        assert len(problems) == 1
        assert "hunter2" not in problems[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it(desk, secret_file, mode):
    file = secret_file(mode=mode)

    problems = desk.problems(BROKER + f"password_file: {file}}}\n")

    assert problems == [f"FILE:1: broker.password_file: others may read {file} (mode {mode:o}): chmod 600 {file}"]


def test_systemds_credentials_may_look_readable_by_the_group(secret_file, tmp_path):
    file = secret_file(mode=0o440)

    assert read_secret(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "hunter2"
    with pytest.raises(ValueError, match="chmod 600"):
        read_secret(file, {"CREDENTIALS_DIRECTORY": str(tmp_path / "elsewhere")})


def test_a_secret_file_that_cannot_be_used_says_why(desk, secret_file, tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    binary = tmp_path / "binary"
    binary.write_bytes(b"hunter2\xff")
    binary.chmod(0o600)

    def problem(file):
        (line,) = desk.problems(BROKER + f"password_file: {file}}}\n")
        assert "hunter2" not in line
        return line

    assert "No such file" in problem(tmp_path / "none")
    assert "is not a regular file" in problem(tmp_path / "pipe")
    assert "is not text in UTF-8" in problem(binary)
    assert "is empty" in problem(secret_file("\n"))
    assert "larger than" in problem(secret_file("x" * 70_000))
    assert "a path is wanted" in problem(5)


def test_a_secret_given_twice_is_a_problem(desk, secret_file):
    problems = desk.problems(BROKER + f"password: '${{HOME}}', password_file: {secret_file()}}}\n")

    assert problems == ["FILE:1: broker.password: given here and by password_file; keep one"]


def test_a_key_that_ends_in_file_and_is_no_secrets_is_a_plain_key(desk, tmp_path):
    config = desk.load("hosts: {a: {type: ssh, hostname: h, user: u, base_dir: /x, key_file: id}}\n")

    assert config.hosts["a"].key_file == tmp_path / "id"


def test_secrets_are_not_in_what_is_shown_nor_in_what_is_printed(desk, secret_file):
    desk.environ = {**desk.environ, "API_TOKEN": "hunter2", "WHO": "me"}
    text = (
        BROKER
        + f"""password_file: {secret_file("hunter2")}}}
state: {{key_salt: "${{API_TOKEN}}"}}
hosts: {{here: {{type: local, base_dir: /x}}}}
workflows:
  qa:
    - run: {{host: here, command: "x", environment: {{TOKEN: "${{API_TOKEN}}", WHO: "${{WHO}}"}}}}
"""
    )

    config = desk.load(text)
    shown = {each.key: each for each in settings(config)}

    assert "hunter2" not in repr(config.broker)
    assert "key_salt" not in repr(config)
    assert not any("hunter2" in str(each.value) for each in shown.values())
    assert shown["broker.password"].value == "****"
    assert shown["broker.password"].origin == str(desk.directory / "secret")
    assert shown["state.key_salt"].value == "****"
    assert shown["workflows.qa[0].run.environment.TOKEN"].value == "****"
    assert shown["workflows.qa[0].run.environment.WHO"].value == "me"
