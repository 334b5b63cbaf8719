"""Whatever stands in the file, loading it ends in a config or in a `ConfigError` whose lines are lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqi_cli.config.load import load_config
from mqi_cli.config.shown import settings as shown
from mqi_cli.errors import ConfigError
from mqi_cli.printable import printable

WORDS = st.sampled_from(
    [
        "state",
        "broker",
        "hosts",
        "sources",
        "workflows",
        "workers",
        "daemon",
        "plugins",
        "scanner",
        "archiver",
        "path",
        "url",
        "type",
        "ssh",
        "local",
        "base_dir",
        "limits",
        "port",
        "user",
        "host",
        "upload",
        "run",
        "download",
        "archive",
        "command",
        "to",
        "from",
        "outputs",
        "workflow",
        "depth",
        "complete_when",
        "quiet_for",
        "manual",
        "name",
        "gpus",
        "disable",
        "password",
        "password_file",
        "key_salt",
        "hpc",
        "qa",
        "${HOME}",
        "${NOT_SET",
        "$$",
        "30s",
        "10MB",
        "/data",
        "~/x",
        "<<",
        "*x",
        "&x",
        "!!python/name:os.system",
    ]
)
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)
QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def loads(desk):
    def load(raw: bytes) -> None:
        Path(desk.file).write_bytes(raw)
        try:
            config = load_config(desk.file, desk.plugins, {"HOME": "/home/me"})
        except ConfigError as error:
            assert all(printable(each) == each for each in error.problems), error.problems
        else:
            assert list(shown(config))

    return load


@QUICK
@given(st.dictionaries(WORDS, TREES, max_size=8))
def test_trees_of_likely_words(loads, tree):
    loads(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@QUICK
@given(
    st.lists(
        st.sampled_from([*"[]{}:,-&*!|>'\"#%@`\n\n  \t$", "a", "b: ", "- ", "? ", "<<: ", "&a ", "*a", "\x00", "\x85"])
    )
)
def test_scraps_of_yaml(loads, scraps):
    loads("".join(scraps).encode())


@QUICK
@given(st.binary(max_size=60))
def test_any_bytes(loads, raw):
    loads(raw)
