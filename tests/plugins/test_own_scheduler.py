"""A third party's scheduler: brought by the hook, named in a host's config, used by the stage `run` like Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from exec.turns import Bench
from mqi_cli import GiveUp
from mqi_cli.config.model import LocalHostSection
from mqi_cli.errors import ConfigError, PluginError
from mqi_cli.hosts.local import LocalHost

# A whole queue: a directory, in which a job is a file; it begins at once, in a session of its own.
PLUGIN = """
from mqi_cli import Call, Queued, QueueState, Refusal

PUT = 'cp "$2" "$0/$1.job" || exit 1; { setsid sh "$0/$1.job" & } >/dev/null 2>&1 </dev/null; echo "$1"'
LIST = 'cd "$0" && ls | sed -n "s/[.]job$//p"'


class Spool:
    name = "spool"
    directory = ""

    def launch(self, batch):
        return ("sh", "-c", PUT, self.directory, batch.tag)

    def script(self, batch):
        return f"{batch.command}\\n".encode()

    def read_id(self, text):
        return text.strip()

    def refusal(self, text):
        return Refusal.NEVER

    def look(self):
        return Call(("sh", "-c", LIST, self.directory))

    def read_look(self, completed):
        return {tag: Queued(tag, tag, QueueState.RUNNING, "listed") for tag in completed.text.split()}

    def look_back(self, tags):
        return None

    def read_look_back(self, completed):
        return None

    def look_at_node(self, node):
        return None

    def node_answers(self, completed):
        return False

    def read_log(self, text):
        return None

    def cancel(self, queued, *, force):
        return Call(("true",))


@hookimpl
def mqi_schedulers():
    return [Spool()]
"""


@pytest.fixture
def bench(shelf, tmp_path):
    shelf.add("spooler", PLUGIN)
    scheduler = shelf.load().schedulers["spool"]
    scheduler.directory = str(tmp_path / "spool")
    for name in ("spool", "far"):
        (tmp_path / name).mkdir()
    host = LocalHost("far", LocalHostSection(type="local", base_dir=str(tmp_path / "far"), scheduler="spool"), tmp_path)
    made = Bench(tmp_path, host, scheduler)
    yield made
    host.close()
    made.end_all()


def test_a_run_goes_through_the_queue_of_a_third_party(bench: Bench) -> None:
    ctx = bench.context("echo made >dose", outputs=["dose"])
    assert bench.drive(ctx)[0].facts["outputs"] == 1
    assert [each.name for each in Path(bench.scheduler.directory).iterdir()] == [f"{bench.job(ctx).tag}.job"]  # type: ignore[attr-defined]


def test_its_refusal_holds_the_case(bench: Bench) -> None:
    Path(bench.scheduler.directory).rmdir()  # type: ignore[attr-defined]
    with pytest.raises(GiveUp, match="spool refuses it: cp: "):
        bench.drive(bench.context("true"))


def test_a_scheduler_that_nobody_brings_is_a_problem_of_the_config(shelf, tmp_path) -> None:
    from mqi_cli.config.load import load_config

    shelf.add("spooler", PLUGIN)
    file = tmp_path / "mqi.yaml"
    file.write_text("hosts: {here: {type: local, base_dir: /x, scheduler: spol}}\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_config(file, shelf.load())
    assert any("no scheduler 'spol'" in each and "spool" in each for each in caught.value.problems)


def test_two_schedulers_of_one_name_are_refused(shelf) -> None:
    shelf.add("spooler", PLUGIN)
    shelf.add("another", PLUGIN)
    with pytest.raises(PluginError, match="both offer a scheduler named 'spool'"):
        shelf.load().schedulers  # noqa: B018


def test_what_is_no_scheduler_is_refused(shelf) -> None:
    shelf.add("odd", "@hookimpl\ndef mqi_schedulers():\n    return [object()]")
    with pytest.raises(PluginError, match="mqi_schedulers must return a list of Scheduler"):
        shelf.load().schedulers  # noqa: B018
