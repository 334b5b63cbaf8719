"""Which case directories a source holds now; what is wrong with the source itself is raised as an alert."""

from __future__ import annotations

from pathlib import Path

from mqi_cli import Alert, PatrolContext, SourceView, case_directories, describe_os_error
from mqi_scanner.mounts import Mounts


class Listing:
    """Lists sources, and remembers which alerts are known not to stand."""

    def __init__(self) -> None:
        self._clear: set[str] = set()

    def cases(self, ctx: PatrolContext, source: SourceView) -> dict[str, Path] | None:
        """Return name and directory of each case; None, with an alert, for a source that can't be read."""
        mounts = Mounts(ctx.data_dir)
        try:
            found = dict(case_directories(source))
        except OSError as error:
            self._alert_source(ctx, source, f"source {source.name} can't be read: {describe_os_error(error)}")
            return None
        if not found and (former := mounts.lost(source)):
            text = f"source {source.name} is empty, and what was mounted there ({former}) is not"
            self._alert_source(ctx, source, text)
            return None
        mounts.remember(source)
        self._alert_source(ctx, source, "")
        odd = [name for name in found if not _is_plain(name)]
        self._alert_names(ctx, source, len(odd))
        for name in odd:
            del found[name]
        return found

    def _alert_source(self, ctx: PatrolContext, source: SourceView, text: str) -> None:
        hint = "is the share mounted, and may mqi's user read it? `mqi doctor` tells" if text else ""
        fine = f"source {source.name} can be read again"
        self._raise(ctx, Alert(f"source:{source.name}", bool(text), text or fine, hint))

    def _alert_names(self, ctx: PatrolContext, source: SourceView, count: int) -> None:
        what = "1 directory whose name" if count == 1 else f"{count} directories whose names"
        text = f"source {source.name} holds {what} can't be used" if count else "all of its names can be used again"
        hint = "rename them: names are UTF-8, without control characters" if count else ""
        self._raise(ctx, Alert(f"source:{source.name}:names", bool(count), text, hint))

    def _raise(self, ctx: PatrolContext, alert: Alert) -> None:
        if alert.active:
            self._clear.discard(alert.topic)
            ctx.report(alert)
        elif alert.topic not in self._clear:  # after a start an alert may stand that an earlier process raised
            self._clear.add(alert.topic)
            ctx.report(alert)


def is_gone(path: Path) -> bool:
    """Whether nothing is there. What can't be told is taken for there."""
    try:
        path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_plain(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return all(ord(char) >= 32 and ord(char) != 127 for char in name)
