"""What a program on `type: local` knows of the environment of the process that starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqi_cli.config.model import LocalHostSection
from mqi_cli.hosts.local import LocalHost


def test_a_program_gets_a_plain_environment_without_the_daemons_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2")
    monkeypatch.setenv("MQI_CONFIG", "/etc/mqi.yaml")
    monkeypatch.setenv("LC_TIME", "C")
    host = LocalHost("here", LocalHostSection(type="local", base_dir=str(tmp_path)), tmp_path)

    once = host.run(["env"]).stdout.decode()
    with host.start(["env"]) as process:
        streamed = process.wait(10).stdout.decode()

    for text in (once, streamed):
        assert "hunter2" not in text
        assert "MQI_CONFIG" not in text
        assert "LC_TIME=C\n" in text
        assert "\nPATH=" in f"\n{text}"
