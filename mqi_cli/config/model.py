"""The core's sections of `mqi.yaml`, each key declared once with its type, default and meaning.

Plugins bring their sections, the options of their stages and further host types through the plugin contract.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from mqi_cli.config.values import Duration, LocalPath, Rate, Secret, Size, TimeOfDay
from mqi_cli.stage import Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
STEP_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
DIRECT = "direct"  # the default of `scheduler`: no queue
Name = Annotated[str, Field(pattern=NAME)]


class StateSection(Section):
    """Where the state database lies."""

    path: LocalPath | None = Field(None, description="The state database. Default: mqi/state.db below $XDG_STATE_HOME.")
    key_salt: Secret | None = Field(None, description="Makes case keys unguessable; the same on every machine.")


class TlsSection(Section):
    """TLS of the broker's connection; used when the URL begins with `amqps://`."""

    ca_file: LocalPath | None = Field(None, description="CA certificates, PEM. Default: the system's.")
    cert_file: LocalPath | None = Field(None, description="This client's certificate, PEM.")
    key_file: LocalPath | None = Field(None, description="This client's private key, PEM.")


def _check_url(text: str) -> str:
    try:
        url = urlsplit(text)
        password, _ = url.password, url.port
    except ValueError:
        raise ValueError("not a URL; write amqps://user@host:5671/vhost") from None  # its text may hold a password
    if password is not None:
        raise ValueError("a secret never stands here; write the URL without it, and password_file: FILE")
    if url.scheme not in ("amqp", "amqps") or not url.hostname:
        raise ValueError("not a broker's URL; write amqp://user@host:5672/vhost or amqps://…")
    return text


class BrokerSection(Section):
    """RabbitMQ. Left out: the embedded queue, one machine, no server."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="amqp://user@host:5672/vhost or amqps://…, without the password."
    )
    password: Secret | None = Field(None, description="By ${ENV} or by password_file, never in clear.")
    prefix: Name = Field("mqi", description="Begins every queue's name, so that two installations share a broker.")
    heartbeat: Duration = Field(25.0, description="How often both ends prove that they live.")
    tls: TlsSection = Field(default_factory=TlsSection, description="For amqps:// only.")


class BandwidthWindow(Section):
    """A rate for a part of the day, by this machine's clock. One that ends before it begins spans midnight."""

    start: TimeOfDay = Field(alias="from", description="When it begins: 07:00.")
    to: TimeOfDay = Field(description="When it ends.")
    rate: Rate = Field(description="Bytes a second: 20MB/s.")


class HostLimits(Section):
    """What a host may be loaded with."""

    connections: int = Field(
        6,
        ge=1,
        le=64,
        description="SSH connections at once, of all processes of this machine; one that finds all taken still opens one.",
    )
    bandwidth: Rate | tuple[BandwidthWindow, ...] | None = Field(
        None,
        description="Bytes a second of all transfers of this machine: 50MB/s; or a list of {from, to, rate}, "
        "of which the first that holds counts. Default: no limit.",
    )
    jobs: int = Field(8, ge=1, description="Runs at once, of all cases.")


def _check_base_dir(text: str) -> str:
    if text != "~" and not text.startswith(("/", "~/")):
        raise ValueError("must be absolute, or begin with ~/ (the account's home)")
    return text


class HostSection(Section):
    """What every host has."""

    type: str = Field(description="ssh, local, or a type that a plugin brings.")
    base_dir: Annotated[str, AfterValidator(_check_base_dir)] = Field(
        description="All of mqi's directories lie below it; absolute or ~/…"
    )
    scheduler: str = Field(
        DIRECT, description="How runs are started: direct (processes of the host), slurm, or a plugin's."
    )
    limits: HostLimits = Field(default_factory=HostLimits, description="What the host may be loaded with.")

    @property
    def leases_gpus(self) -> bool:
        """Whether GPUs are given to runs by us; a queue gives them itself."""
        return self.scheduler == DIRECT


class LocalHostSection(HostSection):
    """`type: local`: this machine, no SSH."""

    type: Literal["local"]


