"""The scanner's section of the config."""

from __future__ import annotations

from pydantic import Field

from mqi_cli import Duration, Section


class ScannerSection(Section):
    """Watching the sources."""

    interval: Duration = Field(10.0, description="How often the sources are looked at; 0 switches the scanner off.")
    recheck: Duration = Field(
        3600.0,
        gt=0,
        description="How often every file of a case that is at rest is looked at. In between only its directories are: "
        "a new, renamed or removed file shows at once, a file rewritten in place within this time.",
    )
