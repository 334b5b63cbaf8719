"""A systemd unit: its words, and what it lets the daemon write."""

from pathlib import Path

import pytest

from mqi_cli.config.loaded import Config
from mqi_cli.config.values import LocalPath
from mqi_cli.stage import Section
from mqi_cli.unit import quote, unit_text, worker_unit_text, writable


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/usr/bin/mqi", "/usr/bin/mqi"),
        ("/opt/my programs/mqi", '"/opt/my programs/mqi"'),
        ("50%$x", "50%%$$x"),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("", '""'),
    ],
)
def test_a_word_is_written_as_systemd_reads_it(word: str, written: str) -> None:
    assert quote(word) == written


class Filing(Section):
    """A plugin's section with places."""

    to: LocalPath
    copies: LocalPath


def test_the_daemon_may_write_what_the_config_names_up_to_the_placeholder() -> None:
    section = Filing(to=Path("/data/results/of {case_name}/x"), copies=Path("/var/lib/mqi/copies"))
    config = Config(file=None, state_path=Path("/var/lib/mqi/state.db"), sections={"filing": section})
    assert writable(config) == [Path("/data/results"), Path("/var/lib/mqi")]


def test_a_lone_worker_has_a_unit_without_what_only_the_daemon_does() -> None:
    config = Config(file=None, state_path=Path("/var/lib/mqi/state.db"))
    command = ["/opt/mqi", "worker", "run", "sftp"]
    worker = worker_unit_text(config, command, lane="sftp", user="mqi").splitlines()
    daemon = unit_text(config, ["/opt/mqi", "daemon", "start", "--foreground"], user="mqi").splitlines()

    assert "ExecStart=/opt/mqi worker run sftp" in worker
    assert "Type=exec" in worker
    assert any("/etc/systemd/system/mqi-sftp.service" in line for line in worker)
    for only_the_daemons in ("Type=notify", "WatchdogSec=60", "ExecReload=/bin/kill -HUP $MAINPID"):
        assert only_the_daemons in daemon
        assert only_the_daemons not in worker
    assert {"ProtectSystem=strict", "ReadWritePaths=-/var/lib/mqi", "NoNewPrivileges=yes"} <= set(worker) & set(daemon)
