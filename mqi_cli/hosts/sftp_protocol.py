"""The words of the SFTP protocol, version 3: kinds of packet, attributes, how they are packed and read. Pure.

Facts: draft-ietf-secsh-filexfer-02, and PROTOCOL in OpenSSH's sources for the extensions `…@openssh.com`.
"""

from __future__ import annotations

import stat as stat_module
import struct
from dataclasses import dataclass
from enum import IntEnum

VERSION = 3

COPY_DATA = b"copy-data"  # OpenSSH from 9.0 on
FSYNC = b"fsync@openssh.com"
LIMITS = b"limits@openssh.com"
POSIX_RENAME = b"posix-rename@openssh.com"
STATVFS = b"statvfs@openssh.com"


class Ask(IntEnum):
    """The kinds of request that we send."""

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    EXTENDED = 200


class Answer(IntEnum):
    """The kinds of answer that we know."""

    VERSION = 2
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 201


class Status(IntEnum):
    """What a status answer says. Anything that has no code of its own comes as `FAILURE`."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    UNSUPPORTED = 8


class OpenFlag(IntEnum):
    """How a file is opened."""

    READ = 1
    WRITE = 2
    CREATE = 8
    TRUNCATE = 16
    EXCLUSIVE = 32


class SftpLost(Exception):
    """The channel broke, fell silent, or carries something that is not SFTP. Nothing more can be asked over it."""


class SftpRefused(Exception):
    """The server answered with a status other than OK."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class SftpOverflow(Exception):
    """The server lists more than is believed, or what no file system holds. The text says what, without a name."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the server says of a file. A field that it leaves out is None."""

    size: int | None = None
    mode: int | None = None
    mtime: int | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.mode is not None and stat_module.S_ISDIR(self.mode)


class Reply:
    """One answer, read field by field."""

    def __init__(self, kind: int, body: bytes) -> None:
        self.kind = kind
        self._body = body
        self._at = 0

    def number(self) -> int:
        """Read an unsigned 32-bit number."""
        return int(self._unpack(">I", 4))

    def large(self) -> int:
        """Read an unsigned 64-bit number."""
        return int(self._unpack(">Q", 8))

    def string(self) -> bytes:
        """Read a counted string."""
        size = self.number()
        if self._at + size > len(self._body):
            raise SftpLost("an answer ends too early")
        self._at += size
        return self._body[self._at - size : self._at]

    def attributes(self) -> Attributes:
        """Read a file's attributes."""
        flags = self.number()
        size = self.large() if flags & 1 else None
        if flags & 2:
            self.number(), self.number()  # owner and group
        mode = self.number() if flags & 4 else None
        mtime = (self.number(), self.number())[1] if flags & 8 else None
        if flags & 0x80000000:
            for _ in range(self.number()):
                self.string(), self.string()
        return Attributes(size, mode, mtime)

    def rest(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._body)

    def expect(self, kind: Answer) -> Reply:
        """Return itself when it is of that kind. Raises `SftpRefused` for a status, `SftpLost` for anything else."""
        if self.kind == Answer.STATUS:
            status = self.number()
            if kind is Answer.STATUS and status == Status.OK:
                return self
            # OK where a handle or data was due is no answer either
            raise SftpRefused(status if status != Status.OK else Status.BAD_MESSAGE)
        if self.kind != kind:
            raise SftpLost("an answer of the wrong kind")
        return self

    def _unpack(self, form: str, size: int) -> int:
        if self._at + size > len(self._body):
            raise SftpLost("an answer ends too early")
        value: int = struct.unpack_from(form, self._body, self._at)[0]
        self._at += size
        return value


def is_utf8(data: bytes) -> bool:
    """Whether a name is text as it should be."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def pack_string(data: bytes) -> bytes:
    """Return a counted string."""
    return struct.pack(">I", len(data)) + data


def pack_attributes(*, size: int | None = None, mode: int | None = None, mtime: int | None = None) -> bytes:
    """Return attributes; what is None is left as it is on the server."""
    flags = (size is not None) | (mode is not None) << 2 | (mtime is not None) << 3
    packed = struct.pack(">I", flags)
    if size is not None:
        packed += struct.pack(">Q", size)
    if mode is not None:
        packed += struct.pack(">I", mode)
    if mtime is not None:
        packed += struct.pack(">II", mtime, mtime)
    return packed
