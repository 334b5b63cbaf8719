"""What becomes of a config when a plugin that it speaks of is switched off or broken, and other words to plugins."""

from __future__ import annotations

import pytest

from mqi_cli.config.load import load_config
from mqi_cli.errors import ConfigError
from mqi_cli.plugins import load_plugins


def without(*names):
    return load_plugins(names, environ={})


def test_the_section_of_a_plugin_that_is_switched_off_may_stay(desk):
    file = desk.write(
        "archiver: {directory: /archive}\nplugins: {disable: [archiver]}\nworkers: {archiver: {threads: 1}}\n"
    )

    config = load_config(file, without("archiver"), desk.environ)

    assert config.warnings == (
        f"{file}:1: archiver: not read; it may belong to a plugin that takes no part (archiver)",
        f"{file}:3: workers.archiver: there is no lane 'archiver'; known: curator, scanner, sftp, ssh-exec",
    )


def test_a_misspelt_section_stays_a_problem_when_a_plugin_is_switched_off(desk):
    file = desk.write("scaner: {interval: 1s}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(file, without("archiver"), desk.environ)
    assert "did you mean 'scanner'?" in caught.value.problems[0]


def test_a_stage_of_a_plugin_that_is_switched_off_names_the_plugin(desk):
    file = desk.write("workflows: {qa: [archive: {to: /x}]}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(file, without("archiver"), desk.environ)
    assert caught.value.problems[0].endswith("plugins that take no part: archiver (disabled)")


def test_a_plugin_that_is_not_installed_and_switched_off_is_a_warning(desk):
    config = desk.load("plugins: {disable: [arkiver]}\n")

    assert config.warnings == (
        f"{desk.file}:1: plugins.disable[0]: there is no plugin 'arkiver'; did you mean 'archiver'?",
    )
