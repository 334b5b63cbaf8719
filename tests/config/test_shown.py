"""`config show`, the JSON Schema and the first config: all made of the models, so that they can't tell anything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mqi_cli.config import shape
from mqi_cli.config.load import load_config
from mqi_cli.config.model import CoreSections
from mqi_cli.config.sample import sample_config
from mqi_cli.config.schema import json_schema
from mqi_cli.config.shown import settings


def all_models(plugins):
    models = [CoreSections.model_fields[name].annotation for name in ("state", "broker", "daemon", "plugins")]
    models = [shape.models_in(each)[0] for each in models]
    models += [shape.items_of(CoreSections.model_fields["sources"].annotation)]
    models += [shape.values_of(CoreSections.model_fields["workers"].annotation)]
    models += [each.model for each in plugins.sections.values()]
    models += [each.options for each in plugins.stages.values()]
    return models + [each.model for each in plugins.host_types.values()]


def test_every_value_tells_where_it_came_from(desk):
    desk.environ = {**desk.environ, "WHO": "mqi"}

    config = desk.load("""\
        hosts:
          hpc:
            type: ssh
            hostname: h
            user: ${WHO}
            base_dir: /x
        sources:
          - {path: /in, workflow: qa, complete_when: manual}
        workflows:
          qa:
            - archive: {to: /archive}
        """)
    origins = {each.key: (each.value, each.origin.replace(str(desk.file), "FILE")) for each in settings(config)}

    assert origins["hosts.hpc.user"] == ("mqi", "FILE:5 ${WHO}")
    assert origins["hosts.hpc.port"] == (22, "default")
    assert origins["hosts.hpc.connect_timeout"] == ("15s", "default")
    assert origins["hosts.hpc.limits.jobs"] == (8, "default")
    assert origins["sources[0].complete_when.manual"] == (True, "FILE:8")
    assert origins["sources[0].complete_when.quiet_for"] == (None, "default")
    assert origins["workflows.qa[0].archive.to"] == ("/archive", "FILE:11")
    assert origins["workflows.qa[0].archive.compression"] == ("gzip", "default")
    assert origins["state.path"][1] == "default"


def test_a_bare_step_has_its_options_by_default(desk):
    config = desk.load("workflows: {qa: [archive]}\narchiver: {directory: /a}\n")

    origins = {each.key: each.origin for each in settings(config)}

    assert origins["workflows.qa[0].archive.compression"] == "default"


def test_the_first_config_works_as_it_is_and_names_every_key(plugins, tmp_path):
    text = sample_config(plugins, tmp_path)
    file = tmp_path / "mqi.yaml"
    file.write_text(text)

    config = load_config(file, plugins, {"HOME": str(tmp_path)})

    assert config.sources[0].path == tmp_path / "incoming"
    assert [step.name for step in config.workflows["first"].steps] == ["upload", "run", "download"]
    assert config.hosts["here"].base_dir == str(tmp_path / "work")
    for model in all_models(plugins):
        for key, field in shape.keys_of(model).items():
            key = f"{key}_file" if key in shape.secrets_of(model) else key
            assert re.search(rf"^ *(- )?(# )?(- )?{key}:", text, re.MULTILINE), f"{model.__name__}.{key}"
            first_words = (field.description or "").split(" ")[:3]
            assert " ".join(first_words) in text, f"{model.__name__}.{key}"


@pytest.mark.parametrize("section", ["daemon", "curator", "scanner", "sftp", "ssh_exec", "workers", "plugins"])
def test_the_defaults_behind_the_marks_are_the_defaults(plugins, tmp_path, section):
    text = sample_config(plugins, tmp_path)
    block = re.search(rf"^# {section}:\n( +#.*\n)+", text, re.MULTILINE)[0]
    file = tmp_path / "mqi.yaml"
    file.write_text(re.sub(r"^( *)# ", r"\1", block, flags=re.MULTILINE))

    config = load_config(file, plugins, {"HOME": str(tmp_path)})
    plain = load_config(None, plugins, {"HOME": str(tmp_path)})

    assert config.daemon == plain.daemon
    assert config.plugins == plain.plugins
    assert config.sections == plain.sections
    assert all(config.lane(lane) == plain.lane(lane) for lane in plugins.lanes())


def test_without_the_stages_the_first_config_is_still_a_config(tmp_path):
    from mqi_cli.plugins import load_plugins

    plugins = load_plugins(["sftp", "ssh-exec"], environ={})
    file = tmp_path / "mqi.yaml"
    file.write_text(sample_config(plugins, tmp_path))

    assert load_config(file, plugins, {}).workflows == {}


def test_the_schema_has_every_key_of_core_and_plugins(plugins):
    schema = json_schema(plugins)

    assert set(schema["properties"]) == {*CoreSections.model_fields, *plugins.sections}
    for model in all_models(plugins):
        properties = schema["$defs"][model.__name__]["properties"]
        keys = {*shape.keys_of(model), *(f"{each}_file" for each in shape.secrets_of(model))}
        assert set(properties) == keys, model.__name__
        assert schema["$defs"][model.__name__]["additionalProperties"] is False


def test_the_schema_lets_a_secret_be_a_variable_only(plugins):
    properties = json_schema(plugins)["$defs"]["BrokerSection"]["properties"]

    assert properties["password"]["pattern"].startswith(r"\$\{")
    assert properties["password_file"]["type"] == "string"


def test_every_key_has_a_description(plugins):
    bare = [
        f"{model.__name__}.{key}"
        for model in all_models(plugins)
        for key, field in shape.keys_of(model).items()
        if not field.description and key != "type"
    ]

    assert bare == []


def test_paths_in_the_first_config_are_as_given(plugins):
    assert "  - path: /mnt/in\n" in re.sub(r"  #.*", "", sample_config(plugins, Path("/x"), source="/mnt/in"))
