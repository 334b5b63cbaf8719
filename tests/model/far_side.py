"""A host with its runs, as plain dicts: what the helper on a real host promises, and nothing more.

At most one attempt of a part runs: a submission closes the gate of every lower attempt, and waits while one of them lives.
"""

from __future__ import annotations

from typing import Any

PartName = tuple[str, str, str]  # case key, step, part


class FarSide:
    """Runs by part and attempt: `{"state": "lives" | "well" | "badly" | "lost" | "closed", "gpus": {uuid, …}}`."""

    def __init__(self) -> None:
        self.runs: dict[PartName, dict[int, dict[str, Any]]] = {}

    def look(self, part: PartName, attempt: int) -> str:
        """Say how a run is; empty when there is none."""
        run = self.runs.get(part, {}).get(attempt)
        return run["state"] if run else ""

    def submit(self, part: PartName, attempt: int, gpus: set[str]) -> str:
        """Start a run unless it was started before; return its state, or `busy` while a lower attempt lives."""
        runs = self.runs.setdefault(part, {})
        if attempt not in runs:
            lower = [number for number in runs if number < attempt]
            if any(runs[number]["state"] == "lives" for number in lower):
                return "busy"
            for number in range(1, attempt):
                runs.setdefault(number, {"state": "closed", "gpus": set()})
            runs[attempt] = {"state": "lives", "gpus": gpus}
        return str(runs[attempt]["state"])

    def kill(self, part: PartName, attempt: int) -> None:
        """End a run and every lower one; what has not started never will."""
        runs = self.runs.setdefault(part, {})
        for number in range(1, attempt + 1):
            run = runs.setdefault(number, {"state": "closed", "gpus": set()})
            if run["state"] == "lives":
                run["state"] = "badly"

    def living(self) -> list[tuple[PartName, int, set[str]]]:
        """Return the runs that live."""
        return [
            (part, attempt, run["gpus"])
            for part, runs in sorted(self.runs.items())
            for attempt, run in sorted(runs.items())
            if run["state"] == "lives"
        ]

    def end(self, part: PartName, attempt: int, state: str) -> None:
        """Let a run end by itself."""
        self.runs[part][attempt]["state"] = state
