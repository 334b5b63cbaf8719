"""Who may answer as a host, and with which key we log in."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqi_cli.errors import HostRefused, HostUnreachable
from mqi_cli.hosts.base import KeyedHost
from mqi_cli.hosts.ssh import SshHost
from mqi_cli.hosts.sshd import OpenSSHServer, make_key
from servers.proxy import TcpProxy

pytestmark = pytest.mark.sshd
MakeHost = Callable[..., SshHost]


def test_an_unknown_host_gets_no_byte_of_a_log_in(own_sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path) -> None:
    own_sshd.start()
    host = ssh_host(own_sshd, known_hosts=tmp_path / "empty")
    with pytest.raises(HostRefused, match="host key is unknown") as caught:
        host.run(["true"])
    assert caught.value.hint.endswith("mqi host trust hpc")
    own_sshd.stop()
    log = own_sshd.log()
    assert "Connection from" in log
    assert "authenticating user" not in log
    assert "Accepted" not in log


def test_a_changed_key_is_refused_with_words_of_its_own(
    sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    make_key(other)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other.with_suffix('.pub').read_text()}")
    with pytest.raises(HostRefused, match="host key has changed") as caught:
        ssh_host(known_hosts=known).run(["true"])
    assert "in between" in caught.value.hint


def test_a_key_of_another_kind_does_not_make_the_host_known(
    sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path
) -> None:
    key = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", key], check=True)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{sshd.port} {key.with_suffix('.pub').read_text()}")
    with pytest.raises(HostRefused, match="host key has changed"):
        ssh_host(known_hosts=known).run(["true"])


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_the_pinned_kind_is_asked_for_where_a_host_has_several(
    own_sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path, kind: str
) -> None:
    key = tmp_path / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    own_sshd.lines = (f"HostKey {key}",)
    own_sshd.start()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{own_sshd.port} {key.with_suffix('.pub').read_text()}")
    assert ssh_host(own_sshd, known_hosts=known).run(["true"]).code == 0


def test_trust_is_offered_pinned_and_then_enough(sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path) -> None:
    host = ssh_host(known_hosts=tmp_path / "new" / "known_hosts")
    assert isinstance(host, KeyedHost)
    assert host.pinned_key() is None
    key = host.offered_key()
    shown = subprocess.run(
        ["ssh-keygen", "-lf", sshd.host_key_file.with_suffix(".pub")], capture_output=True, text=True, check=True
    )
    assert key.fingerprint == shown.stdout.split()[1]
    assert key.kind == "ssh-ed25519"
    host.pin(key)
    assert host.pinned_key() == key
    assert host.run(["true"]).code == 0
    # OpenSSH's own client understands what was written
    command = ["ssh", "-F", "none", "-i", sshd.key_file, "-p", str(sshd.port), "-o", "BatchMode=yes"]
    command += ["-o", f"UserKnownHostsFile={tmp_path / 'new' / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"]
    assert subprocess.run([*command, f"{sshd.user}@127.0.0.1", "true"]).returncode == 0


def test_pinning_another_key_ends_connections_that_stand_on_the_old_one(
    ssh_host: MakeHost, sshd: OpenSSHServer, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    shutil.copy(sshd.known_hosts, known)
    host = ssh_host(known_hosts=known)
    assert host.run(["true"]).code == 0
    other = tmp_path / "other"
    make_key(other)
    from mqi_cli.hosts.known_hosts import KnownHosts

    name = f"[127.0.0.1]:{sshd.port}"
    (tmp_path / "elsewhere").write_text(f"{name} {other.with_suffix('.pub').read_text()}")
    host.pin(KnownHosts(tmp_path / "elsewhere").keys(name)[0])
    with pytest.raises(HostRefused, match="changed"):
        host.run(["true"])


def test_a_key_that_the_account_does_not_know_is_refused(ssh_host: MakeHost, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(HostRefused, match=r"does not let .* in") as caught:
        ssh_host(key_file=tmp_path / "stranger").run(["true"])
    assert "authorized_keys" in caught.value.hint


def test_a_server_that_hangs_up_on_the_first_wrong_key_has_refused(
    own_sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path
) -> None:
    own_sshd.lines = ("MaxAuthTries 1",)
    own_sshd.start()
    make_key(tmp_path / "stranger")
    with pytest.raises(HostRefused, match=r"does not let .* in"):
        ssh_host(own_sshd, key_file=tmp_path / "stranger").run(["true"])


def test_an_account_that_asks_for_more_than_a_key_is_refused(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("AuthenticationMethods publickey,password", "PasswordAuthentication yes")
    own_sshd.start()
    with pytest.raises(HostRefused, match="asks for password"):
        ssh_host(own_sshd).run(["true"])


def test_many_threads_knock_once_with_a_wrong_key(sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    known = tmp_path / "known"
    with TcpProxy(sshd.port) as proxy:
        host = ssh_host(port=proxy.port, key_file=tmp_path / "stranger", known_hosts=known)
        host.pin(host.offered_key())
        before = proxy.connections
        together = threading.Barrier(10)

        def knock(_: int) -> None:
            together.wait()
            with pytest.raises(HostRefused):
                host.run(["true"])

        with ThreadPoolExecutor(10) as threads:
            list(threads.map(knock, range(10)))
        assert proxy.connections - before <= 3


def test_a_private_key_that_others_may_read_is_not_used(
    sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path
) -> None:
    key = tmp_path / "open"
    shutil.copy(sshd.key_file, key)
    key.chmod(0o640)
    with pytest.raises(HostRefused, match="others may read") as caught:
        ssh_host(key_file=key).run(["true"])
    assert caught.value.hint == f"close it: chmod 600 {key}"


def test_a_private_key_that_is_missing_or_no_key_says_what_to_do(ssh_host: MakeHost, tmp_path: Path) -> None:
    with pytest.raises(HostRefused, match="no private key at") as caught:
        ssh_host(key_file=tmp_path / "nowhere").run(["true"])
    assert "key_file" in caught.value.hint
    (tmp_path / "junk").write_text("not a key")
    (tmp_path / "junk").chmod(0o600)
    with pytest.raises(HostRefused, match="can't be used"):
        ssh_host(key_file=tmp_path / "junk").run(["true"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_private_key_that_cannot_be_read_says_so(sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path) -> None:
    key = tmp_path / "locked"
    shutil.copy(sshd.key_file, key)
    key.chmod(0)
    with pytest.raises(HostRefused, match="can't be read"):
        ssh_host(key_file=key).run(["true"])


def test_a_passphrase_opens_the_key_and_shows_nowhere(sshd: OpenSSHServer, ssh_host: MakeHost, tmp_path: Path) -> None:
    key = tmp_path / "sealed"
    shutil.copy(sshd.key_file, key)
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", key], check=True)
    assert ssh_host(key_file=key, key_passphrase="open sesame").run(["true"]).code == 0
    for wrong in ("wrong words", None):
        with pytest.raises(HostRefused, match="wrong passphrase") as caught:
            ssh_host(key_file=key, key_passphrase=wrong).run(["true"])
        assert "wrong words" not in repr(caught.value)


def test_only_strong_algorithms_are_spoken(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.lines = ("Ciphers aes128-cbc",)
    own_sshd.start()
    with pytest.raises(HostRefused, match="no algorithm"):
        ssh_host(own_sshd).run(["true"])
    weak = own_sshd.variant("Ciphers aes128-ctr", "MACs hmac-sha1,hmac-md5")
    with pytest.raises(HostRefused, match="no algorithm"):
        ssh_host(weak).run(["true"])
    assert ssh_host(own_sshd.variant("Ciphers aes256-ctr")).run(["true"]).code == 0


def test_an_unreadable_file_of_known_hosts_is_not_taken_for_an_empty_one(ssh_host: MakeHost, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(HostRefused, match="can't be read"):
        ssh_host(known_hosts=tmp_path / "directory").run(["true"])


def test_a_port_where_nobody_listens_is_out_of_reach(own_sshd: OpenSSHServer, ssh_host: MakeHost) -> None:
    own_sshd.start()
    host = ssh_host(own_sshd)
    own_sshd.kill()
    with pytest.raises(HostUnreachable, match="refused"):
        host.run(["true"])
    with pytest.raises(HostUnreachable):
        ssh_host(hostname="host.invalid").run(["true"])
