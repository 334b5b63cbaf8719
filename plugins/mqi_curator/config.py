"""The curator's section of the config: how often it looks, how it asks for GPUs, when it raises an alert."""

from __future__ import annotations

from pydantic import Field, model_validator

from mqi_cli import Duration, Section


class AlertsSection(Section):
    """The limits. One alert when a limit is passed and one when it is well; null switches a limit off."""

    temperature: int | None = Field(90, ge=30, le=150, description="Hottest GPU of a host, in °C.")
    gpu_memory_percent: float | None = Field(None, gt=0, le=100, description="Fullest GPU memory of a host.")
    gpu_utilization_percent: float | None = Field(None, gt=0, le=100, description="Busiest GPU of a host.")
    disk_free_percent: float | None = Field(5.0, ge=0, lt=100, description="Free space below base_dir.")
    load_per_core: float | None = Field(4.0, gt=0, description="One-minute load average for each core.")


class CuratorSection(Section):
    """Watching hosts and GPUs."""

    interval: Duration = Field(30.0, description="How often each host is looked at; 0 switches the curator off.")
    gpu_command: tuple[str, ...] = Field(
        ("nvidia-smi",), description="The program that answers nvidia-smi's queries, as a list; [] looks at no GPUs."
    )
    gpu_timeout: Duration = Field(
        10.0, ge=1, le=120, description="A query that takes longer counts as hung; a sick driver can hang for ever."
    )
    clear_after: Duration | None = Field(
        None,
        description="So long after the last that was done of it, by hand too, a case whose results are fetched and archived "
        "goes from its hosts, where its archive step left it there (clear_host: false); null: only by `mqi host clean`.",
    )
    alerts: AlertsSection = Field(default_factory=AlertsSection, description="When to raise an alert.")

    @model_validator(mode="after")
    def _check_gpu_command(self) -> CuratorSection:
        if any(not item or "\0" in item for item in self.gpu_command):
            raise ValueError("gpu_command holds an empty word")
        return self
