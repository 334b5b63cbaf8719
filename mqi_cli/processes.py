"""The main functions of the daemon's child processes: conductor and worker. Each can be run by hand, too."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

from mqi_cli.broker import open_broker
from mqi_cli.broker.base import Broker, Outgoing
from mqi_cli.child import become_child
from mqi_cli.clock import Clock
from mqi_cli.conductor import Conductor
from mqi_cli.conductor_process import ConductorProcess
from mqi_cli.config.find import find_config
from mqi_cli.config.load import load_config
from mqi_cli.config.loaded import Config
from mqi_cli.crew import ChildState
from mqi_cli.daemon import DaemonFiles
from mqi_cli.errors import BrokerError, UsageError
from mqi_cli.host_pool import HostPool
from mqi_cli.intake import Intake
from mqi_cli.invocation import options
from mqi_cli.lock import Lock
from mqi_cli.logs import config_secrets, crashes_logged, setup_logging
from mqi_cli.message import EVENTS_LANE, Event, EventKind, encode
from mqi_cli.patrol import Finding, Patrol
from mqi_cli.patrolling import PatrolLoop, Round
from mqi_cli.plugins import Plugins, load_plugins
from mqi_cli.store import Store, open_store
from mqi_cli.worker import Worker


@crashes_logged()
def run_conductor() -> None:
    """Run the conductor until SIGTERM. Raises `AlreadyRunning` where another one moves the same cases."""
    beat = become_child()
    config, plugins = _load()
    setup_logging(config.daemon.log, beat.process or "conductor", secrets=config_secrets(config))
    lock = Lock(config.state_dir / "conductor.lock")
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock.acquire("a conductor")
    store, broker = open_store(config.state_path), open_broker(config, sole=EVENTS_LANE)
    process = ConductorProcess(
        config=config,
        plugins=plugins,
        store=store,
        broker=broker,
        beat=beat.turn,
        not_running=partial(_not_running, DaemonFiles(config.state_dir)),
    )
    _on_stop(process.ask_stop)
    try:
        process.run()
    finally:
        broker.close()
        store.close()
        lock.release()


@crashes_logged()
def run_worker(lane: str, *, threads: int, with_patrols: bool) -> None:
    """Serve a lane until SIGTERM, and go its patrols. Raises `UsageError` for a lane that no plugin has."""
    beat = become_child()
    config, plugins = _load()
    setup_logging(config.daemon.log, beat.process or lane, secrets=config_secrets(config))
    if lane not in plugins.lanes():
        raise UsageError(f"no plugin has a lane {lane}", hint=f"one of: {', '.join(plugins.lanes())}")
    broker = open_broker(config)
    # Where the state database is on this machine, a worker looks there before it begins what is overtaken already.
    store = open_store(config.state_path) if with_patrols or config.state_path.exists() else None
    worker = Worker(
        lane,
        config=config,
        plugins=plugins,
        broker=broker,
        store=store,
        threads=threads or config.lane(lane).threads,
        beat=beat.turn,
    )
    stop = threading.Event()
    loops = _patrol_threads(lane, config, plugins, broker, stop) if with_patrols else []

    def ask_stop() -> None:
        stop.set()
        worker.ask_stop()

    _on_stop(ask_stop)
    for loop in loops:
        loop.start()
    try:
        if any(stage.lane == lane for stage in plugins.stages.values()):
            worker.run()
        else:
            worker.idle()
    finally:
        stop.set()
        for loop in loops:
            loop.join(5.0)
        broker.close()
        if store is not None:
            store.close()


def _not_running(files: DaemonFiles) -> dict[str, str]:
    """Return the daemon's processes that it has given up on for now, each with the reason."""
    status = files.read_status()
    gave_up = (ChildState.FATAL, ChildState.REFUSED)
    return (
        {each.name: f"{each.state}, {each.last_exit}" for each in status.children if each.state in gave_up}
        if status
        else {}
    )


def _load() -> tuple[Config, Plugins]:
    file = find_config(options().config)
    plugins = load_plugins(load_config(file, None).plugins.disable)
    return load_config(file, plugins), plugins


def _on_stop(ask: Callable[[], None]) -> None:
    """SIGTERM and SIGINT ask to end; a second one ends at once."""
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        del frame
        if asked:
            sys.exit(128 + number)
        asked = True
        ask()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _patrol_threads(
    lane: str, config: Config, plugins: Plugins, broker: Broker, stop: threading.Event
) -> list[threading.Thread]:
    threads = []
    for patrol in plugins.patrols.values():
        interval = patrol.interval(config.sections.get(plugins.section_of(patrol)))
        if patrol.lane == lane and interval > 0:
            loop = _patrol_loop(patrol, interval, config, plugins, broker, stop)
            threads.append(threading.Thread(target=loop.run, name=f"patrol-{patrol.name}", daemon=True))
    return threads


def _patrol_loop(
    patrol: Patrol, interval: float, config: Config, plugins: Plugins, broker: Broker, stop: threading.Event
) -> PatrolLoop:
    clock = Clock()
    store: Store = open_store(config.state_path)
    hosts = HostPool(config, plugins)
    intake = Intake(Conductor(store, config, clock=clock))

    def make_round(reported: Callable[[Finding], None]) -> Round:
        return Round(
            patrol, config=config, plugins=plugins, hosts=hosts, intake=intake, store=store, clock=clock,
            stopping=stop.is_set, reported=reported,
        )  # fmt: skip

    def wake() -> None:
        event = Event(f"wake:{patrol.name}:{clock.elapsed():.6f}", EventKind.WAKE, patrol.name, clock.now())
        with contextlib.suppress(BrokerError):  # the conductor looks by itself, a little later
            broker.publish([Outgoing(EVENTS_LANE, event.id, encode(event))])

    def close() -> None:
        hosts.close()
        store.close()

    return PatrolLoop(patrol, make_round, interval=interval, stop=stop, wake_conductor=wake, close=close)
