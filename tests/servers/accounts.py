"""SSH accounts as hosts have them: with any login shell, and any set of programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqi_cli.hosts.sshd import OpenSSHServer

_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def with_login_shell(sshd: OpenSSHServer, shell: str, *, path: str = "") -> OpenSSHServer:
    """Start a variant whose account has this login shell, a program's path, and finds its programs in `path`.

    Files go by the server's own program, as they would otherwise.
    """
    sftp = next((each for each in _SFTP_SERVERS if Path(each).exists()), None)
    if sftp is None:
        pytest.skip("no sftp-server program")
    found = f"PATH={path}; export PATH; " if path else ""
    return sshd.variant(
        f'ForceCommand {found}case "$SSH_ORIGINAL_COMMAND" in internal-sftp*) exec {sftp};; '
        f'*) exec {shell} -c "$SSH_ORIGINAL_COMMAND";; esac'
    )
