"""What `mqi doctor` looks at without any plugin: config, state, disk, secrets, broker, daemon. Changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mqi_cli.check import Check, Verdict
from mqi_cli.config.loaded import Config
from mqi_cli.daemon import DaemonFiles
from mqi_cli.errors import describe_os_error
from mqi_cli.plugins import Plugins
from mqi_cli.quantity import counted

_LITTLE_SPACE = 2e9  # bytes beside the state database: a warning
_NO_SPACE = 200e6  # a failure: SQLite needs room for its journal, the daemon for its logs


def check_config(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Say which config is used, and whether others can change it."""
    if config.file is None:
        yield Check("config", Verdict.WARN, "no config file was found: everything is at its default", "mqi init")
        return
    sections = (("host", config.hosts), ("source", config.sources), ("workflow", config.workflows))
    counts = ", ".join(counted(len(each), word) for word, each in sections)
    yield Check("config", Verdict.OK, f"{counts} in {config.file}")
    for warning in config.warnings:
        yield Check("config", Verdict.WARN, warning, "mqi config check")
    mode = _mode(config.file)
    if mode is not None and mode & 0o020:  # reading it refuses one that everybody may change
        text = f"its group may change {config.file} (mode {mode:o}), and so what is run"
        yield Check("config: mode", Verdict.WARN, text, f"chmod g-w {config.file}, unless the group is the operators'")


def check_plugins(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Name the plugins that take part and those that don't."""
    del config
    off = [each.name for each in plugins.found if each.state == "disabled"]
    text = ", ".join(each.name for each in plugins.found if each.state == "ok") or "none"
    yield Check("plugins", Verdict.OK, f"{text}; switched off: {', '.join(off)}" if off else text)
    for each in plugins.broken:
        yield Check(f"plugin {each.name}", Verdict.FAIL, each.problem, each.hint)


def check_state(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Look at the state database, its directory, and the SQLite that reads it."""
    del plugins
    from mqi_cli.sqlite import has_wal_reset_bug
    from mqi_cli.store import open_store
    from mqi_cli.store.database import file_system, journal_mode, refuse_unsafe_place, sqlite_version

    place = config.state_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"{place} can't be written by user id {os.getuid()}"
        yield Check("state directory", Verdict.FAIL, text, "set state.path in the config, or run mqi as its owner")
        return
    refuse_unsafe_place(config.state_path)
    kind = file_system(place)
    yield Check("state directory", Verdict.OK, f"{config.state_dir}{f' on {kind}' if kind else ''} can be written")
    mode = _mode(config.state_dir)
    if mode is not None and mode & 0o027:
        text = f"others may look into it (mode {mode:o}); the names of cases lie there"
        yield Check("state directory: mode", Verdict.WARN, text, f"chmod 700 {config.state_dir}")
    version = ".".join(map(str, sqlite_version()))
    if has_wal_reset_bug(sqlite_version()):
        text = f"{version} has a fault in its WAL; the slower rollback journal is used, which is safe"
        yield Check("SQLite", Verdict.WARN, text, "pip install --upgrade pysqlite3")
    else:
        yield Check("SQLite", Verdict.OK, f"{version}, journal mode {journal_mode()}")
    if not config.state_path.exists():
        yield Check("state database", Verdict.OK, "none yet; it is made when it is first needed")
        return
    store = open_store(config.state_path, read_only=True)
    try:
        alerts = store.switches.alerts()
    finally:
        store.close()
    yield Check("state database", Verdict.OK, f"{config.state_path.stat().st_size / 1e6:.1f} MB, opens")
    for alert in alerts:
        yield Check("alert", Verdict.WARN, alert["text"], alert["hint"])


def check_space(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Look at what is left on the disk of the state directory."""
    del plugins
    place = config.state_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield Check("disk space", Verdict.WARN, f"{place}: {describe_os_error(error)}")
        return
    text = f"{free / 1e9:.1f} GB left on the disk of {config.state_dir}"
    if free < _NO_SPACE:
        yield Check("disk space", Verdict.FAIL, text, "make room there; no work is taken while the disk is full")
    elif free < _LITTLE_SPACE:
        yield Check("disk space", Verdict.WARN, text, "make room there: mqi archive prune, old logs and backups")
    else:
        yield Check("disk space", Verdict.OK, text)


def check_keys(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Look at the private keys of the hosts, and at who may change which host keys are trusted.

    Files that hold secrets were checked when the config was read, which refuses those that others may read.
    """
    del plugins
    keys = {section.key_file for section in config.hosts.values() if hasattr(section, "key_file")}
    for key in sorted(keys):
        mode = _mode(key)
        if mode is None:
            yield Check(
                "private key", Verdict.FAIL, f"{key} can't be found or looked at", f"ssh-keygen -t ed25519 -f {key}"
            )
        elif mode & 0o077:
            yield Check("private key", Verdict.FAIL, f"others may read {key} (mode {mode:o})", f"chmod 600 {key}")
        elif not os.access(key, os.R_OK):
            yield Check(
                "private key", Verdict.FAIL, f"{key} can't be read by user id {os.getuid()}", "run mqi as its owner"
            )
        else:
            yield Check("private key", Verdict.OK, str(key))
    default = config.state_dir / "known_hosts"
    for known in sorted({getattr(section, "known_hosts", None) or default for section in config.hosts.values()}):
        mode = _mode(known)
        if mode is not None and mode & 0o022:
            text = f"others may change which host keys are trusted: {known} (mode {mode:o})"
            yield Check("known hosts", Verdict.FAIL, text, f"chmod go-w {known}")


def check_broker(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Connect to the broker and count its dead letters."""
    from mqi_cli.broker import QUEUE_FILE, open_broker

    kind = "RabbitMQ" if config.broker else "embedded queue"
    if config.broker is None and not (config.state_dir / QUEUE_FILE).exists():
        yield Check("broker", Verdict.OK, f"{kind}; it is made when it is first needed")
        return
    broker = open_broker(config)
    try:
        dead = {lane: depth.dead for lane in plugins.lanes() if (depth := broker.depth(lane)).dead}
    finally:
        broker.close()
    yield Check("broker", Verdict.OK, f"{kind} answers")
    if dead:
        text = ", ".join(f"{count} in {lane}" for lane, count in dead.items())
        yield Check("dead letters", Verdict.WARN, text, "mqi dead list")


def check_daemon(config: Config, plugins: Plugins) -> Iterator[Check]:
    """Look whether the daemon runs and all its children do."""
    del plugins
    files = DaemonFiles(config.state_dir)
    pid = files.running()
    if pid is None:
        yield Check("daemon", Verdict.WARN, "does not run: nothing happens by itself", "mqi daemon start")
        return
    status = files.read_status()
    if status is None:
        yield Check("daemon", Verdict.WARN, f"process {pid} is starting", "mqi daemon status")
        return
    yield Check("daemon", Verdict.OK, f"process {pid}, {len(status.children)} children, {status.state}")
    for child in status.broken:
        text = f"does not run: {child.last_exit or child.state}"
        yield Check(f"daemon: {child.name}", Verdict.FAIL, text, f"mqi daemon logs {child.name}")


# sources and hosts are the business of the plugins that watch them
CORE_CHECKS = {
    "config": check_config,
    "plugins": check_plugins,
    "state": check_state,
    "disk space": check_space,
    "private keys": check_keys,
    "broker": check_broker,
    "daemon": check_daemon,
}


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
