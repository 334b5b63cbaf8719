"""What the commands `mqi archive …` do."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from mqi_archiver.index import Archived, Index
from mqi_archiver.restore import restore
from mqi_archiver.retention import prune, too_old
from mqi_archiver.tarball import Damaged, prove
from mqi_cli import Clock, Column, Operator, UsageError, describe_os_error, say, show

COLUMNS = (
    Column("name", "Case"),
    Column("revision", "Rev.", justify="right"),
    Column("key", "Key"),
    Column("archived", "Archived"),
    Column("files", "Files", justify="right"),
    Column("size", "Bytes", justify="right"),
    Column("state", "State"),
    Column("path", "Archive"),
)
WELL = ("there", "proven", "removed by age", "removed", "would be removed", "gone already")


def run_now(case: str, *, step: str, json: bool, format: str) -> None:
    """Archive a case in the foreground and print what came of it."""
    operator = Operator.open()
    facts = operator.perform("archive", case, step=step)
    key = operator.find(case).key
    known = [each for each in _index(operator).of(key) if each.sha256 == facts.get("sha256")]
    rows = [{**_row(each, "proven"), "cleared": facts.get("cleared", [])} for each in known[-1:]]
    columns = [*COLUMNS[:-1], Column("cleared", "Cleared"), COLUMNS[-1]]
    show(rows if json else [{**row, "cleared": ", ".join(row["cleared"])} for row in rows], columns, json=json, format=format)  # fmt: skip


def list_archives(*, verify: bool, removed: bool, json: bool, format: str) -> bool:
    """Print the archives, newest last; say whether all are well."""
    operator = Operator.open()
    index = _index(operator)
    found = [each for each in index.each() if removed or each.pruned_at is None]
    rows = [_row(each, state_of(each, verify=verify)) for each in sorted(found, key=lambda each: each.archived_at)]
    show(rows, COLUMNS, json=json, format=format, empty="no archives were made on this machine")
    damaged = index.damaged()
    if damaged:
        sys.stderr.write(f"{damaged} records of archives can't be read; the archives themselves may be well\n")
    return not damaged and all(row["state"] in WELL for row in rows)


def state_of(archived: Archived, *, verify: bool) -> str:
    """Say how an archive is: by its place and size, or with `verify` by reading and proving all of it."""
    if archived.pruned_at is not None:
        return "removed by age"
    path = Path(archived.path)
    try:
        if path.is_symlink() or path.stat().st_size != archived.size:
            return "damaged: not the file that was written"
        if not verify:
            return "there"
        proven = prove(path)
    except FileNotFoundError:
        return "missing"
    except Damaged as error:
        return f"damaged: {error}"
    except OSError as error:
        return f"unreadable: {describe_os_error(error)}"
    return "proven" if proven.sha256 == archived.sha256 else "damaged: not the file that was written"


def restore_case(case: str, to: Path) -> None:
    """Restore the newest archive of a case, or an archive by its path, and say what is there now."""
    path, sha256 = Path(case), ""
    if not path.is_file():
        archived = _index(Operator.open()).find(case)
        path, sha256 = Path(archived.path), archived.sha256
    proven = restore(path, to, sha256=sha256)
    files = len(proven.sums) - 1  # all but the archive's own manifest
    say(f"restored into {to}: {files} file{'' if files == 1 else 's'}, each proven")


def prune_archives(*, older_than: str, dry_run: bool, yes: bool, json: bool, format: str) -> bool:
    """Remove archives by age, after asking; say whether all that should go could go."""
    operator = Operator.open()
    index, now = _index(operator), Clock().now()
    old = too_old(index, older_than=_age(older_than, operator.section("archiver").retention), now=now)
    if old and not (dry_run or yes):
        _ask(f"Remove {len(old)} archives, {sum(each.size for each in old) / 1e9:.1f} GB?")
    done = list(prune(index, old, now=now, dry_run=dry_run))
    rows = [_row(each.archived, each.outcome) for each in done]
    show(rows, COLUMNS, json=json, format=format, empty="no archive is that old")
    return not any(each.is_problem for each in done)


def _age(text: str, retention: float | None) -> float:
    from pydantic import TypeAdapter, ValidationError

    from mqi_cli import Duration

    if not text:
        if retention is None:
            raise UsageError("how old is too old?", hint="mqi archive prune --older-than 180d")
        return retention
    try:
        age: float = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise UsageError(f"--older-than: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    return age


def _ask(question: str) -> None:
    import typer

    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on", hint="give --yes, or look first: --dry-run")
    typer.confirm(question, abort=True)


def _index(operator: Operator) -> Index:
    return Index(operator.config.state_dir / "plugins" / "archiver")


def _row(archived: Archived, state: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(archived.archived_at)
    return {
        "key": archived.key,
        "name": archived.name,
        "source": archived.source,
        "revision": archived.revision,
        "archived": at.isoformat(sep=" ", timespec="seconds"),
        "archived_at": archived.archived_at,
        "files": archived.files,
        "size": archived.size,
        "sha256": archived.sha256,
        "state": state,
        "path": archived.path,
    }
