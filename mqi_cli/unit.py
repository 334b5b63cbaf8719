"""The systemd unit of this installation: what it may write, when it is restarted, how it is ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mqi_cli.config.crosscheck import option_places, section_places
from mqi_cli.config.loaded import Config
from mqi_cli.errors import EXIT_ALREADY_RUNNING, EXIT_CONFIG, EXIT_PLUGIN, EXIT_USAGE

_STOP_MARGIN = 15.0  # seconds: the conductor's own end comes after the workers'


def unit_text(config: Config, command: Sequence[str], *, user: str) -> str:
    """Return a unit file that runs `command` (the daemon in the foreground) as `user`."""
    return _unit(
        config,
        name="mqi",
        made_by="mqi daemon unit",
        description="mqi, the case pipeline",
        service=[
            "Type=notify",
            "NotifyAccess=main",
            f"User={user}",
            f"ExecStart={' '.join(quote(each) for each in command)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            *_ending(_has_local(config)),
            f"TimeoutStopSec={config.daemon.stop_within + _STOP_MARGIN:.0f}",
            "TimeoutStartSec=120",
            "WatchdogSec=60",
        ],
    )


def worker_unit_text(config: Config, command: Sequence[str], *, lane: str, user: str) -> str:
    """Return a unit file that runs `command` (one worker of a lane, on a machine without the daemon) as `user`."""
    return _unit(
        config,
        name=f"mqi-{lane}",
        made_by=f"mqi worker unit {lane}",
        description=f"mqi, a worker of lane {lane}",
        service=[
            "Type=exec",
            f"User={user}",
            f"ExecStart={' '.join(quote(each) for each in command)}",
            *_ending(_has_local(config)),
            f"TimeoutStopSec={config.daemon.stop_within + _STOP_MARGIN:.0f}",
        ],
    )


def _unit(config: Config, *, name: str, made_by: str, description: str, service: Sequence[str]) -> str:
    never = " ".join(str(code) for code in (EXIT_USAGE, EXIT_CONFIG, EXIT_PLUGIN, EXIT_ALREADY_RUNNING))
    lines = [
        f"# Made by `{made_by}`. Put it at /etc/systemd/system/{name}.service, then:",
        f"#   systemctl daemon-reload && systemctl enable --now {name}",
        "",
        "[Unit]",
        f"Description={description}",
        "Wants=network-online.target",
        "After=network-online.target remote-fs.target",
        "",
        "[Service]",
        *service,
        "Restart=on-failure",
        "RestartSec=10",
        "# wrong arguments, config or plugins, and a daemon that runs already: starting again can't help",
        f"RestartPreventExitStatus={never}",
        "",
        "# It writes here and nowhere else; add what your own programs and plugins write to.",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        *(f"ReadWritePaths=-{quote(str(path))}" for path in writable(config)),
        *_hardening(_has_local(config)),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def _has_local(config: Config) -> bool:
    return any(section.type == "local" for section in config.hosts.values())


def _ending(local: bool) -> list[str]:
    if not local:
        return ["KillMode=mixed"]
    return [
        "# Runs on a host of type local are to outlive a restart of the daemon. It ends its own processes itself.",
        "KillMode=process",
    ]


def _hardening(local: bool) -> list[str]:
    always = [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictSUIDSGID=yes",
        "RestrictRealtime=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
    ]
    if local:  # programs on this machine need its GPUs, and perhaps containers
        return always
    return [
        *always,
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ]


def writable(config: Config) -> list[Path]:
    """Return the directories that the daemon writes to, as far as the config tells; none below another of them."""
    found = {config.state_dir.absolute()}
    for section in config.hosts.values():
        if section.type == "local":
            found.add(Path(section.base_dir).expanduser())
    found.update(Path(path) for _, path in option_places(config.workflows))
    for name, section in config.sections.items():
        found.update(Path(path) for _, path in section_places(section, (name,)))
    paths = {path for path in found if path.is_absolute() and path != Path("/")}
    return sorted(path for path in paths if not any(other in path.parents for other in paths))


def quote(text: str) -> str:
    """Return a word as systemd reads it back: `%`, `$`, quotes, backslashes and spaces kept."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) or not text else text
