"""Keys from a terminal: single presses instead of lines, and the terminal as it was afterwards, whatever happens."""

from __future__ import annotations

import codecs
import os
import select
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any

_SEQUENCES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "[5~": "page-up", "[6~": "page-down", "[H": "home", "[F": "end", "OH": "home", "OF": "end", "[1~": "home",
    "[4~": "end", "[7~": "home", "[8~": "end", "[Z": "back-tab",
}  # fmt: skip
_CONTROLS = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x15": "ctrl-u"}
_ESCAPE_WAIT = 0.05  # seconds in which the rest of a key's sequence follows its ESC; a lone ESC is the key itself
_LFLAG, _CC = 3, 6  # where termios keeps them


def decode(text: str) -> tuple[list[str], str]:
    """Return the keys in the text, and the beginning of a sequence that isn't complete."""
    keys = []
    while text:
        if text[0] != "\x1b":
            control = _CONTROLS.get(text[0])
            keys += [control] if control else [text[0]] if text[0].isprintable() else []
            text = text[1:]
            continue
        length = _length(text)
        if length is None:
            return keys, text
        if length == 1:
            keys.append("escape")
        elif text[1:length] in _SEQUENCES:
            keys.append(_SEQUENCES[text[1:length]])
        text = text[length:]
    return keys, ""


def _length(text: str) -> int | None:
    """Return how long the sequence at the beginning is; None when more of it must come."""
    if len(text) == 1:
        return None
    if text[1] == "O":
        return 3 if len(text) > 2 else None
    if text[1] != "[":
        return 1
    for place in range(2, len(text)):
        if "@" <= text[place] <= "~":
            return place + 1
    return None if len(text) < 32 else len(text)  # longer than any key's: swallowed


class Keys:
    """Reads keys from a terminal's descriptor. A context manager: on the way out the terminal is put back.

    Ctrl-C still sends its signal. Ctrl-Z is off: it would leave a stopped program's screen in the shell.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._rest = ""
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        before = termios.tcgetattr(self._descriptor)
        raw: list[Any] = [*before[:_CC], list(before[_CC])]
        raw[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME], raw[_CC][termios.VSUSP] = 1, 0, b"\0"
        self._before = before
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read(self, timeout: float, *, also: Sequence[int] = ()) -> list[str]:
        """Wait for keys and return all that have come; none when the time is over or `also` became readable.

        Raises `EOFError` when the terminal is gone.
        """
        ready, _, _ = select.select([self._descriptor, *also], [], [], timeout)
        if self._descriptor not in ready:
            return []
        keys: list[str] = []
        while self._descriptor in select.select([self._descriptor], [], [], _ESCAPE_WAIT if self._rest else 0)[0]:
            data = os.read(self._descriptor, 1024)
            if not data:
                raise EOFError
            found, self._rest = decode(self._rest + self._decoder.decode(data))
            keys += found
        if self._rest:
            keys.append("escape")
            keys += decode(self._rest[1:])[0] if len(self._rest) > 1 else []
            self._rest = ""
        return keys
