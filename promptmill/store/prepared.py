"""Statements of the hot path: worded once for a database, then handed to the driver with plain values.

The one idea: SQLAlchemy writes the SQL and knows how each value is bound, and is asked both only once. Looking up a
statement that it has compiled already costs more than SQLite takes to run it. What comes back is what the driver
gives, so such a statement returns text and numbers, and whoever wants a time or JSON of it decodes that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect
from sqlalchemy.sql.elements import ClauseElement

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

    Args:
        build: as for Prepared.
        columns: their names, in the order in which rows give their values.
    """

    def __init__(self, build: Callable[[str], ClauseElement], *columns: str) -> None:
        self._build = build
        self._columns = columns
        self._wordings: dict[str, tuple[_Wording, list[tuple[int, Encoder]]]] = {}

    def run(self, conn: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Insert the rows."""
        if conn.dialect.name not in self._wordings:
            self._wordings[conn.dialect.name] = self._worded(conn.dialect)
        wording, encoders = self._wordings[conn.dialect.name]
        values = []
        for row in rows:
            encoded = list(row)
            for place, encode in encoders:
                encoded[place] = encode(encoded[place])
            values.append(encoded)
        if wording.places is None:
            named = [dict(zip(self._columns, each, strict=True)) for each in values]
            conn.exec_driver_sql(wording.sql, named)
        else:
            conn.exec_driver_sql(wording.sql, [tuple(each) for each in values])

    def _worded(self, dialect: Dialect) -> tuple[_Wording, list[tuple[int, Encoder]]]:
        wording = _worded(self._build(dialect.name), dialect, dict.fromkeys(self._columns))
        if wording.places is not None and tuple(wording.places) != self._columns:
            raise AssertionError(f"the columns are bound as {wording.places}")
        places = [(place, wording.encoders.get(name)) for place, name in enumerate(self._columns)]
        return wording, [(place, encode) for place, encode in places if encode is not None]


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
