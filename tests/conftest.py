"""What every test gets: the real servers' fixtures, a loud word about those that are missing, an untouched environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from servers import MISSING

# How long an example takes says how busy the machine is, and nothing about us.
settings.register_profile("mqi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mqi")

# In the background of a script (`make test &`) Ctrl-C is ignored, and so it would be in all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.pop("PYTHONUNBUFFERED", None)  # it would hide output that comes late

pytest_plugins = [
    f"servers.{name}"
    for name in ("sshd", "rabbitmq", "slurm", "house")
    if (Path(__file__).parent / "servers" / f"{name}.py").is_file()
]


@pytest.fixture(autouse=True)
def _environment_is_left_as_found() -> Iterator[None]:
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    for variables in (before, after):
        variables.pop("PYTEST_CURRENT_TEST", None)  # pytest's own
    if before != after:
        os.environ.clear()
        os.environ.update(before)
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        pytest.fail(f"the test left environment variables changed: {', '.join(names)}", pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say at the very end, where nobody overlooks it, how much was not tested for want of a server."""
    yield
    servers: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _, found, server = reason.partition(MISSING)
        if found:
            servers[server] = servers.get(server, 0) + 1
    for server, count in servers.items():
        terminalreporter.write_sep("!", f"{count} TESTS NOT RUN: no {server}", red=True, bold=True)
