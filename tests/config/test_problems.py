"""Every problem of a config at once, each one line that names file, line, key and what was probably meant."""

from __future__ import annotations

import pytest

from mqi_cli.config.load import load_config
from mqi_cli.errors import ConfigError

GOOD = """\
hosts:
  here: {type: local, base_dir: /scratch/mqi}
sources:
  - path: /data/incoming
    workflow: qa
workflows:
  qa:
    - upload: {host: here}
    - run: {host: here, command: "true", outputs: [x]}
    - download: {host: here, to: "/data/results/{case_name}"}
"""


def test_a_good_config_has_none(desk):
    config = desk.load(GOOD)

    assert [step.name for step in config.workflows["qa"].steps] == ["upload", "run", "download"]
    assert config.workflows["qa"].steps[1].host == "here"
    assert config.sources[0].complete_when.quiet_for == 30.0
    assert set(config.sections) == set(desk.plugins.sections)
    assert config.warnings == ()


def test_an_empty_file_and_no_file_give_the_defaults(desk):
    for config in (desk.load(""), load_config(None, desk.plugins, desk.environ)):
        assert config.state_path == desk.directory / "home/.local/state/mqi/state.db"
        assert (config.hosts, config.sources, config.workflows, config.broker) == ({}, (), {}, None)
        assert config.daemon.stop_within == 30.0


def test_keys_without_a_value_count_as_left_out(desk):
    text = "state:\nbroker:\nhosts:\nsources:\nworkflows:\nworkers:\n  sftp:\ndaemon:\n  log:\nscanner:\nplugins:\n"

    config = desk.load(text)

    assert config.daemon.log.level == "info"
    assert config.workers["sftp"].processes == 1


def test_everything_that_is_wrong_is_told_at_once_in_the_files_order(desk):
    problems = desk.problems("""\
        state: {pth: x}
        broker:
          url: http://x
        hosts:
          hpc:
            type: ssh
            hostnam: hpc.example.org
            user: mqi
            base_dir: scratch
            limits: {connections: 0}
          loc: {type: locl, base_dir: /x}
          bare: 5
        sources:
          - path: /mnt/incoming
            depth: deep
            workflow: qaa
        workflows:
          qa:
            - uplod: {host: hpc}
            - run: {host: hcp, comand: x, gpus: -1}
          none: []
        workers: {sfpt: {processes: 1}}
        deamon: {}
        daemon: {stop_within: 30, lease: 1s}
        scanner: {interval: soon}
        """)

    assert problems == [
        "FILE:1: state.pth: unknown key; did you mean 'path'?",
        "FILE:3: broker.url: not a broker's URL; write amqp://user@host:5672/vhost or amqps://…",
        "FILE:7: hosts.hpc.hostnam: unknown key; did you mean 'hostname'?",
        "FILE:9: hosts.hpc.base_dir: must be absolute, or begin with ~/ (the account's home)",
        "FILE:10: hosts.hpc.limits.connections: must be at least 1, not 0",
        "FILE:11: hosts.loc.type: there is no host type 'locl'; did you mean 'local'?",
        "FILE:12: hosts.bare: a host has a `type`: local, ssh",
        "FILE:15: sources[0].depth: a whole number is wanted, not 'deep'",
        "FILE:16: sources[0].workflow: there is no workflow 'qaa'; did you mean 'qa'?",
        "FILE:19: workflows.qa[0].uplod: there is no stage 'uplod'; did you mean 'upload'?",
        "FILE:20: workflows.qa[1].run.host: there is no host 'hcp'; did you mean 'hpc'?",
        "FILE:20: workflows.qa[1].run.comand: unknown key; did you mean 'command'?",
        "FILE:20: workflows.qa[1].run.gpus: must be at least 0, not -1",
        "FILE:21: workflows.none: the workflow has no steps",
        "FILE:22: workers.sfpt: there is no lane 'sfpt'; did you mean 'sftp'?",
        "FILE:23: deamon: unknown key; did you mean 'daemon'?",
        "FILE:24: daemon.stop_within: a duration is a number with a unit: 500ms, 30s, 10m, 2h, 7d, 4w",
        "FILE:24: daemon.lease: must be at least 3s, not '1s'",
        "FILE:25: scanner.interval: a duration is a number with a unit: 500ms, 30s, 10m, 2h, 7d, 4w",
    ]


