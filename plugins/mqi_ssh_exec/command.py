"""Commands: the placeholders in an operator's shell text, and the script that is sent to the host. Pure.

Values are quoted for the shell; the text around them is the operator's own and goes as it is. No case name ever gets
here: names hold patients' ids, and a command line is seen by every user of its host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

NAMES = ("input_dir", "work_dir", "case_key", "part", "part_index", "gpu_ids", "gpu_uuids")
STEP = "step."
PART = "part."
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP_NAME = re.compile(r"step\.[a-z0-9][a-z0-9_-]*\Z")
_GROUP_NAME = re.compile(r"part\.[A-Za-z0-9_]+\Z")


def check_command(template: str) -> list[str]:
    """Return one sentence for each thing that is wrong with a command's placeholders."""
    problems = []
    if "\0" in template:
        problems.append("it holds a NUL")
    for token in _TOKEN.finditer(template):
        name = token[1]
        if name is None:
            if token[0] in "{}":
                problems.append(
                    f"a single {token[0]} at character {token.start() + 1}; a literal brace is written twice"
                )
        elif name == "case_name":
            problems.append("{case_name} may hold a patient's id and goes into no command; take {case_key}")
        elif name not in NAMES and not _STEP_NAME.match(name) and not _GROUP_NAME.match(name):
            known = ", ".join(f"{{{each}}}" for each in (*NAMES, PART + "GROUP", STEP + "NAME"))
            problems.append(f"{{{name}}} is not one of {known}; a literal brace is written twice: {{{{{name}}}}}")
    return problems


def _used(template: str) -> list[str]:
    return [token[1] for token in _TOKEN.finditer(template) if token[1]]


def uses(template: str, *names: str) -> bool:
    """Whether a command has one of these placeholders."""
    return not set(names).isdisjoint(_used(template))


def steps_named(template: str) -> list[str]:
    """Return the steps whose work directories a command takes, each once, in order."""
    used = (name.removeprefix(STEP) for name in _used(template) if _STEP_NAME.match(name))
    return list(dict.fromkeys(used))


def groups_named(template: str) -> list[str]:
    """Return the groups of a part's text that a command takes, each once, in order."""
    used = (name.removeprefix(PART) for name in _used(template) if _GROUP_NAME.match(name))
    return list(dict.fromkeys(used))


def uses_part(template: str) -> bool:
    """Whether a command asks for what its part stands for."""
    return uses(template, "part") or bool(groups_named(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the command with each placeholder's value, quoted for the shell. Raises `KeyError` for one without a value."""

    def replace(token: re.Match[str]) -> str:
        return token[0][0] if token[1] is None else shlex.quote(values[token[1]])

    return _TOKEN.sub(replace, template)


def script(command: str, environment: Mapping[str, str], links: Mapping[str, Mapping[str, str]] | None = None) -> bytes:
    """Return the text that /bin/sh runs on the host.

    A command of several lines ends at the first that fails: the exit code of the last alone would call a run well
    whose first program failed. `links` are made before it: directory to name to what the name points at.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    made = "".join(_gather(directory, targets) for directory, targets in (links or {}).items())
    return f"set -e\n{made}{exports}{command}\n".encode("utf-8", "surrogateescape")


def _gather(directory: str, targets: Mapping[str, str]) -> str:
    quoted = shlex.quote(directory)
    lines = [f"mkdir -p {quoted}"]
    lines += [f"ln -s {shlex.quote(target)} {quoted}/{shlex.quote(name)}" for name, target in targets.items()]
    return "".join(f"{line}\n" for line in lines)
