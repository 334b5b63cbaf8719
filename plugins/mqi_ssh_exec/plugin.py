"""What mqi_ssh_exec registers: its config section, the stage `run`, the commands `mqi exec`, a check of the hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqi_cli import ConfigSection, hookimpl

if TYPE_CHECKING:
    import typer

    from mqi_cli import Check, CheckContext, Scheduler, Stage

LANE = "ssh-exec"


@hookimpl
def mqi_config() -> ConfigSection:
    """Give the section `ssh_exec`."""
    from mqi_ssh_exec.options import SshExecSection

    return ConfigSection("ssh_exec", SshExecSection)


@hookimpl
def mqi_stages() -> Sequence[Stage]:
    """Give the stage `run`."""
    from mqi_cli import Stage
    from mqi_ssh_exec.options import RunOptions, check_run
    from mqi_ssh_exec.plan import plan
    from mqi_ssh_exec.run import cancel, run

    return (
        Stage(
            "run",
            run,
            LANE,
            options=RunOptions,
            summary="Runs a command on a host, exactly once, whatever happens to connections and workers.",
            attempts=3,
            cancel=cancel,
            plan=plan,
            job=True,
            local=False,  # a worker on another machine runs commands with nothing but the config and the broker
            check=check_run,
        ),
    )


@hookimpl
def mqi_schedulers() -> Sequence[Scheduler]:
    """Give the ways of starting runs that come along."""
    from mqi_ssh_exec.direct import Direct
    from mqi_ssh_exec.slurm import Slurm

    return (Direct(), Slurm())


@hookimpl
def mqi_commands(app: typer.Typer) -> None:
    """Add `mqi exec`."""
    from mqi_ssh_exec.commands import exec_app

    app.add_typer(exec_app, name="exec")


@hookimpl
def mqi_checks(ctx: CheckContext) -> Sequence[Check]:
    """Look whether the hosts of `run` steps have what a run needs."""
    from mqi_ssh_exec.checks import check_hosts

    return check_hosts(ctx)