class SshHostSection(HostSection):
    """`type: ssh`: another machine, over SSH with a key and a pinned host key."""

    type: Literal["ssh"]
    hostname: str = Field(description="Name or address.")
    port: int = Field(22, ge=1, le=65535, description="The SSH server's port.")
    user: str = Field(description="The account there.")
    key_file: LocalPath = Field(Path("~/.ssh/id_ed25519").expanduser(), description="The private key.")
    key_passphrase: Secret | None = Field(None, description="By ${ENV} or by key_passphrase_file.")
    known_hosts: LocalPath | None = Field(None, description="Pinned host keys. Default: known_hosts beside the state.")
    connect_timeout: Duration = Field(15.0, description="For the connection, the greeting and the log-in, each.")
    idle_timeout: Duration = Field(60.0, description="No byte for so long means that the far side is gone.")


class CompleteWhen(Section):
    """When a case is complete: exactly one of the three, or the word `manual`."""

    quiet_for: Duration | None = Field(None, description="No size, time or inode changed for so long, by our clock.")
    marker: str | None = Field(None, description="A file of this name in the case directory, written last.")
    manifest: str | None = Field(None, description="A checksum file (sha256sum format) that the files must match.")
    manual: bool = Field(False, description="Only what `mqi case add` names.")


def _parse_complete_when(value: Any) -> Any:
    if value == "manual":
        return {"manual": True}
    if isinstance(value, dict) and len([key for key in ("quiet_for", "marker", "manifest") if value.get(key)]) != 1:
        if value.get("manual") is True:
            return value
        raise ValueError("name exactly one: {quiet_for: 30s}, {marker: _CASE_READY}, {manifest: SHA256SUMS} or manual")
    return value


class SourceSection(Section):
    """A directory that is watched for cases."""

    path: LocalPath = Field(description="The directory. It is only read.")
    name: Name | None = Field(
        None, description="Names the source everywhere; the same on every machine. Default: the path's last part."
    )
    depth: int = Field(1, ge=1, le=8, description="How far below the path a case begins.")
    complete_when: Annotated[
        CompleteWhen, BeforeValidator(_parse_complete_when, json_schema_input_type=CompleteWhen | Literal["manual"])
    ] = Field(CompleteWhen(quiet_for=30.0), description="The rule that decides that a case is complete.")
    workflow: Name = Field(description="What is done with its cases.")
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first where cases wait for one thing.")


class LaneSection(Section):
    """How many workers serve a lane on this machine."""

    processes: int = Field(1, ge=0, le=64, description="Worker processes; 0 when the lane is served elsewhere.")
    threads: int = Field(4, ge=1, le=64, description="Commands at once in each process.")
    memory: Size | None = Field(None, description="A worker that grows beyond it is replaced.")


class LogSection(Section):
    """The processes' logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is written.")
    format: Literal["text", "json"] = Field("text", description="One line an event, as text or as JSON.")
    max_size: Size = Field(10_000_000, description="A log file is rotated at this size.")
    keep: int = Field(5, ge=1, le=100, description="Rotated files that are kept.")


class DaemonSection(Section):
    """How the daemon runs."""

    stop_within: Duration = Field(30.0, description="A stop drains for so long, then ends what is left.")
    lease: Duration = Field(60.0, ge=3.0, description="A worker that gives no sign for so long has lost its part.")
    retry_first: Duration = Field(10.0, description="Delay before the second try; doubles with each further one.")
    retry_most: Duration = Field(900.0, description="The longest delay between two tries.")
    keep_log: Duration = Field(
        730 * 86400.0,
        ge=86400.0,
        description="Entries of the cases' logs in the state database are kept for so long; cases and attempts for ever.",
    )
    log: LogSection = Field(default_factory=LogSection, description="The processes' logs.")


class PluginsSection(Section):
    """Which plugins take part."""

    disable: tuple[str, ...] = Field((), description="Names of plugins that are left out.")


class CoreSections(Section):
    """Everything at the top level of `mqi.yaml` that is the core's. Hosts and steps are checked with the plugins' models."""

    state: StateSection = Field(default_factory=StateSection, description="Where the state database lies.")
    broker: BrokerSection | None = Field(None, description="RabbitMQ; left out: the embedded queue.")
    hosts: dict[Name, Any] = Field(default_factory=dict, description="Places where files go and commands run.")
    sources: tuple[SourceSection, ...] = Field((), description="Directories that are watched for cases.")
    workflows: dict[Name, Any] = Field(default_factory=dict, description="Ordered lists of steps.")
    workers: dict[str, LaneSection] = Field(default_factory=dict, description="Workers of each lane on this machine.")
    daemon: DaemonSection = Field(default_factory=DaemonSection, description="How the daemon runs.")
    plugins: PluginsSection = Field(default_factory=PluginsSection, description="Which plugins take part.")
