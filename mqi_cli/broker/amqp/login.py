"""Where the broker is and who we are there, as the config's section says it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mqi_cli.config.model import BrokerSection
from mqi_cli.errors import BrokerRefused, describe_os_error


@dataclass(frozen=True)
class Login:
    """Where the broker is and who we are there."""

    host: str
    port: int
    vhost: str
    user: str
    password: str = field(repr=False)
    heartbeat: int
    tls: ssl.SSLContext | None = None

    @property
    def place(self) -> str:
        """Name the broker in messages."""
        return f"{self.host}:{self.port}"


def read_login(section: BrokerSection) -> Login:
    """Read the config's section. Raises `BrokerRefused` for a certificate file that can't be used."""
    parts = urlsplit(section.url)
    secure = parts.scheme == "amqps"
    return Login(
        host=parts.hostname or "localhost",
        port=parts.port or (5671 if secure else 5672),
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username or "guest"),
        password=section.password.get_secret_value() if section.password else "",
        heartbeat=max(1, round(section.heartbeat)),
        tls=_tls(section) if secure else None,
    )


def _tls(section: BrokerSection) -> ssl.SSLContext:
    tls = section.tls
    try:
        context = ssl.create_default_context(cafile=_text(tls.ca_file))  # checks the certificate and the host's name
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, _text(tls.key_file))
    except OSError as error:  # of which ssl.SSLError is one
        raise BrokerRefused(
            f"a file that broker.tls names cannot be used: {describe_os_error(error)}",
            hint="ca_file, cert_file and key_file are PEM files that the user of mqi can read",
        ) from error
    return context


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
