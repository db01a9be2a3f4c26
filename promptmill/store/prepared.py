"""Statements of the hot path: worded once for a database, then handed to the driver with plain values.

The one idea: SQLAlchemy writes the SQL and knows how each value is bound, and is asked both only once. Looking up a
statement that it has compiled already costs more than SQLite takes to run it. What comes back is what the driver
gives, so such a statement returns text and numbers, and whoever wants a time or JSON of it decodes that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, CursorResult, Dialect, Insert, select
from sqlalchemy.sql.elements import ClauseElement

from promptmill.store.rowsets import Rowset

Encoder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Wording:
    """A statement as a driver takes it; `places` is the order of its parameters, None where it takes them by name."""

    sql: str
    places: Sequence[str] | None
    constants: Mapping[str, Any]
    encoders: Mapping[str, Encoder]

    def values(self, given: Mapping[str, Any]) -> Any:
        values = {**self.constants, **given}
        for name, encode in self.encoders.items():
            values[name] = encode(values[name])
        return values if self.places is None else tuple(values[name] for name in self.places)


class Prepared:
    """A statement with its parameters by name.

    Args:
        build: makes it for a dialect; called once for each.
    """

    def __init__(self, build: Callable[[str], ClauseElement]) -> None:
        self._build = build
        self._wordings: dict[str, _Wording] = {}

    def run(self, conn: Connection, given: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it with these parameters; every one it has must be given, and none besides."""
        wording = self._wordings.get(conn.dialect.name)
        if wording is None:
            wording = _worded(self._build(conn.dialect.name), conn.dialect, given)
            self._wordings[conn.dialect.name] = wording
        return conn.exec_driver_sql(wording.sql, wording.values(given))


class PreparedInsert:
    """An INSERT of many rows that all give the same columns.

    One statement either way: SQLite runs it for row after row without a word between, Postgres gets all rows in one
    JSON text, because a message each would cost more than the rows.

    Args:
        build: as for Prepared; without values.
        columns: in the order in which rows give their values.
    """

    def __init__(self, build: Callable[[str], Insert], *columns: Column[Any]) -> None:
        self._build = build
        self._rows = Rowset(*columns)
        self._names = [each.name for each in columns]
        self._at_once = Prepared(self._from_rows)
        self._one_by_one: tuple[str, list[tuple[int, Encoder]]] | None = None

    def run(self, conn: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Insert the rows."""
        if conn.dialect.name != "sqlite":
            self._at_once.run(conn, self._rows.parameters(rows))
            return
        if self._one_by_one is None:
            self._one_by_one = self._one_row(conn.dialect)
        sql, encoders = self._one_by_one
        values = []
        for row in rows:
            encoded = list(row)
            for place, encode in encoders:
                encoded[place] = encode(encoded[place])
            values.append(tuple(encoded))
        conn.exec_driver_sql(sql, values)

    def _from_rows(self, dialect: str) -> Insert:
        given = self._rows.on(dialect)
        return self._build(dialect).from_select(self._names, select(*(given.c[name] for name in self._names)))

    def _one_row(self, dialect: Dialect) -> tuple[str, list[tuple[int, Encoder]]]:
        wording = _worded(self._build(dialect.name), dialect, dict.fromkeys(self._names))
        if wording.places is None or list(wording.places) != self._names:
            raise AssertionError(f"the columns are bound as {wording.places}")
        places = [(place, wording.encoders.get(name)) for place, name in enumerate(self._names)]
        return wording.sql, [(place, encode) for place, encode in places if encode is not None]


def _worded(statement: ClauseElement, dialect: Dialect, given: Mapping[str, Any]) -> _Wording:
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(given))
    expanded = compiled.construct_expanded_state(given)
    encoders = {**compiled._bind_processors, **expanded.processors}  # noqa: SLF001  # how SQLAlchemy itself binds them
    constants = {
        name: _plain(encoders[name](value) if name in encoders else value)
        for name, value in expanded.parameters.items()
        if name not in given
    }
    return _Wording(
        sql=expanded.statement,
        places=expanded.positiontup,
        constants=constants,
        encoders={name: encoders[name] for name in given if name in encoders},
    )


def _plain(value: Any) -> Any:
    """A word of an enum as plain text, which drivers take without asking what it is."""
    return str(value) if isinstance(value, str) else value
