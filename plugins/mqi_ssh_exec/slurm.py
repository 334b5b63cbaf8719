"""Scheduler `slurm`: the calls to `sbatch`, `squeue`, `sacct` and `scancel`, and what their answers mean. Pure.

Sources: the manual pages of Slurm 22.05, and what its programs printed when they were tried. The tag is both name and
comment of a job: `squeue` and `sacct` find it by its name, people by either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mqi_cli import Batch, Call, Completed, Queued, QueueState, Refusal, Resources

PREFIX = "mqi-"  # begins every tag of ours
LOOK_BACK = "now-30days"  # how old a job may be that sacct is asked for
NO_ACCOUNTING = "accounting storage is disabled"
_TIMEOUT = 60.0  # seconds; Slurm's programs try for some ten when their controller does not answer
_SILENT = ("unknown", "future", "powering_up", "booting", "rebooting")
_MARGIN = 90  # seconds that Slurm's own limit lies behind ours: the run ends itself first, and in order

# Every state of `man squeue` and `man sacct`, in the long form.
STATES = {
    "PENDING": QueueState.PENDING,
    "CONFIGURING": QueueState.PENDING,
    "RESV_DEL_HOLD": QueueState.PENDING,
    "RUNNING": QueueState.RUNNING,
    "COMPLETING": QueueState.RUNNING,  # its processes are being ended: they may live
    "SIGNALING": QueueState.RUNNING,
    "STAGE_OUT": QueueState.RUNNING,
    "RESIZING": QueueState.RUNNING,
    "SUSPENDED": QueueState.RUNNING,
    "STOPPED": QueueState.RUNNING,
    "COMPLETED": QueueState.ENDED,
    "FAILED": QueueState.ENDED,
    "CANCELLED": QueueState.CANCELLED,
    "REVOKED": QueueState.CANCELLED,
    "TIMEOUT": QueueState.TIMEOUT,
    "DEADLINE": QueueState.TIMEOUT,
    "OUT_OF_MEMORY": QueueState.MEMORY,
    "NODE_FAIL": QueueState.NODE,
    "BOOT_FAIL": QueueState.NODE,
    "LAUNCH_FAILED": QueueState.NODE,
    "RECONFIG_FAIL": QueueState.NODE,
    "PREEMPTED": QueueState.PREEMPTED,
    "REQUEUED": QueueState.REQUEUED,
    "REQUEUE_HOLD": QueueState.REQUEUED,
    "REQUEUE_FED": QueueState.REQUEUED,
    "SPECIAL_EXIT": QueueState.REQUEUED,
}

# What sbatch says when nothing was taken and the same may go well later.
_LATER = (
    "unable to contact slurm controller (connect failure)",
    "slurm temporarily unable to accept job",
    "queue limit of pending jobs",
    "job submit limit",
    "maximum number of jobs",
    "resource temporarily unavailable",
    "node configuration is not currently available",
    "slurm controller not responding",
    "unable to resolve",
)
# What slurmstepd writes about a job that took too much memory, with `OverMemoryKill` and with cgroups.
_OVER_MEMORY = ("exceeded memory limit", "oom-kill event", "oom_kill event")
# What it says when the job may have been taken and only the answer was lost.
_UNKNOWN = ("timed out", "zero bytes", "connection reset", "unexpected message", "communication", "transport endpoint")


class Slurm:
    """Gives runs to Slurm."""

    name = "slurm"

    def launch(self, batch: Batch) -> tuple[str, ...] | None:
        """Return the `sbatch` call. What a step's `extra` lines say can't change the tag: arguments go before lines."""
        return (
            "sbatch",
            "--parsable",
            f"--job-name={batch.tag}",
            f"--comment={batch.tag}",
            "--no-requeue",  # a run is begun again by a new attempt only, once the last is proven dead
            "--open-mode=append",
            f"--output={escaped(str(batch.log))}",
            "--chdir=/",
            *_arguments(batch.resources),
        )

    def script(self, batch: Batch) -> bytes:
        """Return the batch script: the step's `extra` lines for sbatch, then the command."""
        lines = "".join(f"#SBATCH {line}\n" for line in batch.resources.extra)
        return f"#!/bin/sh\n{lines}MQI_NODE=$SLURMD_NODENAME; export MQI_NODE\n{batch.command}\n".encode()

    def read_id(self, text: str) -> str:
        """Return the job's id from `--parsable` output: `ID` or `ID;CLUSTER`, in its last line."""
        lines = text.split()
        number = lines[-1].partition(";")[0] if lines else ""
        return number if number.isascii() and number.isdigit() else ""

    def refusal(self, text: str) -> Refusal:
        """Judge what sbatch wrote when it failed."""
        said = text.lower()
        if not said.strip() or any(each in said for each in _UNKNOWN):
            return Refusal.UNKNOWN
        return Refusal.LATER if any(each in said for each in _LATER) else Refusal.NEVER

    def look(self) -> Call:
        """Ask for this account's jobs, those that ended of late among them."""
        return Call(("squeue", "--me", "--noheader", "--states=all", "--format=%i|%j|%T|%N|%r"), timeout=_TIMEOUT)

    def read_look(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Read what squeue printed."""
        if completed.code != 0:
            return None
        rows = (line.split("|", 4) for line in completed.text.splitlines())
        return _newest(
            Queued(row[0], row[1], _state(row[2]), word=row[2], node=row[3], reason=row[4])
            for row in rows
            if len(row) == 5 and row[1].startswith(PREFIX)
        )

    def look_back(self, tags: Sequence[str]) -> Call | None:
        """Ask the accounting, which keeps what squeue forgets minutes after a job's end (`MinJobAge`)."""
        argv = ("sacct", "--noheader", "--parsable2", "--allocations", f"--starttime={LOOK_BACK}", "--duplicates")
        return Call(
            (*argv, "--format=JobIDRaw,JobName,State,NodeList,ExitCode", f"--name={','.join(tags)}"), timeout=_TIMEOUT
        )

    def read_look_back(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Read what sacct printed. None where Slurm keeps no accounts, or their server does not answer."""
        if completed.code != 0 or NO_ACCOUNTING in (completed.text + completed.stderr.decode("utf-8", "replace")):
            return None
        rows = (line.split("|") for line in completed.text.splitlines())
        return _newest(
            Queued(row[0], row[1], _state(row[2]), word=row[2].partition(" ")[0], node=_node(row[3]))
            for row in rows
            if len(row) == 5 and row[1].startswith(PREFIX)
        )

    def look_at_node(self, node: str) -> Call | None:
        """Ask how a node is."""
        return Call(("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T"), timeout=_TIMEOUT)

    def node_answers(self, completed: Completed) -> bool:
        """Whether the node's daemon has registered: it ends what the controller calls ended. `*` marks one that is silent."""
        words = set(completed.text.split())
        return completed.code == 0 and bool(words) and not any(word.endswith("*") or word in _SILENT for word in words)

    def read_log(self, text: str) -> QueueState | None:
        """Find the words of slurmstepd: without cgroups a job over its memory is called FAILED, and only they say why."""
        return QueueState.MEMORY if any(each in text for each in _OVER_MEMORY) else None

    def cancel(self, queued: Sequence[Queued], *, force: bool) -> Call:
        """Cancel jobs. Without `force` one that runs gets SIGTERM for its batch script alone, which ends the rest in order."""
        running = all(each.state is QueueState.RUNNING for each in queued)
        gently = ("--batch", "--signal=TERM") if running and not force else ()
        return Call(("scancel", *gently, *(each.id for each in queued)), timeout=_TIMEOUT)


def escaped(path: str) -> str:
    """Return a path for `--output`, in which `%` begins a placeholder."""
    return path.replace("%", "%%")


def _arguments(wanted: Resources) -> Iterable[str]:
    yield "--nodes=1"
    yield "--ntasks=1"
    if wanted.gpus:
        yield f"--gres=gpu:{wanted.gpus}"
    if wanted.cpus:
        yield f"--cpus-per-task={wanted.cpus}"
    if wanted.memory:
        yield f"--mem={-(-wanted.memory // 1024)}K"
    if wanted.time_limit:
        yield f"--time={-(-(wanted.time_limit + _MARGIN) // 60)}"  # whole minutes
    if wanted.partition:
        yield f"--partition={wanted.partition}"
    if wanted.account:
        yield f"--account={wanted.account}"


def _state(word: str) -> QueueState:
    # sacct: "CANCELLED by 1000". A word of a later Slurm means that the job is there; its records tell when it is over.
    return STATES.get(word.partition(" ")[0].rstrip("+"), QueueState.RUNNING)


def _node(text: str) -> str:
    return "" if text == "None assigned" else text


def _newest(found: Iterable[Queued]) -> dict[str, Queued]:
    """Keep one job for each tag: one that runs before one that waits, both before one that has ended, then the youngest."""
    best: dict[str, Queued] = {}
    for each in found:
        if each.tag not in best or _rank(each) > _rank(best[each.tag]):
            best[each.tag] = each
    return best


def _rank(each: Queued) -> tuple[int, int]:
    lives = {QueueState.RUNNING: 2, QueueState.PENDING: 1}.get(each.state, 0)
    return lives, int(each.id) if each.id.isascii() and each.id.isdigit() else 0