def test_the_error_says_how_many_and_what_to_do(desk):
    with pytest.raises(ConfigError) as caught:
        desk.load("x: 1\n")

    assert caught.value.message.endswith("mqi.yaml has 1 problem")
    assert caught.value.hint == "mend it, then: mqi config check"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hosts: {a: {type: ssh}}", "FILE:1: hosts.a.user: missing; The account there."),
        ("sources: [{path: /x}]", "FILE:1: sources[0].workflow: missing; What is done with its cases."),
        ("hosts: [a]", "FILE:1: hosts: keys with values are wanted here, each a name of yours"),
        ("sources: {path: /x}", "FILE:1: sources: a list is wanted, each `- path: …`"),
        ("sources: [5]", "FILE:1: sources[0]: keys with values are wanted, not 5"),
        ("daemon: 5", "FILE:1: daemon: keys with values are wanted, not 5"),
        ("broker: yes", "FILE:1: broker: keys with values are wanted, not 'yes'"),
        (
            "daemon: {log: {level: verbos}}",
            "FILE:1: daemon.log.level: 'verbos' is not one of debug, info, warning, error",
        ),
        ("daemon: {log: {level: warn}}", "error; did you mean 'warning'?"),
        ("hosts: {a: {type: local, base_dir: /x, scheduler: slrm}}", "hosts.a.scheduler: "),
        ("plugins: {disable: sftp}", "plugins.disable: a list is wanted, not 'sftp'; write [ ] around it"),
        ("broker: {url: 5}", "broker.url: a text is wanted, not 5; put it in quotes"),
        ("daemon: {log: {max_size: 5 MB}}", ""),
        ("daemon: {log: {max_size: 5MX}}", "a size is a number with a unit: 800kB, 500MB, 2GiB"),
        ("hosts: {'a b': {type: local, base_dir: /x}}", "hosts.a b: a name has 1 to 64 of"),
        ("workflows: {'a b': [archive: {to: /x}]}", "workflows.a b: a name has 1 to 64 of"),
        ("workflows: {a: upload}", "workflows.a: a list of steps is wanted"),
        ("workflows: upload", "workflows: named lists of steps are wanted"),
        ("workflows: {a: [[upload]]}", "workflows.a[0]: a step is a stage's name, or `stage: {options}`"),
        ("sources: [{path: /x, workflow: a, complete_when: {quiet_fr: 3s}}]", "did you mean 'quiet_for'?"),
        ("sources: [{path: /x, workflow: a, complete_when: {}}]", "sources[0].complete_when: name exactly one"),
        ("hosts: {a: {type: [x]}}", "hosts.a.type: there is no host type '['x']'"),
    ],
)
def test_each_kind_of_mistake_has_its_own_words(desk, text, problem):
    problems = desk.problems(text)

    if problem:
        assert any(problem in each for each in problems), problems
    else:
        assert problems == []


def test_what_was_meant_is_not_told_missing_as_well(desk):
    problems = desk.problems("sources: [{path: /x, workflw: a}]\n")

    assert problems == ["FILE:1: sources[0].workflw: unknown key; did you mean 'workflow'?"]


def test_the_keys_there_are_are_told_where_none_is_near(desk):
    problems = desk.problems("plugins: {zzz: 1}\n")

    assert problems == ["FILE:1: plugins.zzz: unknown key; known: disable"]


def test_a_step_whose_options_are_not_indented_is_told_so(desk):
    problems = desk.problems("""\
        workflows:
          qa:
            - archive:
              to: /x
              compression: none
        """)

    assert problems == [
        "FILE:3: workflows.qa[0]: a step is one stage: indent `to` and what follows below `archive:`, or begin a new `- `"
    ]


def test_two_steps_of_one_stage_need_names(desk):
    text = GOOD.replace("    - download", '    - run: {host: here, command: "false"}\n    - download')

    assert desk.problems(text) == [
        "FILE:10: workflows.qa[2]: two steps are called 'run' (the other in line 9); give one of them another `name`"
    ]
    assert desk.problems(text.replace('command: "false"', 'command: "false", name: second')) == []


def test_the_name_of_a_step_is_checked(desk):
    problems = desk.problems(GOOD.replace("outputs: [x]", "outputs: [x], name: My Run"))

    assert problems[0].startswith("FILE:9: workflows.qa[1].run.name: 'My Run' can't name a step")


def test_a_bare_word_is_a_step_without_options(desk):
    config = desk.load(GOOD + "    - archive\narchiver: {directory: /archive}\n")

    assert config.workflows["qa"].steps[-1].name == "archive"


def test_a_stage_sees_the_whole_workflow_in_its_own_check(desk):
    problems = desk.problems("""\
        hosts: {here: {type: local, base_dir: /x}}
        workflows:
          qa:
            - download: {host: here, to: "/r/{case_name}"}
        """)

    assert len(problems) == 1
    assert problems[0].startswith("FILE:4: workflows.qa[0].download: ")


def test_control_characters_of_the_file_do_not_reach_the_terminal(desk):
    problems = desk.problems('"a\\e[31mb": 1\ndaemon: {log: {level: "\\e[31m\\u202e"}}\n')

    assert not any("\x1b" in each or "\u202e" in each for each in problems)
    assert len(problems) == 2


def test_without_plugins_only_the_cores_own_sections_are_read(desk):
    text = GOOD.replace("here: {type: local", "here: {type: nonsense") + "what: ever\narchiver: {x: 1}\n"

    config = desk.load(text, light=True)

    assert (config.hosts, config.workflows, config.sections) == ({}, {}, {})
    assert config.sources[0].workflow == "qa"
    assert desk.problems("daemon: {x: 1}\n", light=True) == [
        "FILE:1: daemon.x: unknown key; known: keep_log, lease, log, retry_first, retry_most, stop_within"
    ]
