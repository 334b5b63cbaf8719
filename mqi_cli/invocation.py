"""What the command line said before the command: which config, how much to tell."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Invocation:
    """The options of `mqi` itself."""

    config: Path | None = None
    verbose: int = 0


_current: ContextVar[Invocation] = ContextVar("invocation", default=Invocation())  # noqa: B039  it is frozen


def options() -> Invocation:
    """Return the root options of this run."""
    return _current.get()


def set_options(invocation: Invocation) -> None:
    """Note the root options of this run."""
    _current.set(invocation)
