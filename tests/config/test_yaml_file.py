"""The YAML file: what is taken from it, what is refused, and how well the place is told."""

from __future__ import annotations

import os
import time

import pytest
import yaml

from mqi_cli.config.document import MAX_BYTES, Document
from mqi_cli.config.load import load_config
from mqi_cli.config.problems import Problems
from mqi_cli.errors import ConfigError


@pytest.fixture(params=["libyaml", "pure Python"])
def either_parser(request, monkeypatch):
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML was built without libyaml")


def read(desk, text):
    problems = Problems(desk.write(text))
    document = Document(desk.file, problems)
    document.read()
    return document.data, [each.replace(str(desk.file), "FILE") for each in problems.lines()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22", 22),
        ("-3", -3),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'22'", "22"),
        ("!!str 22", "22"),
        ("22:30", "22:30"),
        ("no", "no"),
        ("on", "on"),
        ("0022", "0022"),
        ("2024-01-02", "2024-01-02"),
        (".inf", ".inf"),
        ("1_000", "1_000"),
    ],
)
def test_a_value_is_what_it_looks_like(desk, either_parser, text, value):
    data, problems = read(desk, f"key: {text}\n")

    assert (data, problems) == ({"key": value}, [])


def test_a_key_is_the_text_it_is_written_as(desk, either_parser):
    data, problems = read(desk, "1: a\non: b\nnull: c\n")

    assert data == {"1": "a", "on": "b", "null": "c"}
    assert problems == []


def test_an_empty_file_and_one_of_comments_hold_nothing(desk, either_parser):
    assert read(desk, "") == ({}, [])
    assert read(desk, "# nothing yet\n---\n") == ({}, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: c: d\n", "FILE:2:5: not YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "indent with spaces, not with tabs"),
        ("a: [1,\nb: 2\n", "(in what begins in line 1)"),
        ("a: 'b\n", "a quote isn't closed"),
        ("a: @b\n", "put a text that begins with '@' in quotes"),
        ("a: 1\n---\nb: 2\n", "FILE:2:1: a second document begins here"),
        ("- a\n", "FILE:1:1: the file must hold keys"),
        ("just words\n", "FILE:1:1: the file must hold keys"),
        ("a: *nowhere\n", "FILE:1:4: no &nowhere stands before this *nowhere"),
        ("a: &x [*x]\n", "no &x stands before this *x"),
        ("a: \x07\n", "FILE:1:1: the character"),
    ],
)
def test_what_is_not_yaml_is_told_with_line_and_column(desk, either_parser, text, line):
    data, problems = read(desk, text)

    assert data == {}
    assert len(problems) == 1
    assert line in problems[0]


def test_a_key_given_twice_is_told_with_both_lines(desk, either_parser):
    _, problems = read(desk, "hosts:\n  hpc: {}\n  hpc: {}\n")

    assert problems == ["FILE:3: hosts.hpc: given twice; first in line 2"]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!!binary aGk=", "!mine x", "!!set {a: }"])
def test_a_tag_makes_nothing_but_a_problem(desk, either_parser, tag):
    data, problems = read(desk, f"a: {tag}\n")

    assert data == {"a": None}
    assert len(problems) == 1
    assert "FILE:1: a: the tag !" in problems[0]


def test_anchors_and_merges_are_written_out_and_own_keys_win(desk, either_parser):
    data, problems = read(desk, "a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\nd:\n  <<: [*a, {z: 4}]\n")

    assert problems == []
    assert data["b"] == {"x": 1, "y": 2}
    assert data["c"] == {"x": 1, "y": 3}
    assert data["d"] == {"x": 1, "y": 2, "z": 4}


def test_a_file_that_grows_without_end_by_aliases_is_refused_at_once(desk, either_parser):
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    began = time.monotonic()

    data, problems = read(desk, bomb)

    assert data == {}
    assert "too large" in problems[0]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["a: " + "[" * 5000, "- " * 5000, "a: " + "{b: " * 1000])
def test_a_file_nested_without_end_is_refused_at_once(desk, text):
    data, problems = read(desk, text)

    assert data == {}
    assert "nested deeper" in problems[0] or "not YAML" in problems[0]


def test_a_file_that_is_not_utf8_is_told_with_its_line(desk):
    desk.file.write_bytes(b"a: 1\nb: \xff\n")
    problems = Problems(desk.file)

    Document(desk.file, problems).read()

    assert problems.lines() == [f"{desk.file}:2:1: not UTF-8; save the file in UTF-8"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(desk):
    desk.file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = Document(desk.file, Problems(desk.file))

    document.read()

    assert document.data == {"a": 1}


def test_a_config_that_everybody_may_write_is_refused_with_the_command_that_mends_it(desk):
    desk.write("daemon:\n").chmod(0o602)

    with pytest.raises(ConfigError) as caught:
        load_config(desk.file, desk.plugins, {})

    assert f"chmod o-w {desk.file}" in caught.value.problems[0]


def test_what_is_no_file_is_refused_without_waiting_for_it(desk, tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"not a regular file|Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path):
    file = tmp_path / "big"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)

    with pytest.raises(ConfigError, match="is it the config"):
        load_config(file)
