"""Text made fit for a terminal and a log: one line, nothing in it that moves the cursor or hides characters."""

from __future__ import annotations

import unicodedata

# Cc: C0 and C1 controls (escape sequences). Cf: invisible ones, among them those that turn the direction of writing.
# Cs: halves of surrogate pairs, which stand for undecodable bytes of a file name. Zl, Zp: line breaks in disguise.
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return the text with every control, invisible and undecodable character spelled out (`\n`, `\x1b`, `\u202e`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spell(each) if unicodedata.category(each) in _UNFIT else each for each in text)


def _spell(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode put an undecodable byte there
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
