"""An SFTP server in this process that misbehaves in one named way. Everything else it does as it should.

It is paramiko's, so it has none of OpenSSH's extensions: what works with it works with a plain server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from typing import Any, Self

import paramiko


def _made_up(name: str, *, directory: bool) -> Any:
    found = paramiko.SFTPAttributes()
    found.filename = name
    found.st_mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    found.st_size, found.st_mtime, found.st_atime = 1, 0, 0
    return found


class _Endless(list[Any]):
    """Gives sixteen more each time that the server takes the next ones, and keeps as many."""

    def __init__(self, fault: EndlessListings) -> None:
        super().__init__()
        self._fault = fault

    def __getitem__(self, index: Any) -> Any:
        if index.start is not None:
            return self
        fault = self._fault
        fault.asked += 1
        return [
            _made_up(f"{fault.asked:0{fault.length - 3}}.{each:02}", directory=fault.directories) for each in range(16)
        ]


class Fault:
    """No fault at all. A subclass overrides the one thing that it does wrong."""

    invents = False  # whether it lists what is not there

    def write(self, offset: int, size: int) -> int:
        """Return the status of a write; OK lets it happen."""
        return paramiko.SFTP_OK

    def close(self) -> int:
        """Return the status of closing a file."""
        return paramiko.SFTP_OK

    def read(self, data: bytes) -> bytes:
        """Return what is sent of what was read."""
        return data

    def name(self, name: str) -> str:
        """Return the name that a listing shows."""
        return name

    def entries(self, listed: list[Any]) -> list[Any]:
        """Return what a listing shows."""
        return listed


class FailsOneWrite(Fault):
    """One write in the middle fails, later ones succeed: a moment without space, quota or a network disk."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.failed = 0

    def write(self, offset: int, size: int) -> int:
        if not self.failed and offset <= self.at < offset + size:
            self.failed += 1
            return paramiko.SFTP_FAILURE
        return paramiko.SFTP_OK


class DropsOneWrite(Fault):
    """One write is acknowledged and not done; the last one, so that the file is short."""

    def __init__(self, at: int) -> None:
        self.at = at

    def drops(self, offset: int, size: int) -> bool:
        return offset <= self.at < offset + size


class FailsClose(Fault):
    """Closing a file fails, as on a network disk that only then finds itself full."""

    def close(self) -> int:
        return paramiko.SFTP_FAILURE


class ShortReads(Fault):
    """Every read gives less than was asked for, which a server may do."""

    def read(self, data: bytes) -> bytes:
        return data[: max(1, len(data) // 3)]


class EndlessListings(Fault):
    """A listing never ends: more and more names, of directories or of files, or one long name."""

    def __init__(self, *, directories: bool = False, length: int = 12) -> None:
        self.directories = directories
        self.length = length
        self.asked = 0

    def entries(self, listed: list[Any]) -> list[Any]:
        return _Endless(self)


class DirectoriesWithoutEnd(Fault):
    """Each directory holds another one, as far as anybody looks."""

    invents = True

    def entries(self, listed: list[Any]) -> list[Any]:
        return [_made_up("d" * 100, directory=True)]


class HostileNames(Fault):
    """Names in listings lead out of the directory."""

    def name(self, name: str) -> str:
        return f"../{name}"


class _Handle(paramiko.SFTPHandle):
    def __init__(self, fault: Fault, path: str, flags: int, mode: int) -> None:
        super().__init__(flags)
        self._fault = fault
        self._descriptor = os.open(path, flags & ~os.O_APPEND, mode)

    def read(self, offset: int, length: int) -> Any:
        return self._fault.read(os.pread(self._descriptor, length, offset)) or paramiko.SFTP_EOF

    def write(self, offset: int, data: bytes) -> int:
        status = self._fault.write(offset, len(data))
        if status == paramiko.SFTP_OK and not (
            isinstance(self._fault, DropsOneWrite) and self._fault.drops(offset, len(data))
        ):
            os.pwrite(self._descriptor, data, offset)
        return status

    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._descriptor))

    def chattr(self, attr: Any) -> int:
        if attr.st_size is not None:
            os.ftruncate(self._descriptor, attr.st_size)
        return paramiko.SFTP_OK

    def close(self) -> None:
        os.close(self._descriptor)


class _Files(paramiko.SFTPServerInterface):
    def __init__(self, server: Any, *, fault: Fault) -> None:
        super().__init__(server)
        self._fault = fault

    def open(self, path: str, flags: int, attr: Any) -> Any:
        return self._try(lambda: _Handle(self._fault, path, flags, attr.st_mode or 0o640))

    def stat(self, path: str) -> Any:
        return self._try(lambda: paramiko.SFTPAttributes.from_stat(os.stat(path)))

    def lstat(self, path: str) -> Any:
        return self._try(lambda: paramiko.SFTPAttributes.from_stat(os.lstat(path)))

    def list_folder(self, path: str) -> Any:
        return self._try(
            lambda: self._fault.entries(
                [
                    paramiko.SFTPAttributes.from_stat(each.stat(follow_symlinks=False), self._fault.name(each.name))
                    for each in ([] if self._fault.invents else os.scandir(path))
                ]
            )
        )

    def remove(self, path: str) -> Any:
        return self._try(lambda: os.remove(path))

    def rename(self, oldpath: str, newpath: str) -> Any:
        if os.path.lexists(newpath):
            return paramiko.SFTP_FAILURE  # as version 3 of the protocol has it
        return self._try(lambda: os.rename(oldpath, newpath))

    def mkdir(self, path: str, attr: Any) -> Any:
        return self._try(lambda: os.mkdir(path))

    def rmdir(self, path: str) -> Any:
        return self._try(lambda: os.rmdir(path))

    def chattr(self, path: str, attr: Any) -> Any:
        return paramiko.SFTP_OK

    @staticmethod
    def _try(act: Any) -> Any:
        try:
            result = act()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 5)
        return paramiko.SFTP_OK if result is None else result


class _Server(paramiko.SFTPServer):
    """Says what closing a file came to; paramiko's own always says that it went well."""

    def _process(self, t: int, request_number: int, msg: Any) -> None:
        fault = self.server._fault  # type: ignore[attr-defined]
        status = fault.close()
        if t == paramiko.sftp.CMD_CLOSE and status != paramiko.SFTP_OK:
            self._send_status(request_number, status)  # type: ignore[attr-defined]
            return
        super()._process(t, request_number, msg)  # type: ignore[misc]


class _Account(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class FaultySftpServer:
    """Serves this machine's files to anybody with any key, on loopback, with one fault."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._serve, name="faulty-sftp", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for transport in self._transports:
            transport.close()
            transport.join(5)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(link)
            self._transports.append(transport)
            transport.add_server_key(self._key)
            transport.set_subsystem_handler("sftp", _Server, _Files, fault=self._fault)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=_Account(), event=threading.Event())
