"""`${NAME}` in the config's texts: filled from the environment. `$$` is a literal dollar. Texts for a shell are left alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mqi_cli.config.problems import KeyPath, Problems, clipped, nearest, related

MASKED_LENGTH = 4  # to hide a port or a `1` would garble the sentence, and hide nothing
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(r"\$(?:\$|\{(" + _NAME + r")\}|\{([^}]*)\}?)")
_NOTHING_ELSE = re.compile(r"(\$\{" + _NAME + r"\})+\Z")


class Environment:
    """Fills `${NAME}`, and remembers which values came from it: `used` maps a key path to the names.

    What stands at one of the paths in `as_written` is not touched.
    """

    def __init__(self, environ: Mapping[str, str], problems: Problems, *, as_written: Collection[KeyPath] = ()) -> None:
        self._environ = environ
        self._as_written = as_written
        self._problems = problems
        problems.mask = self._mask
        self.used: dict[KeyPath, tuple[str, ...]] = {}
        self.whole: set[KeyPath] = set()  # values that are nothing but `${NAME}`

    def fill(self, value: Any, path: KeyPath) -> Any:
        """Return the value with all its texts filled, however deep; what can't be is a problem and stays as it is."""
        if path in self._as_written:
            return value
        if isinstance(value, dict):
            return {key: self.fill(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each, (*path, index)) for index, each in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "$" in value else value

    def _text(self, text: str, path: KeyPath) -> str:
        names: list[str] = []

        def replace(found: re.Match[str]) -> str:
            name = found[1]
            if name is None and found[2] is None:
                return "$"
            if name is None:
                what = f"${{{clipped(found[2])}}} is no variable"
                self._problems.add(path, f"{what}; a literal `${{` is written `$${{`")
                return found[0]
            names.append(name)
            if name not in self._environ:
                near = nearest(name, self._environ)
                meant = f"did you mean ${{{near}}}? A" if near else "set it, or a"
                self._problems.add(
                    path, f"the environment has no variable {name}; {meant} literal `${{` is written `$${{`"
                )
                return found[0]
            return self._environ[name]

        filled = _REFERENCE.sub(replace, text)
        if names:
            self.used[path] = tuple(dict.fromkeys(names))
            if _NOTHING_ELSE.match(text):
                self.whole.add(path)
        return filled

    def _mask(self, path: KeyPath, text: str) -> str:
        """Put the names back for the values that were filled in at this path: what the environment holds may be a secret."""
        for used, names in self.used.items():
            for name in names if related(used, path) else ():
                value = self._environ.get(name, "")
                if len(value) >= MASKED_LENGTH:
                    text = text.replace(value, f"${{{name}}}")
        return text
