"""What `mqi doctor` asks of a host that commands run on: a shell, the usual programs, /proc, sessions that outlive us."""

from __future__ import annotations

from collections.abc import Iterator

from mqi_cli import Check, CheckContext, Completed, HostError, NoShell, Verdict
from mqi_ssh_exec.helper import helper_text
from mqi_ssh_exec.lookout import NOT_FOUND, first_words
from mqi_ssh_exec.slurm import PREFIX, Slurm


def check_hosts(ctx: CheckContext) -> list[Check]:
    """Check each host that a step `run` names."""
    names = sorted(set(_run_hosts(ctx)))
    checks = [_check(ctx, name) for name in names]
    return checks + [check for name in names if (check := _check_queue(ctx, name)) is not None]


def _check_queue(ctx: CheckContext, name: str) -> Check | None:
    if ctx.host_config(name).scheduler != Slurm.name:
        return None
    title, slurm = f"slurm on {name}", Slurm()
    calls = (slurm.look(), slurm.look_back([PREFIX]))
    try:
        answers = [ctx.host(name).run(call.argv, timeout=30.0) for call in calls if call]
    except HostError as error:
        return Check(title, Verdict.FAIL, error.what, error.hint or f"mqi host test {name}")
    return read_queue(title, *answers)


def read_queue(title: str, queue: Completed, past: Completed) -> Check:
    """Say whether Slurm answers on a host, and whether it keeps accounts."""
    slurm = Slurm()
    if slurm.read_look(queue) is None:
        why = first_words(queue)
        hint = "log in there and try: squeue --me"
        if queue.code == NOT_FOUND:
            hint = "put Slurm's programs into the PATH of that account's non-interactive logins; `ssh HOST squeue` must find it"
        return Check(title, Verdict.FAIL, f"squeue gives no answer there{': ' + why if why else ''}", hint)
    if slurm.read_look_back(past) is None:
        text = "squeue answers, sacct does not: how a job ended is only known while squeue lists it (MinJobAge)"
        return Check(title, Verdict.OK, text)
    return Check(title, Verdict.OK, "squeue and sacct answer")


def _run_hosts(ctx: CheckContext) -> Iterator[str]:
    for workflow in ctx.workflows.values():
        for step in workflow.steps:
            if step.stage.name == "run" and step.host in ctx.hosts:
                yield step.host


def _check(ctx: CheckContext, name: str) -> Check:
    title = f"runs on {name}"
    try:
        # The helper comes on standard input: a check leaves nothing on the host.
        completed = ctx.host(name).run(["/bin/sh", "-s", "probe"], stdin=helper_text(), timeout=30.0)
    except NoShell:
        return Check(
            title,
            Verdict.FAIL,
            "the account takes files but runs no programs",
            "give it a login shell, or name another host in the run steps",
        )
    except HostError as error:
        return Check(title, Verdict.FAIL, error.what, error.hint or f"mqi host test {name}")
    return read_probe(title, completed)


def read_probe(title: str, completed: Completed) -> Check:
    """Say what the helper's `probe` found."""
    lines = completed.text.splitlines()
    missing = [line.removeprefix("missing=") for line in lines if line.startswith("missing=")]
    if "probed=1" not in lines:
        return Check(
            title, Verdict.FAIL, "/bin/sh there gives no sensible answer", "look at the account's login scripts"
        )
    if missing:
        return Check(
            title, Verdict.FAIL, f"it lacks {', '.join(missing)}", "install it there (setsid is part of util-linux)"
        )
    if "logind=kills" in lines:
        return Check(
            title,
            Verdict.WARN,
            "systemd-logind ends what a user leaves running (KillUserProcesses): runs would die with the connection",
            "on that host, as root: loginctl enable-linger, for mqi's account there",
        )
    return Check(title, Verdict.OK, "sh, /proc and all programs that a run needs")
