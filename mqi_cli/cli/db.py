"""`mqi db`: check, back up, restore and migrate the state database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import Json, Yes, confirmed
from mqi_cli.errors import EXIT_STATE, UsageError

app = command_group("Check, back up and restore the state database.")


@app.command()
def check(json: Json = False) -> None:
    """Prove that the database is sound; exit code 6 when it is not."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import dump, say
    from mqi_cli.store.backup import check as check_database
    from mqi_cli.store.database import journal_mode, sqlite_version
    from mqi_cli.store.migrations import SCHEMA_VERSION

    path = Operator.open(light=True).config.state_path
    problems = check_database(path)
    version = ".".join(map(str, sqlite_version()))
    if json:
        dump(
            {
                "path": str(path),
                "schema": SCHEMA_VERSION,
                "sqlite": version,
                "journal": journal_mode(),
                "problems": problems,
            }
        )
    elif problems:
        for problem in problems:
            say(f"fail  {problem}")
        say("  -> mqi daemon stop, then: mqi db restore BACKUP")
    else:
        say(f"ok: {path} is sound (schema {SCHEMA_VERSION}, SQLite {version}, journal mode {journal_mode()})")
    if problems:
        raise typer.Exit(EXIT_STATE)


@app.command()
def backup(
    directory: Annotated[Path | None, typer.Argument(help="Where to. Default: backups beside the database.")] = None,
    keep: Annotated[int, typer.Option(help="Keep only the newest so many there; 0 keeps all.")] = 0,
) -> None:
    """Write a proven copy of the database, while the daemon runs or not."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say
    from mqi_cli.store.backup import backup as make_backup

    operator = Operator.open(light=True)
    path = operator.store.path
    say(f"{make_backup(path, directory or path.parent / 'backups', keep=keep)}")


@app.command()
def restore(
    copy: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that mqi db backup wrote.")], yes: Yes = False
) -> None:
    """Put a backup in the database's place. The daemon must be stopped; the former database is kept beside it."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say
    from mqi_cli.store.backup import restore as put_back

    operator = Operator.open(light=True)
    if operator.daemon_pid is not None:
        raise UsageError(f"the daemon is running (pid {operator.daemon_pid})", hint="mqi daemon stop")
    path = operator.config.state_path
    if not confirmed(f"Replace {path} by {copy}?", yes=yes):
        say("nothing was done")
        return
    former = put_back(copy, path)
    say(f"restored {path}" + (f"; the former one is {former}" if former else ""))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema, with a backup before. Every other command does it by itself, too."""
    from mqi_cli.cli.operator import Operator
    from mqi_cli.cli.output import say
    from mqi_cli.store.database import prepare
    from mqi_cli.store.migrations import SCHEMA_VERSION

    applied = prepare(Operator.open(light=True).config.state_path)
    say(f"schema {SCHEMA_VERSION}: " + (f"{applied} steps applied" if applied else "nothing to do"))
