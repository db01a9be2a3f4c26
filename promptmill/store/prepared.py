"""Statements of the hot path: worded once for a database, then handed to the driver with plain values.

The one idea: SQLAlchemy writes the SQL and knows how each value is bound, and is asked both only once. Looking up a
statement that it has compiled already costs more than SQLite takes to run it. What comes back is what the driver
gives, so such a statement returns text and numbers, and whoever wants a time or JSON of it decodes that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, CursorResult, Dialect, Insert, Text, column, select
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.types import TypeEngine

from promptmill.encryption import Vault
from promptmill.store.columns import JsonText
from promptmill.store.rowsets import Rowset
from promptmill.store.sealing import vault_of

Encoder = Callable[[Any], Any]
_Place = tuple[str, Vault | None]
"""A dialect, and the keys that its values are sealed with: encoders hold both."""
# Characters. Up to here one JSON text is quicker for Postgres and costs us less than a message a row (measured with 5,
# 20 and 100 rows); 100 MB of answers took 750 MB and four times as long as that, because all of it is escaped twice.
_AT_ONCE = 64 * 1024


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
        self._wordings: dict[_Place, _Wording] = {}

    def run(self, conn: Connection, given: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it with these parameters; every one it has must be given, and none besides."""
        place = conn.dialect.name, vault_of(conn.dialect)
        wording = self._wordings.get(place)
        if wording is None:
            wording = _worded(self._build(conn.dialect.name), conn.dialect, given)
            self._wordings[place] = wording
        return conn.exec_driver_sql(wording.sql, wording.values(given))


class PreparedInsert:
    """An INSERT of many rows that all give the same columns.

    SQLite runs it for row after row without a word between, and Postgres does so for long ones. Short ones it gets
    all in one JSON text, because a message each would cost more than the rows.

    Args:
        build: as for Prepared; without values.
        columns: in the order in which rows give their values.
    """

    def __init__(self, build: Callable[[str], Insert], *columns: Column[Any]) -> None:
        self._build = build
        self._rows = Rowset(*(column(each.name, _as_driven(each.type)) for each in columns))
        self._names = [each.name for each in columns]
        self._at_once = Prepared(self._from_rows)
        self._one_by_one: dict[_Place, _Wording] = {}

    def run(self, conn: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Insert the rows."""
        place = conn.dialect.name, vault_of(conn.dialect)
        wording = self._one_by_one.get(place)
        if wording is None:
            wording = self._one_by_one[place] = self._one_row(conn.dialect)
        places = [(self._names.index(name), encode) for name, encode in wording.encoders.items()]
        values = [_encoded(row, places) for row in rows]
        if wording.places is not None:
            conn.exec_driver_sql(wording.sql, values)
        elif _characters(values) < _AT_ONCE:
            self._at_once.run(conn, self._rows.parameters(values))
        else:
            conn.exec_driver_sql(wording.sql, [dict(zip(self._names, row, strict=True)) for row in values])

    def _from_rows(self, dialect: str) -> Insert:
        given = self._rows.on(dialect)
        return self._build(dialect).from_select(self._names, select(*(given.c[name] for name in self._names)))

    def _one_row(self, dialect: Dialect) -> _Wording:
        wording = _worded(self._build(dialect.name), dialect, dict.fromkeys(self._names))
        if wording.constants or (wording.places is not None and list(wording.places) != self._names):
            raise AssertionError(f"the columns are bound as {wording.places}, and {wording.constants}")
        return wording


def _as_driven(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a value that is encoded already; a time is a time then too."""
    return Text() if isinstance(kind, JsonText) else kind


def _encoded(row: Sequence[Any], places: Iterable[tuple[int, Encoder]]) -> tuple[Any, ...]:
    values = list(row)
    for place, encode in places:
        values[place] = encode(values[place])
    return tuple(values)


def _characters(rows: Iterable[Sequence[Any]]) -> int:
    return sum(len(value) for row in rows for value in row if value.__class__ is str)


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
