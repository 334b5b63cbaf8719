"""A YAML file as plain data that remembers where each key and value stands. Only scalars, lists and mappings come out.

Read by events rather than by PyYAML's constructors: nothing in the file can make an object, a text stays a text
(YAML 1.1 reads `22:30` as 1350 and `no` as False), and size, depth and the growth of aliases are bounded.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mqi_cli.config.problems import KeyPath, Place, Problems
from mqi_cli.errors import ConfigError, describe_os_error

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000  # after aliases are written out; a file of a few hundred bytes can stand for billions

# The core schema of YAML 1.2, less its octal and infinite numbers, which no key of ours wants.
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"(?=.*[.eE])[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")

_YAML = "tag:yaml.org,2002:"
_TAGS = {"!", *(_YAML + each for each in ("str", "int", "float", "bool", "null", "seq", "map"))}
_TEXT_TAGS = {"!", _YAML + "str"}


@dataclass
class _Node:
    """One value of the file: `scalar` (`text` as written), `items` or `entries` is set, by its `kind`."""

    kind: str
    place: Place
    tag: str | None
    scalar: Any = None
    text: str = ""
    items: list[_Node] = field(default_factory=list)
    entries: list[tuple[_Node, _Node]] = field(default_factory=list)
    plain: bool = False


class Document:
    """The data of one file, and where each key path stands in it."""

    def __init__(self, file: Path | None, problems: Problems) -> None:
        self.file = file
        self.problems = problems
        self.data: dict[str, Any] = {}
        self._values = 0

    def read(self) -> None:
        """Read and parse the file; what is wrong with it goes to the problems. Raises `ConfigError` if it can't be read."""
        if self.file is None:
            return
        text = self._decode(_read_bytes(self.file, self.problems))
        if text is None:
            return
        try:
            root = _Composer(self.problems).compose(text)
        except yaml.MarkedYAMLError as error:
            self._syntax(error, text)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.problems.syntax(Place(line, 1), f"the character {error.character!r} can't stand in YAML")
        except _Refused as error:
            self.problems.syntax(error.place, error.text)
        else:
            self._take(root)

    def _decode(self, raw: bytes) -> str | None:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            self.problems.syntax(Place(line, 1), "not UTF-8; save the file in UTF-8")
            return None

    def _take(self, root: _Node | None) -> None:
        if root is None or (root.kind == "scalar" and root.scalar is None):
            return
        if root.kind != "mapping":
            self.problems.syntax(root.place, "the file must hold keys like `hosts:` at its left margin")
            return
        try:
            self.data = self._plain(root, (), 0)
        except _Refused as error:
            self.data = {}
            self.problems.syntax(error.place, error.text)

    def _plain(self, node: _Node, path: KeyPath, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise _Refused(node.place, f"too large: more than {MAX_VALUES} values or {MAX_DEPTH} levels")
        self.problems.values.setdefault(path, node.place)
        if node.tag is not None and node.tag not in _TAGS:
            shown = node.tag.replace(_YAML, "!!")
            self.problems.add(path, f"the tag {shown} isn't taken here; write the value without it")
            return None
        if node.kind == "sequence":
            return [self._item(each, (*path, index), depth) for index, each in enumerate(node.items)]
        if node.kind == "mapping":
            return self._mapping(node, path, depth)
        return node.scalar

    def _item(self, node: _Node, path: KeyPath, depth: int) -> Any:
        self.problems.keys.setdefault(path, node.place)
        return self._plain(node, path, depth + 1)

    def _mapping(self, node: _Node, path: KeyPath, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[_Node] = []
        for key, value in node.entries:
            name = key.text  # as it is written: a host may be called `1` or `on`
            if key.kind != "scalar" or not name:
                self.problems.add(path, "a key must be a text", at=key.place)
                continue
            if name == "<<" and key.plain:
                merged += value.items if value.kind == "sequence" else [value]
                continue
            if name in data:
                first = self.problems.keys[(*path, name)].line
                self.problems.add((*path, name), f"given twice; first in line {first}", at=key.place)
                continue
            self.problems.keys.setdefault((*path, name), key.place)
            data[name] = self._plain(value, (*path, name), depth + 1)
        for each in merged:
            if each.kind != "mapping":
                self.problems.add(path, "`<<:` takes an alias of a mapping", at=each.place)
                continue
            for name, value in self._plain(each, path, depth + 1).items():
                data.setdefault(name, value)  # the mapping's own keys win, and their places are noted already
        return data

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        lines = text.splitlines()
        mark = error.problem_mark or error.context_mark
        place = Place(min(mark.line + 1, max(len(lines), 1)), mark.column + 1) if mark else Place(1, 1)
        said = f"not YAML: {error.problem or error.context or 'unreadable'}"
        if error.context_mark and error.context_mark.line + 1 < place.line:
            said += f" (in what begins in line {error.context_mark.line + 1})"
        line = lines[place.line - 1] if lines else ""
        self.problems.syntax(place, said + _advice(error.problem or "", line, place.column))


class _Refused(Exception):
    """The file is too large or refers to what isn't there; reading stops."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place
        self.text = text


class _Composer:
    """Makes nodes of events, as PyYAML's own does, with bounds on depth and without building any object."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._anchors: dict[str, _Node] = {}
        self._events: Iterator[Any] = iter(())

    def compose(self, text: str) -> _Node | None:
        self._events = iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        root: _Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_place(event), "a second document begins here (`---`); only one is read")
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 0)
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        place = _place(event)
        if depth > MAX_DEPTH:
            raise _Refused(place, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _Refused(place, f"no &{event.anchor} stands before this *{event.anchor}")
            return self._anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            plain = bool(event.implicit[0]) or (event.tag is not None and event.tag not in _TEXT_TAGS)
            value = _scalar(event.value) if plain else event.value
            node = _Node("scalar", place, event.tag, value, event.value, plain=plain)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node("sequence", place, event.tag)
            node.items = list(self._children(yaml.SequenceEndEvent, depth))
        else:
            node = _Node("mapping", place, event.tag)
            children = list(self._children(yaml.MappingEndEvent, depth))
            node.entries = list(zip(children[::2], children[1::2], strict=True))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _children(self, end: type, depth: int) -> Iterator[_Node]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield self._node(event, depth + 1)


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _scalar(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _advice(problem: str, line: str, column: int) -> str:
    """Say what is usually meant by a parser's complaint."""
    at = line[column - 1 : column]
    if "cannot start any token" in problem and at == "\t":
        return "; indent with spaces, not with tabs"
    if "cannot start any token" in problem:
        return f"; put a text that begins with {at!r} in quotes"
    if "mapping values are not allowed" in problem:
        return "; put a text with ': ' in it in quotes, or mend the indentation"
    if "expected ',' or" in problem:
        return "; a bracket or brace isn't closed"
    if "quoted scalar" in problem or "unexpected end of stream" in problem:
        return "; a quote isn't closed"
    if "expected key" in problem or "block end" in problem or "expected ':'" in problem or "'-' indicator" in problem:
        return "; mend the indentation of this line or the one above"
    return ""


def _read_bytes(file: Path, problems: Problems) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe that nobody writes would stop every command for good.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{file}: not a regular file")
            if mode & stat.S_IWOTH:
                problems.add((), f"everybody may write it, and it holds commands: chmod o-w {file}", at=Place(1, 1))
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {describe_os_error(error)}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_BYTES} bytes; is it the config?")
    return raw
