"""Statements whose text is made once. Peewee builds the text of a query anew each time, which takes some ten times as long
as SQLite's own work on it; what runs for every event is therefore kept as text, with blanks for the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import peewee

_AS_STORED = (peewee.IntegerField, peewee.AutoField, peewee.FloatField, peewee.TextField)  # read as SQLite gives them


class _Blank:
    def __init__(self, name: str) -> None:
        self.name = name


def blank(name: str) -> Any:
    """Stand in a query for a value that is given, as it is stored, when the statement runs."""
    return peewee.Value(_Blank(name), converter=False)


def _literal(value: Any) -> str:
    if isinstance(value, _Blank):
        return "?"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else repr(int(value) if isinstance(value, bool) else value)


class Statement:
    """A query with blanks. It is built when it first runs.

    What is no blank stands in its text: SQLite uses an index with a condition only where it can read that condition.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._text = ""
        self._blanks: tuple[str, ...] = ()

    def run(self, database: Any, **values: Any) -> Any:
        """Run it with these values in its blanks; return the cursor."""
        if not self._text:
            text, found = peewee.SqliteDatabase(None).get_sql_context().sql(self._build()).query()
            pieces = text.split("?")
            filled = [piece + _literal(each) for piece, each in zip(pieces, found, strict=False)]
            self._blanks = tuple(each.name for each in found if isinstance(each, _Blank))
            self._text = "".join([*filled, pieces[-1]])
        return database.execute_sql(self._text, [values[name] for name in self._blanks])


class Rows(Statement):
    """A query for whole rows of one table."""

    def __init__(self, table: type[peewee.Model], build: Callable[[], Any]) -> None:
        super().__init__(build)
        self._table = table

    def all(self, database: Any, **values: Any) -> list[dict[str, Any]]:
        """Return the rows, each by its fields' names."""
        names, converted = _reading(self._table)
        rows = []
        for values_of_row in self.run(database, **values):
            row = dict(zip(names, values_of_row, strict=True))
            for name, convert in converted:
                row[name] = convert(row[name])
            rows.append(row)
        return rows


def insert(database: Any, table: type[peewee.Model], row: Mapping[str, Any]) -> int:
    """Insert a row; return its number."""
    text = _insert_text(table, tuple(row))
    return int(database.execute_sql(text, _stored(table, row)).lastrowid)


def update(database: Any, table: type[peewee.Model], key: Any, fields: Mapping[str, Any]) -> None:
    """Change fields of the row with this primary key."""
    database.execute_sql(_update_text(table, tuple(fields)), [*_stored(table, fields), key])


def _stored(table: type[peewee.Model], row: Mapping[str, Any]) -> list[Any]:
    converters = _writing(table)
    return [converters[name](value) for name, value in row.items()]


@cache
def _reading(table: Any) -> tuple[tuple[str, ...], tuple[tuple[str, Callable[[Any], Any]], ...]]:
    fields = table._meta.sorted_fields
    other = [each for each in fields if type(each) not in _AS_STORED]
    return tuple(each.name for each in fields), tuple((each.name, each.python_value) for each in other)


@cache
def _writing(table: Any) -> dict[str, Callable[[Any], Any]]:
    return {each.name: each.db_value for each in table._meta.sorted_fields}


@cache
def _insert_text(table: Any, names: Sequence[str]) -> str:
    columns = ", ".join(f'"{_column(table, name)}"' for name in names)
    return f'INSERT INTO "{table._meta.table_name}" ({columns}) VALUES ({", ".join("?" * len(names))})'  # noqa: S608 <names of our own>


@cache
def _update_text(table: Any, names: Sequence[str]) -> str:
    changes = ", ".join(f'"{_column(table, name)}" = ?' for name in names)
    key = table._meta.primary_key.column_name
    return f'UPDATE "{table._meta.table_name}" SET {changes} WHERE "{key}" = ?'  # noqa: S608 <names of our own>


def _column(table: Any, name: str) -> str:
    column: str = table._meta.fields[name].column_name
    return column
