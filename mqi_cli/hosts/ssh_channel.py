"""One channel of an SSH connection: a file session's, or a running program's. Hides three faults of paramiko's.

- It answers a channel's close from its own thread, while ours may be about to send on that channel: the server then
  hears of a channel that is gone, and ends the whole connection. Here a close is answered when we are done with it.
- It knows no end by signal, and no difference between that and a cut connection.
- It has no way to send a signal.
"""

from __future__ import annotations

import contextlib
import selectors
from typing import Any

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_REQUEST,
)

_ERRORS = (OSError, EOFError, paramiko.SSHException)


def keep_open(channel: Any, _message: paramiko.Message) -> None:
    """Take note that the far side has closed a channel, without answering: `SshChannel.close` does."""
    with channel.lock:
        if channel.closed:  # we closed it first, so this is the answer
            channel.transport._unlink_channel(channel.chanid)
        else:
            channel._set_closed()
            channel.transport.unanswered.add(channel)


HANDLERS = {MSG_CHANNEL_CLOSE: keep_open}  # in the place of paramiko's own, in `Transport`


class SshChannel:
    """An open channel. Close it: as long as it isn't, the server counts it."""

    def __init__(self, channel: paramiko.Channel, *, timeout: float) -> None:
        self._channel: Any = channel  # its types leave out much of what is used here
        self.set_timeout(timeout)

    def run_program(self, line: str) -> None:
        """Ask the account's login shell to run a line."""
        self._channel.exec_command(line)

    def open_files(self) -> None:
        """Ask for the SFTP subsystem."""
        self._channel.invoke_subsystem("sftp")

    @property
    def readable(self) -> bool:
        """Whether output is there to be read at once."""
        return bool(self._channel.recv_ready())

    @property
    def error_readable(self) -> bool:
        """Whether error output is there to be read at once."""
        return bool(self._channel.recv_stderr_ready())

    @property
    def writable(self) -> bool:
        """Whether something can be sent at once."""
        return bool(self._channel.send_ready())

    @property
    def output_ended(self) -> bool:
        """Whether the far side said that no more output comes. A cut connection doesn't say so."""
        return bool(self._channel.eof_received)

    @property
    def ended(self) -> bool:
        """Whether the channel is closed, by whomever."""
        return bool(self._channel.closed)

    @property
    def exit_code(self) -> int | None:
        """The program's exit code; None while there is none, and for ever when it ended by a signal."""
        code = int(self._channel.exit_status)
        return code if code >= 0 else None

    def send(self, data: bytes) -> int:
        """Send a piece; return how much of it went. Waits while the far side takes none."""
        return int(self._channel.send(data))

    def recv(self, size: int) -> bytes:
        """Read what is there, at most `size` bytes; empty at the end, or where the connection broke."""
        data: bytes = self._channel.recv(size)
        return data

    def recv_error(self, size: int) -> bytes:
        """Read what is there of the error output, likewise."""
        data: bytes = self._channel.recv_stderr(size)
        return data

    def set_timeout(self, seconds: float | None) -> None:
        """Let sending and reading wait no longer than so many seconds: then they raise `TimeoutError`."""
        self._channel.settimeout(seconds)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Have a selector wake up for output, error output and the close."""
        selector.register(self._channel, selectors.EVENT_READ)

    def wait_exit(self, seconds: float) -> bool:
        """Wait for the exit code or the close. False when neither came in time."""
        return bool(self._channel.status_event.wait(seconds))

    def end_input(self) -> None:
        """Tell the program that no more input comes."""
        with contextlib.suppress(*_ERRORS):
            self._channel.shutdown_write()

    def hang_up(self) -> None:
        """Send SIGHUP to the program and its process group. Closing a channel alone leaves a silent program running.

        OpenSSH does it since 7.9, but not in a session of root's.
        """
        self._say(cMSG_CHANNEL_REQUEST, "signal", False, "HUP")

    def close(self) -> None:
        """End the channel. May be called twice."""
        transport = self._channel.transport
        with self._channel.lock:
            owed = self._channel in transport.unanswered
            transport.unanswered.discard(self._channel)
        with contextlib.suppress(*_ERRORS):
            if owed:
                self._say(cMSG_CHANNEL_CLOSE)
                transport._unlink_channel(self._channel.chanid)
            self._channel.close()

    def _say(self, kind: bytes, *fields: str | bool) -> None:
        message = paramiko.Message()
        message.add_byte(kind)
        message.add_int(self._channel.remote_chanid)
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            else:
                message.add_string(field)
        with contextlib.suppress(*_ERRORS):
            self._channel.transport._send_user_message(message)
