"""Commands: the placeholders in an operator's shell text, and the script that is sent to the host. Pure.

Values are quoted for the shell; the text around them is the operator's own and goes as it is, `${NAME}` and `$$` with it. What a part stands for
may be a file's name that anybody wrote, `$(…)` among its characters: it may stand only where its quotes are the only
ones, else they would end the operator's, and the shell would run it. No case name ever gets here: names hold patients'
ids, and a command line is seen by every user of its host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

NAMES = ("input_dir", "work_dir", "case_key", "part", "part_index", "gpu_ids", "gpu_uuids")
STEP = "step."
PART = "part."
_OURS = rf"(?:{'|'.join((*NAMES, 'case_name'))}|step\.[a-z0-9][a-z0-9_-]*|part\.[A-Za-z0-9_]+)\}}"
_BODY = r"[^{}()'\"`\\]*"  # with quotes inside, only the shell could say where it ends: then braces are written twice
_OF_SHELL = rf"\$\{{(?!{_OURS}){_BODY}(?:\$\{{{_BODY}\}}{_BODY})*\}}"  # ${NAME}, ${NAME:-${OTHER}}
# `$$` was once the way to write `$`. Before a brace, where the shell's own number would make no sense, it still is.
_OLD_DOLLAR = r"(?<![$\\])\$"
_TOKEN = re.compile(rf"{_OLD_DOLLAR}\$(?=\{{\{{)|(?:{_OLD_DOLLAR})?{_OF_SHELL}|\{{\{{|\}}\}}|\{{([^{{}}]*)\}}|[{{}}]")
_BARE_DOLLAR = re.compile(r"(?<![$\\])\$\Z")
_STEP_NAME = re.compile(r"step\.[a-z0-9][a-z0-9_-]*\Z")
_PLAIN = ("", "(")
_EXPOSED = {"'": "inside quotes", '"': "inside quotes", "`": "inside backquotes"}
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?\s*[\\'\"]?[A-Za-z_]")
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
        elif re.match(_OURS, f"{name}}}") and _BARE_DOLLAR.search(template, 0, token.start()):
            problems.append(f"${{{name}}} would be a variable of the host's shell; the placeholder is {{{name}}}")
        elif name == "case_name":
            problems.append("{case_name} may hold a patient's id and goes into no command; take {case_key}")
        elif name not in NAMES and not _STEP_NAME.match(name) and not _GROUP_NAME.match(name):
            known = ", ".join(f"{{{each}}}" for each in (*NAMES, PART + "GROUP", STEP + "NAME"))
            problems.append(f"{{{name}}} is not one of {known}; a literal brace is written twice: {{{{{name}}}}}")
    return problems


def check_quoting(template: str) -> list[str]:
    """Return one sentence for each placeholder of a part's text that stands where the shell would read its value."""
    problems = []
    if uses_part(template) and _HERE_DOCUMENT.search(template):
        problems.append("{part} and its groups can't go into a here-document (<<): pass them as arguments")
    for name, place in exposed(template):
        if name == "part" or _GROUP_NAME.match(name):
            problems.append(f"{{{name}}} stands {place}; it brings its own quotes: write it without, as an argument")
    return problems


def exposed(template: str) -> Iterator[tuple[str, str]]:
    """Yield each placeholder whose quotes would not hold where it stands, and where that is; quotes as POSIX shells read them.

    What is quoted by other means than a shell's own grammar (`eval`, `sh -c` with an unquoted text) is not seen.
    """
    inside = [""]  # what is open: a quote, or ( for a command in parentheses, which begins plain text again
    at, word_begins = 0, True
    while at < len(template):
        token = _TOKEN.match(template, at)
        sign = token[0][0] if token else template[at]
        if token is not None and token[1] is not None:
            if place := _EXPOSED.get("`" if "`" in inside else inside[-1]):
                yield token[1], place
        elif sign == "\\" and inside[-1] != "'":
            at += 1
            if (escaped := _TOKEN.match(template, at)) and escaped[1] is not None:
                yield escaped[1], "behind a backslash"
        elif sign == "#" and word_begins and inside[-1] in _PLAIN:
            at = min(at + len(template[at:].partition("\n")[0]), len(template) - 1)
        elif sign == inside[-1] or (sign == ")" and inside[-1] == "("):
            inside.pop()
        elif sign == "(" and inside[-1] != "'" and (inside[-1] in _PLAIN or template[at - 1] == "$"):
            inside.append("(")
        elif sign in _EXPOSED and (inside[-1] in _PLAIN or (sign == "`" and inside[-1] == '"') or inside[-1] == "`"):
            inside.append(sign)
        word_begins = sign.isspace() or sign in ";&|()"
        at += len(token[0]) if token else 1


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
        if token[1] is not None:
            return shlex.quote(values[token[1]])
        if token[0].startswith("$"):
            return token[0].removeprefix("$") if token[0].startswith("$$") else token[0]
        return token[0][0]

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
