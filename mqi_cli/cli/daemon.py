"""`mqi daemon`: start, stop and look after the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import Format, Json

if TYPE_CHECKING:
    from mqi_cli.cli.operator import Operator
    from mqi_cli.daemon import DaemonFiles

app = command_group("Start, stop and look after the daemon.")

Timeout = Annotated[
    str,
    typer.Option("--timeout", "-t", help="End by force after so long, as in 30s. Default: a little over stop_within."),
]


@app.command()
def start(
    foreground: Annotated[
        bool, typer.Option("--foreground", "-F", help="Stay in this terminal, as systemd wants it; logs show here too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="In the foreground: write logs to their files only.")
    ] = False,
) -> None:
    """Start the daemon and wait until its processes are up. Config and state are checked before anything is started."""
    operator = _checked()
    if foreground:
        import sys

        from mqi_cli.cli.main import call
        from mqi_cli.daemon_process import main

        main(operator.config, operator.plugins, call=call, echo=None if quiet else sys.stderr)
        return
    _start(operator)


@app.command()
def stop(timeout: Timeout = "") -> None:
    """Drain the daemon and end it. Runs on the hosts go on, and are adopted at the next start."""
    from mqi_cli.cli.output import say

    operator, files = _looking()
    say("the daemon has ended" if _stop(operator, files, timeout) else "the daemon is not running")


@app.command()
def restart(timeout: Timeout = "") -> None:
    """Stop the daemon, if it runs, and start it. Config and state are checked before it is stopped."""
    from mqi_cli.daemon import DaemonFiles
    from mqi_cli.errors import UsageError

    operator = _checked()
    files = DaemonFiles(operator.config.state_dir)
    status = files.read_status()
    if status is not None and status.managed_by:
        raise UsageError(f"this daemon is {status.managed_by}'s", hint="systemctl restart mqi")
    _stop(operator, files, timeout)
    _start(operator)


@app.command()
def reload() -> None:
    """Have the daemon take a changed config, once it is checked. Only processes that the change concerns are replaced."""
    from mqi_cli.cli.output import say
    from mqi_cli.daemon import DaemonFiles
    from mqi_cli.launch import reload as reload_daemon

    operator = _checked()
    status = reload_daemon(DaemonFiles(operator.config.state_dir), clock=operator.clock)
    say("the daemon is not running: mqi daemon start" if status is None else "the daemon has taken the config")


@app.command()
def status(json: Json = False, format: Format = "table") -> None:
    """Show the daemon's processes. Exit code 1 when it is not running, or not all of it is."""
    from mqi_cli.cli import daemon_views
    from mqi_cli.cli.output import dump, say, show

    operator, files = _looking()
    pid, found, now = files.running(), files.read_status(), operator.clock.now()
    if json:
        dump(daemon_views.as_json(pid, found))
    else:
        say(daemon_views.headline(pid, found, now))
        if found is not None:
            show(daemon_views.rows(found, now), daemon_views.COLUMNS, format=format)
    if pid is None or found is None or found.broken:
        raise typer.Exit(1)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="One process: daemon, conductor, sftp-1, … Default: all.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many lines.")] = 20,
) -> None:
    """Show the processes' logs, merged by time."""
    from mqi_cli.cli import daemon_views
    from mqi_cli.cli.output import say

    _, files = _looking()
    try:
        for line in daemon_views.log_lines(files, name, lines=lines, follow=follow):
            say(line)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def drain(reason: Annotated[str, typer.Argument(help="Why; shown with every case that waits for it.")] = "") -> None:
    """Begin no new work, here and on all machines; what runs goes on to its end."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say

    Operator.open().drain(True, reason)
    say("no new work is begun: mqi daemon undrain ends it")


@app.command()
def undrain() -> None:
    """Begin new work again."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say

    Operator.open().drain(False)
    say("new work is begun again")


@app.command()
def unit(
    user: Annotated[str, typer.Option("--user", help="The account that the daemon runs as. Default: yours.")] = "",
) -> None:
    """Print a systemd unit for this installation and config."""
    import sys

    from mqi_cli.cli.operator import Operator
    from mqi_cli.launch import foreground_command
    from mqi_cli.unit import unit_text

    operator = Operator.open()
    sys.stdout.write(unit_text(operator.config, foreground_command(operator.config), user=user or operator.actor))


def _looking() -> tuple[Operator, DaemonFiles]:
    from mqi_cli.cli.operator import Operator
    from mqi_cli.daemon import DaemonFiles

    operator = Operator.open(light=True)
    return operator, DaemonFiles(operator.config.state_dir)


def _checked() -> Operator:
    """Check the config, the plugins and the state database, so that nothing is started or stopped for nothing."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.daemon import check_state_dir

    operator = Operator.open()
    check_state_dir(operator.config.state_dir)
    operator.store.close()
    return operator


def _start(operator: Operator) -> None:
    from mqi_cli.cli.output import say
    from mqi_cli.daemon import DaemonFiles
    from mqi_cli.launch import start_in_background

    found = start_in_background(operator.config, clock=operator.clock)
    logs = DaemonFiles(operator.config.state_dir).logs
    say(f"the daemon is up (process {found.pid}, {len(found.children)} processes), logs: {logs}")


def _stop(operator: Operator, files: DaemonFiles, timeout: str) -> bool:
    from mqi_cli.cli.output import say
    from mqi_cli.config.values import parse_duration
    from mqi_cli.errors import UsageError
    from mqi_cli.launch import STOP_MARGIN
    from mqi_cli.launch import stop as stop_daemon

    try:
        within = parse_duration(timeout) if timeout else operator.config.daemon.stop_within + STOP_MARGIN
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from error
    return stop_daemon(files, within=within, clock=operator.clock, say=say)
