"""Turns a run's log, which comes in pieces of bytes, into lines for a terminal."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

MOST_LINE = 4096  # characters; a program that writes no line end must not fill our memory


class LineReader:
    """Decodes tolerantly, cuts at line ends, and keeps what has no line end yet for the next piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """Return the lines that this piece completes. A carriage return ends one: progress bars write nothing else."""
        text = self._rest + self._decoder.decode(data)
        held = "\r" if text.endswith("\r") else ""  # the line feed that belongs to it may come next
        lines = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + held
        for line in lines:
            yield from _pieces(line)
        while len(self._rest) > MOST_LINE:
            yield self._rest[:MOST_LINE].expandtabs()
            self._rest = self._rest[MOST_LINE:]

    def end(self) -> Iterator[str]:
        """Return what is left without a line end."""
        rest = (self._rest + self._decoder.decode(b"", True)).rstrip("\r")
        self._rest = ""
        if rest:
            yield rest.expandtabs()


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line), 1), MOST_LINE):
        yield line[start : start + MOST_LINE].expandtabs()
