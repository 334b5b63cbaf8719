"""The file of pinned host keys."""

from __future__ import annotations

import base64
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqi_cli.hosts.known_hosts import KnownHosts, host_key, known_name

ONE, TWO = (base64.b64encode(blob).decode() for blob in (b"one", b"two"))


@pytest.fixture
def known(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts")


def fingerprints(known: KnownHosts, name: str) -> list[str]:
    return [each.line.split()[2] for each in known.keys(name)]


def test_a_port_other_than_22_is_part_of_the_name() -> None:
    assert known_name("HPC.example.org", 22) == "hpc.example.org"
    assert known_name("hpc.example.org", 2222) == "[hpc.example.org]:2222"


def test_no_file_means_no_keys(known: KnownHosts) -> None:
    assert known.keys("hpc") == []


def test_keys_are_found_by_any_of_a_line_s_names(known: KnownHosts) -> None:
    known.path.write_text(f"# a comment\n\nhpc,HPC.example.org ssh-ed25519 {ONE} note\n[hpc]:22 ssh-rsa {TWO}\njunk\n")
    assert fingerprints(known, "hpc") == [ONE]
    assert fingerprints(known, "hpc.example.org") == [ONE]
    assert fingerprints(known, "example.org") == []


def test_hashed_names_are_recognised(known: KnownHosts) -> None:
    known.path.write_text(f"[hpc]:2222 ssh-ed25519 {base64.b64encode(b'x' * 51).decode()}\n")
    if subprocess.run(["ssh-keygen", "-q", "-H", "-f", known.path], capture_output=True).returncode:
        known.path.write_text(
            f"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa {ONE}\n"
        )  # from sshd(8): the name is 192.168.1.61
        assert fingerprints(known, "192.168.1.61") == [ONE]
        return
    assert "hpc" not in known.path.read_text()
    assert len(known.keys("[hpc]:2222")) == 1
    assert known.keys("hpc") == []


def test_revoked_keys_and_authorities_pin_nothing(known: KnownHosts) -> None:
    known.path.write_text(f"@revoked hpc ssh-ed25519 {ONE}\n@cert-authority hpc ssh-ed25519 {TWO}\n")
    assert known.keys("hpc") == []


def test_pinning_replaces_one_host_s_keys_and_leaves_the_others(known: KnownHosts) -> None:
    known.path.write_text(f"# kept\nhpc,other ssh-rsa {ONE}\nhpc ssh-ed25519 {ONE}\nthird ssh-rsa {ONE} note\n")
    known.pin("hpc", host_key("hpc", "ssh-ed25519", b"two"))
    assert known.path.read_text() == (f"# kept\nother ssh-rsa {ONE}\nthird ssh-rsa {ONE} note\nhpc ssh-ed25519 {TWO}\n")


def test_pinning_from_many_sides_loses_no_line(known: KnownHosts) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: known.pin(f"h{n}", host_key(f"h{n}", "ssh-rsa", b"one")), range(40)))
    assert all(fingerprints(known, f"h{n}") == [ONE] for n in range(40))
    assert {each.name for each in known.path.parent.iterdir()} == {"known_hosts", "known_hosts.lock"}


def test_a_fingerprint_is_written_as_openssh_writes_it() -> None:
    key = host_key("hpc", "ssh-ed25519", b"one")
    assert key.fingerprint == "SHA256:dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0"
