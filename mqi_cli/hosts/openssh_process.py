"""A program on the far side over the system's own OpenSSH client: its first words, its streams, its end."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from typing import IO, TYPE_CHECKING

from mqi_cli.errors import HostError, HostFault, HostUnreachable, NoShell
from mqi_cli.hosts.base import Completed
from mqi_cli.hosts.openssh import FAILED, Client, Unsuitable
from mqi_cli.hosts.streams import Deadline, Incoming, Outgoing, drain, pass_on

if TYPE_CHECKING:
    from collections.abc import Sequence

# The far side's first words. What comes before them is text of a login file. Our own first words end a file server
# that stands in the place of a shell: read as the length of a packet, they are far too large.
HERE = b"mqi: here\n"
_PREFACE = b"mqi: ready\n"
_WRAPPER = "IFS= read -r ready && printf 'mqi: here\\n' && exec \"$@\""
_GREETING_LIMIT = 64 * 1024
_CHUNK = 256 * 1024


def started(argv: Sequence[str]) -> list[str]:
    """Return the argument list that says the far side's first words and then becomes `argv`. Pure."""
    return ["sh", "-c", _WRAPPER, "mqi", *argv]


class ClientProcess:
    """A program on the far side with open streams, over a client of its own."""

    bulk = True
    way = "the system's ssh"

    def __init__(self, client: Client, *, limit: int = 1 << 20) -> None:
        self._client = client
        self._limit = limit
        self._splices = hasattr(os, "splice")
        self._aborted = False
        self._raw = Incoming(self._receive, receive_into=self._receive_into)
        self._reader = io.BufferedReader(self._raw, _CHUNK)
        self._writer = io.BufferedWriter(Outgoing(self._send, client.end_input), _CHUNK)
        self.stdout: IO[bytes] = self._reader
        self.stdin: IO[bytes] = self._writer

    def greet(self, within: float) -> None:
        """Wait until the program runs. Raises `NoShell` when the account runs none, else what the client's end means."""
        deadline = Deadline(within)
        heard = b""
        try:
            self._client.send(_PREFACE)
            while HERE not in heard and len(heard) < _GREETING_LIMIT:
                # byte by byte: what follows belongs to the program's output
                data = self._client.receive(1, deadline.remaining())
                if not data:
                    break
                heard += data
            else:
                if HERE in heard:
                    return
        except TimeoutError:
            raise HostUnreachable(f"host {self._client.name}: no answer in time", host=self._client.name) from None
        except OSError:
            pass  # it has ended already
        raise self._no_program(deadline)

    def pass_on(self, source: IO[bytes], size: int) -> int:
        """Write bytes of an open file; larger pieces go from the system's cache to the client without a copy here."""
        if size < _CHUNK or not self._splices:
            return pass_on(source, size, self.stdin)
        self._writer.flush()
        try:
            return self._client.splice(source, size)
        except BrokenPipeError as error:
            raise self._no_reader() from error
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            self._splices = False  # not from this kind of file system
            return pass_on(source, size, self.stdin)

    def wait(self, timeout: float) -> Completed:
        """Close standard input, read what is left of the output, and return the end."""
        deadline = Deadline(timeout)
        with contextlib.suppress(HostError):
            self._writer.close()
        try:
            kept = drain(self._reader, self._raw, limit=self._limit, remaining=deadline.remaining)
            code = self._client.exit_code(deadline.remaining())
        except TimeoutError:
            raise HostUnreachable(
                f"host {self._client.name}: a command gave no end within {timeout:g} s", host=self._client.name
            ) from None
        if code == FAILED:
            raise self._lost()
        return Completed(code, kept, self._client.error_text())

    def abort(self) -> None:
        """Break it off, from any thread."""
        self._aborted = True
        self._client.kill()

    def close(self) -> None:
        """End the channel."""
        self._aborted = True  # flushing could wait for a far side that takes nothing any more
        with contextlib.suppress(HostError, OSError, ValueError):
            self._writer.close()
        self._client.close()

    def _no_program(self, deadline: Deadline) -> HostError | Unsuitable:
        try:
            code = self._client.exit_code(deadline.remaining())
        except TimeoutError:
            return HostUnreachable(f"host {self._client.name}: no answer in time", host=self._client.name)
        if code == FAILED:
            return self._client.failure()
        return NoShell(
            f"host {self._client.name}: the account runs no programs",
            host=self._client.name,
            hint="give it a login shell; without one it can only store files",
        )

    def _lost(self) -> HostError:
        found = self._client.failure()
        return found if isinstance(found, HostError) else HostUnreachable(str(found), host=self._client.name)

    def _receive(self, size: int, within: float | None) -> bytes:
        data = self._client.receive(size, within)
        if not data and self._broke():
            raise self._lost()  # else a cut stream would pass for a whole one
        return data

    def _receive_into(self, view: memoryview) -> int:
        count = self._client.receive_into(view)
        if not count and self._broke():
            raise self._lost()
        return count

    def _send(self, data: memoryview) -> int:
        if self._aborted:
            raise HostFault(f"host {self._client.name}: the program was broken off", host=self._client.name)
        try:
            return self._client.send(data)
        except OSError as error:
            raise self._no_reader() from error

    def _no_reader(self) -> HostError:
        if self._broke():
            return self._lost()
        return HostFault(f"host {self._client.name}: the program reads no further", host=self._client.name)

    def _broke(self) -> bool:
        try:
            return self._client.exit_code(2.0) in (FAILED, None)
        except TimeoutError:
            return False
