"""What a plugin says to `mqi doctor`: one line a check, and the command that mends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from mqi_cli.hosts.base import Host
from mqi_cli.patrol import SourceView
from mqi_cli.stage import Workflow


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of `mqi doctor`. `mend` is the command or the act that puts it right; empty for ok."""

    name: str
    verdict: Verdict
    text: str
    mend: str = ""


class CheckContext(Protocol):
    """What a check is given."""

    config: Any  # the plugin's own section
    sources: Sequence[SourceView]
    hosts: Sequence[str]
    workflows: Mapping[str, Workflow]  # to see what options the plugin's stages are given

    def host(self, name: str) -> Host:
        """Return a host of the config."""

    def host_config(self, name: str) -> Any:
        """Return a host's section of the config."""
