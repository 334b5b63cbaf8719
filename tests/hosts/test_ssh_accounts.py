"""Accounts as they are found: any login shell, none at all, one that talks, one without files."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable

import pytest

from mqi_cli.errors import HostFault, HostRefused, NoShell
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.ssh_command import command_line
from mqi_cli.hosts.sshd import OpenSSHServer

pytestmark = pytest.mark.sshd
MakeHost = Callable[..., SshHost]
ARGUMENTS = [
    "plain",
    "two words",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "back\\slash\\",
    "\\n",
    "!x",
    "new\nline",
    "\n",
    "é量",
    "*",
    "",
    "~",
    "%d",
    "\t",
]


@pytest.mark.parametrize("shell", ["sh", "bash", "csh", "tcsh", "fish", "zsh", "mksh"])
def test_arguments_pass_any_login_shell(own_sshd: OpenSSHServer, ssh_host: MakeHost, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    own_sshd.lines = (f'ForceCommand {program} -c "$SSH_ORIGINAL_COMMAND"',)  # as if it were the account's own
    own_sshd.start()
    host = ssh_host(own_sshd)
    done = host.run(["printf", "%s\\0", *ARGUMENTS])
    assert done.stdout.decode().split("\0")[:-1] == ARGUMENTS
    long = 'it\'s "long"\n' * 1000
    assert host.run(["printf", "%s", long]).stdout == long.encode()
    assert host.run(["sha256sum"], stdin=b"x").text.startswith("2d711642b726b044")
    assert host.run(["sh", "-c", "exit 7"]).code == 7


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "mksh", "busybox"])
def test_any_posix_shell_can_be_the_host_s_sh(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    line = command_line(["printf", "%s\\0", *ARGUMENTS])
    command = f"{program} sh" if shell == "busybox" else program
    done = subprocess.run(["sh", "-c", line.replace("/bin/sh", command, 1)], capture_output=True)
    assert done.stdout.decode().split("\0")[:-1] == ARGUMENTS


def test_the_command_line_holds_nothing_that_a_shell_could_take_for_its_own() -> None:
    line = command_line(["printf", "it's !x \\ \n é", "'; rm -rf ~; '"])
    constant, _, words = line.partition(" sh '")
    assert constant == """exec /bin/sh -c 'eval "$(printf %b "$@")"'"""
    assert not set("!\n") & set(line)
    assert line.isascii()
    assert "\\" not in words.replace("\\0", "")


def test_an_account_without_programs_says_so_and_still_takes_files(sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    host = ssh_host(sshd.sftp_only())
    with pytest.raises(NoShell):
        host.run(["true"])
    with pytest.raises(NoShell), host.start(["true"]):
        pass
    with host.files() as files:
        files.write(host.base_dir / "file", io.BytesIO(b"x"))
        assert files.read_bytes(host.base_dir / "file", limit=1) == b"x"


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", "/bin/true", "echo hello", "cat"])
def test_a_login_shell_that_runs_nothing_is_no_shell(sshd: OpenSSHServer, ssh_host: MakeHost, shell: str) -> None:
    host = ssh_host(sshd.variant(f"ForceCommand {shell}"))
    with pytest.raises(NoShell):
        host.run(["true"])


def test_login_files_that_print_text_are_named(sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    noisy = sshd.variant('ForceCommand echo "Welcome to the cluster"; sh -c "$SSH_ORIGINAL_COMMAND"')
    with pytest.raises(HostRefused, match="print text"):
        ssh_host(noisy).run(["true"])


@pytest.mark.parametrize("subsystem", ["/bin/false", "/bin/echo Welcome to the cluster, enjoy your stay", "/nowhere"])
def test_an_account_without_files_says_so(sshd: OpenSSHServer, ssh_host: MakeHost, subsystem: str) -> None:
    host = ssh_host(sshd.variant(f"Subsystem sftp {subsystem}"))
    with pytest.raises(HostFault, match="file"), host.files():
        pass
    assert host.run(["true"]).code == 0


def test_a_base_directory_may_be_relative_to_the_home(sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    assert str(ssh_host(base_dir="~/mqi data").base_dir) == f"{sshd.home}/mqi data"
    assert str(ssh_host(base_dir="~").base_dir) == str(sshd.home)
