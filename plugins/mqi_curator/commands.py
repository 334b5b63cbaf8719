"""The command line of the curator: `mqi gpu …` and `mqi host …`. Thin; what they do is in the modules beside."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

_SETTINGS = {"help_option_names": ["-h", "--help"]}
gpu_app = typer.Typer(
    help="See what the GPUs do and who has them; hold one back.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
    rich_markup_mode=None,
)
host_app = typer.Typer(
    help="See how hosts are, try them out, trust their keys.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Format = Annotated[str, typer.Option("--format", help="table, plain, github, tsv, html, …")]
_Look = Annotated[bool, typer.Option("--look", "-l", help="Look at all hosts first, as the daemon does by itself.")]
_Gpu = Annotated[str, typer.Argument(metavar="GPU", help="Its UUID, the beginning of one, or host:index.")]
_Host = Annotated[str, typer.Argument(metavar="HOST", help="A host of the config.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@gpu_app.command("list")
def gpu_list(look: _Look = False, json: _Json = False, format: _Format = "table") -> None:
    """List the GPUs of all hosts: memory, use, temperature, processes, who has them."""
    from mqi_cli import Clock, Operator
    from mqi_curator.gpu_commands import list_gpus

    list_gpus(Operator.open(), look=look, now=Clock().now(), json=json, format=format)


@gpu_app.command("hold")
def gpu_hold(gpu: _Gpu) -> None:
    """Give a GPU to no further run. What runs on it goes on."""
    from mqi_cli import Operator
    from mqi_curator.gpu_commands import hold_gpu

    hold_gpu(Operator.open(), gpu, hold=True)


@gpu_app.command("release")
def gpu_release(gpu: _Gpu) -> None:
    """Give a GPU that was held to runs again."""
    from mqi_cli import Operator
    from mqi_curator.gpu_commands import hold_gpu

    hold_gpu(Operator.open(), gpu, hold=False)


@host_app.command("list")
def host_list(look: _Look = False, json: _Json = False, format: _Format = "table") -> None:
    """List the hosts of the config with what was last seen of them."""
    from mqi_cli import Clock, Operator
    from mqi_curator.host_commands import list_hosts

    list_hosts(Operator.open(), look=look, now=Clock().now(), json=json, format=format)


@host_app.command("test")
def host_test(host: _Host, json: _Json = False, format: _Format = "table") -> None:
    """Try a host out: name, connection, key, log-in, base directory, programs, clock, GPUs."""
    from mqi_cli import Clock, Operator
    from mqi_curator.host_commands import test_host

    test_host(Operator.open(), host, clock=Clock(), json=json, format=format)


@host_app.command("trust")
def host_trust(
    host: _Host,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Not enough for a changed key.")] = False,
    fingerprint: Annotated[
        str, typer.Option(metavar="SHA256:…", help="The fingerprint that the key must have; then nothing is asked.")
    ] = "",
) -> None:
    """Show the key that a host offers and trust it from now on."""
    from mqi_cli import Operator
    from mqi_curator.host_commands import trust_host

    trust_host(Operator.open(), host, fingerprint=fingerprint, yes=yes, ask=_asker())


@host_app.command("pause")
def host_pause(
    host: _Host, reason: Annotated[str, typer.Option(help="Shown wherever a case waits for the host.")] = ""
) -> None:
    """Begin nothing new on a host. What runs there goes on."""
    from mqi_cli import Operator, say

    operator = Operator.open()
    operator.host(host)
    operator.pause_host(host, reason)
    say(f"Host {host} is paused until: mqi host resume {host}")


@host_app.command("resume")
def host_resume(host: _Host) -> None:
    """Take a paused host into use again."""
    from mqi_cli import Operator, say

    operator = Operator.open()
    operator.host(host)
    operator.resume_host(host)
    say(f"Host {host} is in use again")


@host_app.command("clean")
def host_clean(
    host: _Host,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
    yes: _Yes = False,
) -> None:
    """Remove the directories of cancelled cases, and of those whose results are fetched and archived, from a host."""
    from mqi_cli import Operator
    from mqi_curator.host_commands import clean_host

    clean_host(Operator.open(), host, dry_run=dry_run, yes=yes, ask=_asker())


def _asker() -> Callable[[str], str] | None:
    """Return how to ask the operator; None where no terminal is there to answer."""
    return (
        (lambda question: str(typer.prompt(question, default="", show_default=False))) if sys.stdin.isatty() else None
    )
