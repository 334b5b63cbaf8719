"""The bytes of a tar stream, made member by member: headers that every tar reads, for names and sizes of any length.

Written out because the standard library's writer takes longer for a small file than the file takes to travel. Pure.
The form is POSIX ustar with GNU's two additions: `@LongLink` for names over 100 bytes, base 256 for large numbers.
"""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

_NAME = 100
_LARGEST_OCTAL = 8**11
_FILE, _DIRECTORY, _LONG_NAME = b"0", b"5", b"L"


def file_header(name: bytes, *, size: int, mode: int, mtime: int) -> bytes:
    """Return what stands before a file's bytes. `name` is relative; `mtime` in whole seconds."""
    return _header(name, _FILE, size, mode, mtime)


def directory_header(name: bytes, *, mode: int, mtime: int) -> bytes:
    """Return a directory's member, which has no bytes."""
    return _header(name + b"/", _DIRECTORY, 0, mode, mtime)


def padding(size: int) -> bytes:
    """Return what fills a file of that size up to a whole block."""
    return bytes(-size % BLOCK)


def _header(name: bytes, kind: bytes, size: int, mode: int, mtime: int) -> bytes:
    long = b""
    if len(name) > _NAME:
        text = name + b"\0"
        long = _block(b"././@LongLink", _LONG_NAME, len(text), 0o644, 0) + text + padding(len(text))
    return long + _block(name[:_NAME], kind, size, mode, mtime)


def _block(name: bytes, kind: bytes, size: int, mode: int, mtime: int) -> bytes:
    block = bytearray(
        b"%b%07o\0%07o\0%07o\0%b%b        %b%b"
        % (name.ljust(_NAME, b"\0"), mode, 0, 0, _number(size), _number(mtime), kind, bytes(_NAME))
    )
    block += b"ustar  \0"  # as GNU writes it
    block += bytes(BLOCK - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _number(value: int) -> bytes:
    if 0 <= value < _LARGEST_OCTAL:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big", signed=True)
