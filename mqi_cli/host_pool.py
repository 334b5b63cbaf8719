"""The hosts of one process: each opened once, when first asked for, and shared by all its threads."""

from __future__ import annotations

import threading

from mqi_cli.config.loaded import Config
from mqi_cli.errors import RetryLater, UsageError
from mqi_cli.hosts.base import Host
from mqi_cli.plugins import Plugins
from mqi_cli.scheduler import Scheduler


class HostPool:
    """Opens hosts by their type. Close it at the end of the process."""

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins
        self._open: dict[str, Host] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Host:
        """Return a host of the config, without connecting. Raises `UsageError` for a name that the config does not have."""
        with self._lock:
            if name not in self._open:
                section = self._config.hosts.get(name)
                if section is None:
                    known = ", ".join(sorted(self._config.hosts)) or "none"
                    raise UsageError(f"the config has no host {name} (it has: {known})", hint="mqi config show")
                host_type = self._plugins.host_types[section.type]
                self._open[name] = host_type.open(name, section, self._config.state_dir)
            return self._open[name]

    def scheduler(self, name: str) -> Scheduler:
        """Return how a host starts runs. Raises `RetryLater` where no plugin of this machine brings it."""
        wanted = self._config.hosts[name].scheduler
        found = self._plugins.schedulers.get(wanted)
        if found is None:
            raise RetryLater(
                f"no plugin here brings the scheduler {wanted} of host {name}",
                hint="mqi plugin list; install the plugin, or change the host's `scheduler`",
            )
        return found

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            for host in self._open.values():
                host.close()
            self._open.clear()
