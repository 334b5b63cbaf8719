"""Scheduler `direct`: no queue. The helper starts a run itself, as a process of the host, and its records tell the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mqi_cli import Batch, Call, Completed, Queued, QueueState, Refusal


class Direct:
    """Starts runs at once, on the host itself."""

    name = "direct"

    def launch(self, batch: Batch) -> tuple[str, ...] | None:
        """Leave the start to the helper."""
        del batch
        return None

    def script(self, batch: Batch) -> bytes:
        """Return the command: nothing has to be told to a queue."""
        return f"{batch.command}\n".encode()

    def read_id(self, text: str) -> str:
        """Return no id: there is no queue that gave one."""
        del text
        return ""

    def refusal(self, text: str) -> Refusal:
        """Take nothing for certain."""
        del text
        return Refusal.UNKNOWN

    def look(self) -> Call:
        """Ask nobody."""
        return Call(("true",))

    def read_look(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Find nothing in a queue."""
        del completed
        return {}

    def look_back(self, tags: Sequence[str]) -> Call | None:
        """Have no past to ask."""
        del tags
        return None

    def read_look_back(self, completed: Completed) -> Mapping[str, Queued] | None:
        """Find no past."""
        del completed
        return None

    def look_at_node(self, node: str) -> Call | None:
        """Ask nobody."""
        del node
        return None

    def node_answers(self, completed: Completed) -> bool:
        """Know nothing of machines."""
        del completed
        return False

    def read_log(self, text: str) -> QueueState | None:
        """Find nothing: no queue writes a log."""
        del text
        return None

    def cancel(self, queued: Sequence[Queued], *, force: bool) -> Call:
        """Take nothing out of a queue."""
        del queued, force
        return Call(("true",))
