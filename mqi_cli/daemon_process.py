"""The daemon's main process, from the lock to the last child's end."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TextIO

from mqi_cli.clock import Clock
from mqi_cli.config.load import load_config
from mqi_cli.config.loaded import Config
from mqi_cli.crew import Plan, plan_for
from mqi_cli.daemon import OWN_LOG, DaemonFiles, check_state_dir
from mqi_cli.errors import ConfigError, StateError
from mqi_cli.lock import Lock
from mqi_cli.notify import Notifier
from mqi_cli.plugins import Plugins, load_plugins
from mqi_cli.supervisor import Supervisor


def main(
    config: Config,
    plugins: Plugins,
    *,
    call: Callable[[Sequence[str]], None] | None = None,
    echo: TextIO | None = None,
) -> None:
    """Run the daemon until it is told to stop; with `echo` its logs go there too.

    `call` runs this program with other arguments: the processes are forked from this one then.

    Raises `AlreadyRunning` where another one has this state directory, `StateError` when it was taken away meanwhile.
    """
    check_state_dir(config.state_dir)
    files = DaemonFiles(config.state_dir)
    lock = Lock(files.lock)
    lock.acquire()
    environment = dict(os.environ)
    notifier = Notifier(environment)
    files.logs.mkdir(mode=0o700, exist_ok=True)
    with open(files.log(OWN_LOG), "a", opener=_private) as crashes:
        faulthandler.enable(crashes)
        if call is not None:
            _warm_up(config)
        try:
            supervisor = Supervisor(
                plan_for(config, plugins.lanes()),
                files,
                reload=_Reload(config.file, config.state_path),
                alone=lock.still_counts,
                environment=environment,
                notifier=notifier,
                clock=Clock(),
                random=SystemRandom(),
                echo=echo,
                call=call,
            )
            supervisor.run()
        finally:
            faulthandler.disable()
    # The lock is kept until the process is gone: who waits for it knows then that nothing is left.
    if supervisor.orphaned:
        raise StateError(f"{files.lock} was removed under the daemon", hint="never delete it; start the daemon again")


def _warm_up(config: Config) -> None:
    """Import what the processes will need, so that they share it. Nothing of it begins a thread or opens anything."""
    wanted = ["cases", "parts", "places", "messages"]
    names = ["mqi_cli.processes", *(f"mqi_cli.store.{each}" for each in wanted)]
    if config.broker is not None:
        names.append("mqi_cli.broker.rabbitmq")
    if any(host.type == "ssh" for host in config.hosts.values()):
        names += ["mqi_cli.hosts.ssh", "mqi_cli.hosts.ssh_files"]
    for each in names:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # a collection in a child would write to every object, and so copy every page


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


@dataclass(frozen=True)
class _Reload:
    """Reads the config file again and checks it whole before anything is changed."""

    file: Path | None
    state_path: Path

    def __call__(self) -> Plan:
        plugins = load_plugins(load_config(self.file, None).plugins.disable)
        config = load_config(self.file, plugins)
        if config.state_path != self.state_path:
            raise ConfigError("state.path cannot change while the daemon runs", hint="mqi daemon restart")
        return plan_for(config, plugins.lanes())
