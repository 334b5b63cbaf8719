"""The fixture `rabbitmq`: a real RabbitMQ node on loopback with ports, directories, cookie and epmd of its own.

Runs as root and as anybody; touches nothing of a RabbitMQ that the machine may have as a service. One node for each
test process that asks for it. `$MQI_TEST_RABBITMQ` names another RabbitMQ's `sbin` directory (say, a newer version's).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servers import free_port, missing

START_LIMIT = 90.0  # seconds; 5 to 10 on an idle machine
_MARK = "MQI_TEST_RABBITMQ_NODE"  # in the environment of every process of a node, so that none is left behind


class RabbitNode:
    """One RabbitMQ node. `url` carries no password; a test gives the password beside it, as the config does."""

    user = "mqi"

    def __init__(self, sbin: Path, directory: Path) -> None:
        self.password = secrets.token_hex(8)
        self.directory = directory
        self.port, self.tls_port = free_port(), free_port()
        self.ca_file = directory / "ca.pem"
        self._sbin = sbin
        self._mark = secrets.token_hex(8)
        self._epmd_port, self._dist_port = free_port(), free_port()
        self._name = f"mqi-{os.getpid()}-{self._mark[:6]}@localhost"
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._write_files()

    @property
    def url(self) -> str:
        """Where the node listens, without TLS."""
        return f"amqp://{self.user}@127.0.0.1:{self.port}/%2F"

    @property
    def tls_url(self) -> str:
        """Where the node listens with TLS; its certificate is for `localhost`, signed by the CA in `ca_file`."""
        return f"amqps://{self.user}@localhost:{self.tls_port}/%2F"

    def start(self) -> None:
        """Start the node and wait until it answers clients. Does nothing when it runs."""
        if self._node is not None and self._node.poll() is None:
            return
        if self._epmd is None or self._epmd.poll() is not None:
            self._epmd = self._run(_epmd(), "-port", str(self._epmd_port), "-address", "127.0.0.1")
            _wait(lambda: _listens(self._epmd_port), "epmd to listen")
        self._node = self._run(self._sbin / "rabbitmq-server")
        _wait(self._answers, "RabbitMQ to answer", on_failure=self._startup_output)

    def stop(self) -> None:
        """Stop the node in good order; its queues stay on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a power cut would; what it confirmed must be on disk."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run `rabbitmqctl` on the node and return what it prints. Takes two seconds: the tool starts a VM."""
        done = subprocess.run(
            [self._sbin / "rabbitmqctl", "--quiet", "--node", self._name, *arguments],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def has_on_disk(self, queue: str) -> bool:
        """Whether a quorum queue would be found again after a sudden death of the node."""
        name = re.compile(rb"_" + re.escape(queue.encode()) + rb"(?!\.dead)")
        return any(name.search(each.read_bytes()) for each in self.directory.glob("data/*/quorum/*/names.dets"))

    def close(self) -> None:
        """End the node, its epmd and whatever either started, and remove its files."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        for pid in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait(lambda: not self._marked(), "the node's processes to end")
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write_files(self) -> None:
        for name in ("home", "data", "log"):
            (self.directory / name).mkdir()
        cookie = self.directory / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "env.conf").write_text("")  # instead of /etc/rabbitmq/rabbitmq-env.conf
        _write_certificates(self.directory)
        (self.directory / "rabbitmq.conf").write_text(
            f"""
            listeners.tcp.1 = 127.0.0.1:{self.port}
            listeners.ssl.1 = 127.0.0.1:{self.tls_port}
            ssl_options.cacertfile = {self.ca_file}
            ssl_options.certfile = {self.directory / "server.pem"}
            ssl_options.keyfile = {self.directory / "server.key"}
            ssl_options.verify = verify_none
            default_user = {self.user}
            default_pass = {self.password}
            loopback_users = none
            disk_free_limit.absolute = 20MB
            vm_memory_high_watermark.absolute = 1GB
            num_acceptors.tcp = 2
            num_acceptors.ssl = 2
            """
        )

    def _environment(self) -> dict[str, str]:
        at = self.directory
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return kept | {
            _MARK: self._mark,
            "HOME": str(at / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_CRASH_DUMP_BYTES": "0",
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script then becomes the virtual machine: one process to signal
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(at / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(at / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(at / "data" / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(at / "data"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            # One scheduler, which sleeps at once when idle: the tests' machine has better things to do.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _run(self, *argv: str | Path) -> subprocess.Popen[bytes]:
        with (self.directory / "log" / "output").open("ab") as output:
            return subprocess.Popen(
                [str(each) for each in argv],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        if self._node is None or self._node.poll() is not None:
            raise AssertionError(f"RabbitMQ ended while it started: {self._startup_output()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as client:
                client.sendall(b"AMQP\x00\x00\x09\x01")
                return client.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def _startup_output(self) -> str:
        return (self.directory / "log" / "output").read_text(errors="replace")[-3000:]

    def _end(self, signal_number: signal.Signals) -> None:
        if self._node is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._node.pid, signal_number)
        self._node.wait(timeout=60)
        self._node = None
        # Its helper processes end a moment later; until then they hold its ports.
        epmd = self._epmd.pid if self._epmd else 0
        _wait(lambda: not self._marked() - {epmd}, "the node's processes to end")

    def _marked(self) -> set[int]:
        """Return the processes of this node, wherever they went (Linux; elsewhere the group must do)."""
        line = f"{_MARK}={self._mark}".encode()
        found = set()
        for each in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if line in each.read_bytes().split(b"\0"):
                    found.add(int(each.parent.name))
        return found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _wait(condition, what: str, *, on_failure=lambda: "") -> None:  # type: ignore[no-untyped-def]
    limit = time.monotonic() + START_LIMIT
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {START_LIMIT:.0f} s for {what} {on_failure()}")
        time.sleep(0.05)


def _epmd() -> Path:
    for each in (shutil.which("epmd"), *Path("/usr/lib/erlang").glob("erts-*/bin/epmd")):
        if each:
            return Path(each)
    raise AssertionError("erl is installed without epmd")


def find_sbin() -> Path | None:
    """Return the directory of RabbitMQ's own scripts. Debian's wrappers in /usr/sbin insist on root and `su`."""
    if named := os.environ.get("MQI_TEST_RABBITMQ"):
        return Path(named)
    own = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    found = own[-1] if own else shutil.which("rabbitmq-server")
    return Path(found).parent if found else None


def _write_certificates(directory: Path) -> None:
    """Write a CA of this node alone and the node's certificate for the name `localhost`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("mqi test CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        else:
            usage = x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(ca_key, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(certificate("mqi test CA", ca_key, ca=True).public_bytes(pem))
    (directory / "server.pem").write_bytes(certificate("localhost", key, ca=False).public_bytes(pem))
    (directory / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="session")
def _rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    sbin = find_sbin()
    if sbin is None:
        missing("RabbitMQ", package="rabbitmq-server")
    node = RabbitNode(sbin, tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def rabbitmq(_rabbitmq_node: RabbitNode) -> RabbitNode:
    """A running RabbitMQ node, shared by the tests of this process: use a prefix of your own. May be stopped or killed."""
    _rabbitmq_node.start()
    return _rabbitmq_node
