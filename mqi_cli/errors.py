"""Every error that mqi raises on purpose: one tree, each class with an exit code and a hint.

The command line prints a known error as one line, what to do, and leaves with `exit_code`; anything else is a bug and
shows its traceback (exit code 70). A message says what failed and on which case, host or file; the hint says what to
do next. Neither may carry a secret, a case's name or the name of a case's file: both travel in events and logs.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_CASE = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_PLUGIN = 4
EXIT_BROKER = 5
EXIT_STATE = 6
EXIT_HOST = 7
EXIT_ALREADY_RUNNING = 8
EXIT_BUG = 70


class MqiError(Exception):
    """The root. `hint` is one sentence, often the command that mends it.

    `detail` may be set to a few more lines, which are kept with the case and never logged; no names in them either.
    """

    exit_code = EXIT_BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = ""


class CaseError(MqiError):
    """A case failed, is held, or cannot be found."""

    exit_code = EXIT_CASE


class UsageError(MqiError):
    """The command line asks for something that does not fit: unknown step, ambiguous prefix, busy part."""

    exit_code = EXIT_USAGE


class ConfigError(MqiError):
    """The config cannot be used. `problems` lists every one that was found, each a whole line."""

    exit_code = EXIT_CONFIG

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class PluginError(MqiError):
    """A plugin does not load, or breaks the contract. The message names it."""

    exit_code = EXIT_PLUGIN


class BrokerError(MqiError):
    """The broker cannot be used."""

    exit_code = EXIT_BROKER


class BrokerUnreachable(BrokerError):
    """The broker is away or blocked for now: trying again later can help."""


class BrokerRefused(BrokerError):
    """The broker says no (password, virtual host, queue arguments): a person has to change something."""


class StateError(MqiError):
    """The state database cannot be used: missing, damaged, newer than this program, on a network file system."""

    exit_code = EXIT_STATE


class HostError(MqiError):
    """Something failed on or on the way to a host. `host` is its name in the config."""

    exit_code = EXIT_HOST

    def __init__(self, message: str, *, host: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host

    @property
    def what(self) -> str:
        """The message without the host's name at its beginning, for where the name stands already."""
        return self.message.removeprefix(f"host {self.host}: ")


class HostUnreachable(HostError):
    """No connection, or it broke. Pauses the host and uses up nobody's tries."""


class HostRefused(HostError):
    """The host's key is unknown or changed, or it does not let us in. Pauses the host until a person mends it."""


class HostFull(HostError):
    """No space, no inodes or no quota left on the host. Pauses the host."""


class NoShell(HostError):
    """The account takes files but runs no programs (a chrooted `internal-sftp`, say)."""


class HostFault(HostError):
    """An operation failed on a host that answers: permission denied, a path that should be there is not, …"""


class AlreadyRunning(MqiError):
    """Another process holds the lock."""

    exit_code = EXIT_ALREADY_RUNNING


class RetryLater(MqiError):
    """Raised by a stage: the machinery failed, the case is not to blame. Backs off and tries again, up to a limit.

    `after` overrides the computed delay, in seconds.
    """

    exit_code = EXIT_CASE

    def __init__(self, message: str, *, hint: str = "", after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class GiveUp(MqiError):
    """Raised by a stage: trying again cannot help. The case is held with this reason until a person acts."""

    exit_code = EXIT_CASE


def describe_os_error(error: OSError) -> str:
    """Say what the system said, without the path, which may hold a case's name."""
    return error.strerror or type(error).__name__
